// Package discovery declares the kind of API group discovery.k8s.io: EndpointSlice, version v1.
package discovery
