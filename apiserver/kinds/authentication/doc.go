// Package authentication declares what API group authentication.k8s.io, version v1, answers: TokenReview and SelfSubjectReview. Nothing of it is
// stored.
package authentication
