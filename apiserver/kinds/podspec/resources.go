package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// overcommitAllowed says whether limits of a resource may exceed its requests: true for Kubernetes' own but hugepages.
func overcommitAllowed(name corev1.ResourceName) bool {
	return isNative(name) && !isHugePages(name)
}

func isHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// isNative says whether a resource is in Kubernetes' own namespace: unprefixed or *kubernetes.io/.
func isNative(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}
