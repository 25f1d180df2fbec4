// Package coordination declares the kind of API group coordination.k8s.io: Lease, version v1.
package coordination
