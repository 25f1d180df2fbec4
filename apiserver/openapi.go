package apiserver

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/httpapi"
	"github.com/keelson/keelson/apiserver/openapi"
)

// openAPI describes what is served.
func openAPI(resources []*core.Resource, connects []httpapi.Connect) (*openapi.Spec, error) {
	var out []openapi.Resource
	for _, r := range resources {
		add := func(sub string, gvk schema.GroupVersionKind, verbs []string, connect bool) {
			out = append(out, openapi.Resource{
				GroupVersionResource: r.GVR, Subresource: sub, Namespaced: r.Namespaced, GVK: gvk, Verbs: verbs, Connect: connect,
			})
		}
		add("", r.GVK, r.Verbs, false)
		for _, s := range r.Subresources() {
			add(s.Name, s.GVK, s.Verbs, false)
		}
		for _, c := range connects {
			if r.GVR.Group == "" && c.Resource == r.GVR.Resource {
				add(c.Subresource, r.GVR.GroupVersion().WithKind(c.Kind), c.Verbs, true)
			}
		}
	}
	return openapi.New(Version, out)
}
