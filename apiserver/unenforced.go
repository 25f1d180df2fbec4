package apiserver

import (
	"context"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// unenforced are resources that are served although nothing of Keelson acts on them, and what their clients are told.
func unenforced() map[string]string {
	return map[string]string{
		"networkpolicies":          "NetworkPolicies are stored, but this cluster does not enforce them: all traffic is allowed",
		"horizontalpodautoscalers": "HorizontalPodAutoscalers are stored, but this cluster has no controller that scales by them",
	}
}

// warnOfUnenforced adds a warning to writes of objects that have no effect. The declarations are the server's own.
func warnOfUnenforced(groups []kind.Group, enforced []string) {
	texts := unenforced()
	for _, g := range groups {
		for _, k := range g.Kinds {
			text, ok := texts[k.Resource]
			if !ok || slices.Contains(enforced, k.Resource) {
				continue
			}
			own := k.Warnings
			k.Warnings = func(ctx context.Context, obj, old client.Object) []string {
				out := []string{text}
				if own != nil {
					out = append(out, own(ctx, obj, old)...)
				}
				return out
			}
		}
	}
}
