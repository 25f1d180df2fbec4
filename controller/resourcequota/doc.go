// Package resourcequota keeps the status of ResourceQuotas: what of each is
// used. Admission counts up as objects are made; this controller counts anew
// when objects change or go, when a quota changes, and periodically.
//
//	ctl, err := resourcequota.New(c, cache, resourcequota.Options{})
//	...
//	err = ctl.Run(ctx)
//
// Pods, Services and PersistentVolumeClaims are measured; of all other kinds,
// those of Options.Resources, the objects are counted (count/deployments.apps).
// Quotas of dynamically allocated devices are not computed and stay zero.
package resourcequota
