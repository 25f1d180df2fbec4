// Package rootca publishes the certificate authority of the API server in
// every namespace, as ConfigMap kube-root-ca.crt, from where pods mount it.
//
//	ctl, err := rootca.New(c, cache, rootca.Options{CA: pem})
//	...
//	err = ctl.Run(ctx)
package rootca
