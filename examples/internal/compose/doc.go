// Package compose puts the blocks together into a cluster, for the examples: a control plane in one process, and nodes in the same or in
// another. It makes the choices an example needs (addresses, which isolation and data plane the machine permits) and holds no logic of a block.
package compose
