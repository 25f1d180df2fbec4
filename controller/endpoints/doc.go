// Package endpoints keeps the Endpoints, the older form of EndpointSlices, of
// Services with a selector.
//
//	ctl, err := endpoints.New(c, cache, endpoints.Options{})
//	...
//	err = ctl.Run(ctx)
//
// An object holds at most 1,000 addresses; one that was cut is annotated
// endpoints.kubernetes.io/over-capacity: truncated.
package endpoints
