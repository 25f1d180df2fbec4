// Package serviceaccount is the admission plugin ServiceAccount: pods get a service account, its image pull secrets, and a
// projected volume with a token, the cluster's root CA and their namespace.
package serviceaccount
