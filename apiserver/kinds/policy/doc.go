// Package policy declares the kind of API group policy: PodDisruptionBudget, version v1.
//
// The Eviction kind of this group is the body of the pods/eviction subresource, which package core declares.
package policy
