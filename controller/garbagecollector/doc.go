// Package garbagecollector deletes objects whose owners are gone.
//
//	ctl, err := garbagecollector.New(c, cache, garbagecollector.Options{Resources: resources.FromDiscovery(d)})
//	...
//	err = ctl.Run(ctx)
//
// It keeps a graph of owner references over all kinds, and carries out the
// three propagation policies: background (dependents go once the owner is
// gone), foreground (finalizer foregroundDeletion: the owner goes once the
// dependents that block it are gone) and orphan (finalizer orphan).
//
// An owner counts as gone only after a live read by name said so, or found
// another uid there. An owner reference is resolved in the namespace of the
// object that has it; a namespaced owner of a cluster-scoped object cannot
// exist, and such an object is left alone.
package garbagecollector
