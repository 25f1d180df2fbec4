// Package stock builds and starts unmodified components of Kubernetes and etcd, as processes of
// their own, for tests to run beside:
//
//	s := stock.APIServer(t, stock.APIServerOptions{Etcd: []string{url}})
//	client, err := kubernetes.NewForConfig(s.Config)
//
// The components are the tools of this module's go.mod, so their versions are pinned there. Each is
// built at most once, into the user's cache directory; the first time that takes many
// minutes. What a test starts has ended when the test has, and no goroutine is left of it.
package stock
