// Package controller runs reconcilers against a Kubernetes API.
//
// A Reconciler is controller-runtime's, so an operator's own runs inside
// unchanged. A Runner feeds it: sources (kinds watched through a cache, with
// predicates and mapping functions) put requests into a rate-limited work
// queue, and a number of workers take them out.
//
//	r, err := controller.New("widgets", c, cache, reconciler, controller.Options{
//		Sources: []controller.Source{
//			controller.For(&examplev1.Widget{}),
//			controller.Owned(&appsv1.Deployment{}, examplev1.GroupVersion.WithKind("Widget")),
//		},
//	})
//	if err != nil {
//		return err
//	}
//	return r.Run(ctx)
//
// The controllers Kubernetes ships are in the packages below this one, each
// importable and runnable alone against any API server; package builtin
// composes them. All take the client they write and read live with, and the
// cache they watch with. The cache is started by its owner, not by them.
//
// # What it does not do
//
// It starts no HTTP server, holds no global registry and never ends the
// process: losing a leader election stops the reconciler, waits for its
// workers and stands for election again.
package controller
