// Package certificates approves and signs CertificateSigningRequests.
//
//	ctl, err := certificates.New(c, cache, certificates.Options{CA: cert, Key: key})
//	...
//	err = ctl.Run(ctx)
//
// It signs for the signers kubernetes.io/kube-apiserver-client,
// kube-apiserver-client-kubelet, kubelet-serving and legacy-unknown what has
// been approved. It approves by itself kubelets' client certificates, if the
// requester may create certificatesigningrequests/nodeclient (or selfnodeclient
// for its own), and, only when told to, kubelets' serving certificates for the
// addresses of their Node. Requests are deleted some time after they are done.
package certificates
