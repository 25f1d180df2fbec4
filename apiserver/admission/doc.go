// Package admission puts the admission plugins of the packages below it together, on the interfaces of k8s.io/apiserver/pkg/admission.
//
//	plugins, err := admission.Default(admission.Deps{Reader: c, Client: c, Authorizer: a})
//	chain, err := admission.NewChain(plugins, admission.ChainOptions{Off: []string{"PodSecurity"}})
//
// Each plugin is a package of its own that works alone, with New(reader, Options). A Chain runs them in the order of kube-apiserver;
// plugins of k8s.io/apiserver and an integrator's own fit in as they are. Late lets a server be built before what its plugins read
// from.
//
// The plugins read as the server: the readers in Deps must not act as the user whose request is admitted.
package admission
