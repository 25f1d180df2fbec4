// Package statefulset runs StatefulSets: pods with an identity, made and taken
// away in order, each with its own claims.
//
//	ctl, err := statefulset.New(c, cache, statefulset.Options{})
//	...
//	err = ctl.Run(ctx)
//
// Ordered and parallel management, rolling updates with partition and
// maxUnavailable, OnDelete, start ordinals, minReadySeconds, revision history
// and the retention policy of claims are supported.
package statefulset
