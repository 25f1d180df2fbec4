// Package criconfig turns a pod's spec into CRI's messages: the sandbox's configuration with its name resolution, a container's
// configuration with its security context and resources, and the labels by which a kubelet that comes back finds what is its own.
// Its functions are pure.
package criconfig
