// Package apiserver is a Kubernetes API server as a value: an http.Handler and an in-process client over any
// store.Store.
//
//	srv, err := apiserver.New(memstore, apiserver.Options{Listen: []string{"127.0.0.1:6443"}})
//	go srv.Run(ctx)
//	err = srv.WaitReady(ctx)
//	pods := &corev1.PodList{}
//	err = srv.Client(apiserver.Admin).List(ctx, pods)
//
// A Server serves what its Options say and nothing global: any number of them live in one process, each on a store of its
// own or several on one. Everything that is asked of it (over TLS, through ServeHTTP, through RESTConfig's
// in-memory transport, or by the typed Client and Cache) passes the same authorization, admission, defaulting and
// validation; only those over the network are authenticated, the others say who they are.
//
// With the zero Options it listens nowhere, keeps its certificate authority in memory and authorizes by RBAC.
//
// What it does not do: aggregate other API servers, call webhooks, audit to files. COMPATIBILITY.md has the list.
package apiserver
