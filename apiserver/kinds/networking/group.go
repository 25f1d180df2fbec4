package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/keelson/keelson/apiserver/kind"
)

// Group returns the declarations of API group networking.k8s.io.
func Group() kind.Group {
	return kind.Group{
		Name:        networkingv1.GroupName,
		AddToScheme: networkingv1.AddToScheme,
		Versions:    []string{"v1"},
		Kinds:       []*kind.Kind{ingressClass(), ingress(), networkPolicy()},
	}
}
