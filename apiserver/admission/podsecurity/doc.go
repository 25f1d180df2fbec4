// Package podsecurity is the admission plugin PodSecurity: it holds the pods of a namespace to the Pod Security Standard that labels of the
// namespace choose, refusing (enforce), warning (warn) or noting for the audit log (audit).
//
// The checks of the standards themselves are those of k8s.io/pod-security-admission/policy.
package podsecurity
