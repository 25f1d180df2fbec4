// Package networking declares kinds of API group networking.k8s.io, version v1: Ingress, IngressClass and NetworkPolicy.
package networking
