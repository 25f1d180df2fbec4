// Package nodeipam gives every Node a range of pod addresses, spec.podCIDR,
// out of the cluster's.
//
//	ctl, err := nodeipam.New(c, cache, nodeipam.Options{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
//	...
//	err = ctl.Run(ctx)
//
// Nodes that have a range keep it. A range is free again when its Node is gone.
// Two replicas must not run at a time: use Options.LeaderElection.
package nodeipam
