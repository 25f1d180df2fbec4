// Package endpointslice keeps the EndpointSlices of Services with a selector.
//
//	ctl, err := endpointslice.New(c, cache, endpointslice.Options{})
//	...
//	err = ctl.Run(ctx)
//
// What goes into which slice is decided by k8s.io/endpointslice, Kubernetes'
// own library, topology hints and traffic distribution included.
package endpointslice
