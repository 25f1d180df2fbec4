// Package core is the API server without a wire: verbs on typed objects.
//
// Every method authorizes the user in its context, defaults, admits, validates and commits;
// adapters (HTTP, the in-process client) only translate. A committed object is immutable
// and shared: by the store write, every list, every watcher, every in-process informer.
//
// Errors are *apierrors.StatusError with the reasons and messages of Kubernetes. Warnings go
// to the recorder of k8s.io/apiserver/pkg/warning in the context, the user comes from
// k8s.io/apiserver/pkg/endpoints/request, the client's name for managed fields from WithUserAgent.
//
// What this package does not do: decode request bodies other than patches, connect
// subresources (exec, log, proxy), audit, tables.
package core
