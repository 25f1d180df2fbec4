// Package clusterroleaggregation fills the rules of ClusterRoles that have an
// aggregationRule with those of the ClusterRoles it selects.
//
//	ctl, err := clusterroleaggregation.New(c, cache, clusterroleaggregation.Options{})
//	...
//	err = ctl.Run(ctx)
package clusterroleaggregation
