// Package x509 authenticates requests by their client certificate, as Kubernetes reads it: the
// common name is the user, the organizations are the groups.
package x509
