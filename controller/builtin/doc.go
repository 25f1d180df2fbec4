// Package builtin runs Kubernetes' own controllers together.
//
//	set, err := builtin.New(c, cache, builtin.Options{RootCA: pem})
//	...
//	err = set.Run(ctx)
//
// Each can be switched on and off by the name kube-controller-manager has for
// it, with the same syntax. Each is a package of its own as well, for those who
// need but one.
package builtin
