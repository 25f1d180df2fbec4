// Package authorization declares what API group authorization.k8s.io, version v1, answers: SubjectAccessReview, LocalSubjectAccessReview,
// SelfSubjectAccessReview and SelfSubjectRulesReview. Nothing of it is stored.
package authorization
