// Package namespace empties and finalizes namespaces that are being deleted.
//
//	ctl, err := namespace.New(c, cache, namespace.Options{Resources: resources.FromDiscovery(d)})
//	...
//	err = ctl.Run(ctx)
//
// Pods go first, and everything else once they are gone, so that what protects
// them, such as a NetworkPolicy, outlives them. What could not be found,
// deleted or is still waiting is said in the namespace's conditions.
package namespace
