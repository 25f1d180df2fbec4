// Package node declares the kind of API group node.k8s.io: RuntimeClass, version v1.
package node
