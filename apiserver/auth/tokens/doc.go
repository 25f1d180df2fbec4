// Package tokens issues and verifies service-account tokens: JSON web tokens bound to a service
// account, optionally to a pod, secret or node, to audiences and to a time.
//
//	manager, err := tokens.New(authority.ServiceAccountKey(), reader, tokens.Options{})
//
// A Manager is an authenticator.Token of k8s.io/apiserver. A token is good while it has not expired and all that it
// is bound to exists under the same UID; these are looked up, through the reader given, on every request, while the
// signature is checked once. Requests of TokenRequest (the serviceaccounts/token
// subresource) are answered by CreateToken. Other parties verify tokens with the documents that Discovery
// and Keys return.
//
// Tokens kept in Secrets, without audience and expiry, are not made and not accepted.
package tokens
