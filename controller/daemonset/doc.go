// Package daemonset runs a pod of each DaemonSet on every Node that it is for.
//
//	ctl, err := daemonset.New(c, cache, daemonset.Options{})
//	...
//	err = ctl.Run(ctx)
//
// Pods are made for a Node by node affinity; the scheduler binds them. Rolling
// updates with maxUnavailable or maxSurge, OnDelete, revision history, and
// back-off of pods that fail are as in kube-controller-manager.
package daemonset
