// Package nodelifecycle watches over Nodes.
//
//	ctl, err := nodelifecycle.New(c, cache, nodelifecycle.Options{})
//	...
//	err = ctl.Run(ctx)
//
// A Node that shows no life, neither by its status nor by its Lease, for the
// grace period gets its conditions set to Unknown. What the conditions say is
// put on the Node as taints: NoSchedule for any trouble, and NoExecute for a
// Node that is not ready or unreachable, from which package tainteviction then
// evicts. Pods of a Node that is not ready are marked not ready.
//
// NoExecute taints are put at a limited rate per zone, slower or not at all
// when much of a zone fails at a time, and taken off everywhere while no Node at
// all is ready: then the trouble is more likely this end.
package nodelifecycle
