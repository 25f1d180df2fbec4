// Package tainteviction deletes pods from Nodes with NoExecute taints that
// they don't tolerate, or no longer tolerate.
//
//	ctl, err := tainteviction.New(c, cache, tainteviction.Options{})
//	...
//	err = ctl.Run(ctx)
//
// The time of a toleration with tolerationSeconds starts when the controller
// first sees pod and taint together.
package tainteviction
