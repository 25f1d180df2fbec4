// Package ca is a cluster's certificate authority: made on first start, kept in a directory or
// in memory, signing the API server's serving certificates and the client certificates of
// users, components and kubelets. It also keeps the key that signs service-account tokens.
//
//	authority, err := ca.New(ca.Options{Dir: "/var/lib/cluster/pki"})
//	admin, err := authority.Client("kubernetes-admin", "system:masters")
//
// All keys are ECDSA P-256: they are made in well under a millisecond, so a server that makes all of
// its own is still ready at once. Private keys are written with mode 0600 in a directory of mode 0700.
//
// The package does not revoke: a client certificate is good until it expires.
package ca
