// Package interop has the tests of Keelson beside the stock components of Kubernetes. It is a
// module of its own, so that what they need is not among what Keelson requires.
package interop
