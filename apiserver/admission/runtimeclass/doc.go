// Package runtimeclass is the admission plugin RuntimeClass: pods get the overhead, node selector and tolerations of their RuntimeClass.
package runtimeclass
