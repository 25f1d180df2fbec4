// Package proxy makes Services reachable on a node.
//
// A Planner turns Services, EndpointSlices and the node's labels into the canonical list of ServicePorts, and each change of those
// objects into the smallest Change of that list. It is pure: no I/O, no goroutine, no clock. A Backend puts a Change into
// effect. A Proxy is the runner between them: it feeds the Planner from informers and the Backend from the Planner.
//
//	p, err := proxy.New(cache, backend, proxy.Options{NodeName: "node-1"})
//	...
//	err = p.Run(ctx)
//
// Backends: nftproxy (nftables, needs CAP_NET_ADMIN) and userproxy (pure Go, no privilege). proxytest is the suite for one of your own.
// dns serves the names of Services and pods.
package proxy
