// Package noderestriction is the admission plugin NodeRestriction: kubelets, users system:node:NAME in group system:nodes, change their own Node, its
// Lease and CSINode, and the pods on it, and nothing else.
package noderestriction
