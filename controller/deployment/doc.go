// Package deployment rolls Deployments out through ReplicaSets.
//
//	ctl, err := deployment.New(c, cache, deployment.Options{})
//	...
//	err = ctl.Run(ctx)
//
// Rolling updates with maxSurge and maxUnavailable, recreation, revisions (so
// that kubectl rollout history and undo work), pausing, proportional scaling,
// the progress deadline, and hash collisions are handled as by
// kube-controller-manager, with its conditions, annotations and events. A
// template's hash is the same, so either may take over from the other.
//
// The annotation deprecated.deployment.rollback.to of the extensions/v1beta1
// API is not acted on; kubectl has not used it for years.
package deployment
