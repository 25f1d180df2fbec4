// Package keelson is the map of the module: Kubernetes as Go packages.
//
// Each block is an interface with a default implementation, usable alone and against stock Kubernetes components:
//
//   - store: a revisioned, watchable key-value store (memstore, boltstore, etcdstore), with the suite storetest;
//   - apiserver: the Kubernetes API over a store, as an http.Handler and as an in-process client and cache;
//   - scheduler: assigns pods to nodes;
//   - controller: the runner for reconcilers, and one package for each built-in controller;
//   - kubelet: runs a node's pods over a RuntimeService (processruntime, criruntime, fakeruntime), with runtimetest;
//   - proxy: makes Services reachable (nftproxy, userproxy) and resolvable (dns), with proxytest;
//   - cni: gives pods their network (bridge, loopback, plugin, routes), with cnitest.
//
// The blocks meet only through the Kubernetes API: every component takes controller-runtime's client.WithWatch and cache.Cache, which the
// API server implements in-process and controller-runtime over HTTP. The programs below examples compose them; start with examples/quickstart.
//
// This package holds no code.
package keelson
