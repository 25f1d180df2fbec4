// Package node says what kubelets may do: a node reads the Secrets, ConfigMaps, claims and volumes of the pods bound to it, asks for tokens
// of their service accounts, and has its own Node, Lease and CSINode; everything else follows the rules of the role system:node.
//
//	a, err := node.New(node.Options{})
//	go a.Run(ctx, cache) // follows Pods, PersistentVolumes and VolumeAttachments
//	decision, reason, err := a.Authorize(ctx, attributes)
//
// A node is a user system:node:NAME in the group system:nodes; about everybody else the package has no opinion. Writes
// are narrowed further by the admission plugin NodeRestriction.
package node
