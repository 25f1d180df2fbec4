// Package scheduling declares the kind of API group scheduling.k8s.io: PriorityClass, version v1, and the classes that Kubernetes has from the
// start.
package scheduling
