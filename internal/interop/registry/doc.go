// Package registry tests that kube-apiserver and Keelson's API server can serve what the other
// has stored: with objects of every kind that both serve, under the same keys and with the same values.
package registry
