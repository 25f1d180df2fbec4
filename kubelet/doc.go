// Package kubelet runs the pods bound to one node over a RuntimeService.
package kubelet
