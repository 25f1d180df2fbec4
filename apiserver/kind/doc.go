// Package kind is the vocabulary in which resources are declared to the API server: one
// Kind a stored resource, one Virtual a create-only one, one Group an API group.
//
// A declaration is a value; nothing registers itself. A server serves what is in its
// Options. The packages below apiserver/kinds declare Kubernetes' own, one package an API group, one
// file a kind.
package kind
