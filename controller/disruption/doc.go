// Package disruption keeps the status of PodDisruptionBudgets, by which the
// eviction of pods is allowed or refused.
//
//	ctl, err := disruption.New(c, cache, disruption.Options{})
//	...
//	err = ctl.Run(ctx)
//
// For budgets in percent or by maxUnavailable the number of pods expected is
// that of their controllers: Deployments, ReplicaSets and StatefulSets are known,
// of others the scale subresource is read.
package disruption
