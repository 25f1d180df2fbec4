// Package replicaset keeps as many pods of each ReplicaSet as it asks for.
//
//	ctl, err := replicaset.New(c, cache, replicaset.Options{})
//	...
//	err = ctl.Run(ctx)
//
// It adopts matching pods without a controller, releases pods that match no
// more, deletes surplus pods in Kubernetes' order, and reports in the status
// and in events as kube-controller-manager does.
package replicaset
