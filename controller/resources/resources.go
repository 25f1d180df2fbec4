package resources

import (
	"context"
	"errors"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Resource is one kind that can be listed, watched and deleted.
type Resource struct {
	Kind       schema.GroupVersionKind
	Resource   string // plural, such as "deployments"
	Namespaced bool
}

// GroupResource names the resource without its version.
func (r Resource) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Kind.Group, Resource: r.Resource}
}

// Lister lists the resources of an API, each group's in its preferred version.
// With an error the list holds what could be found out nevertheless; an
// *discovery.ErrGroupDiscoveryFailed says which groups could not.
type Lister interface {
	Resources(ctx context.Context) ([]Resource, error)
}

// Func makes a function a Lister.
type Func func(context.Context) ([]Resource, error)

// Resources calls f.
func (f Func) Resources(ctx context.Context) ([]Resource, error) { return f(ctx) }

// Static always lists the same.
func Static(r ...Resource) Lister {
	return Func(func(context.Context) ([]Resource, error) { return slices.Clone(r), nil })
}

// FromDiscovery asks the API server each time. It finds custom resources.
func FromDiscovery(d discovery.DiscoveryInterface) Lister {
	return Func(func(context.Context) ([]Resource, error) {
		lists, err := d.ServerPreferredResources()
		var out []Resource
		for _, l := range lists {
			gv, parseErr := schema.ParseGroupVersion(l.GroupVersion)
			if parseErr != nil {
				err = errors.Join(err, parseErr)
				continue
			}
			for _, r := range l.APIResources {
				if strings.Contains(r.Name, "/") || !hasVerbs(r.Verbs, "list", "watch", "delete") {
					continue
				}
				g := gv
				if r.Group != "" {
					g.Group = r.Group
				}
				if r.Version != "" {
					g.Version = r.Version
				}
				out = append(out, Resource{Kind: g.WithKind(r.Kind), Resource: r.Name, Namespaced: r.Namespaced})
			}
		}
		return out, err
	})
}

func hasVerbs(have metav1.Verbs, want ...string) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}

// Known lists the kinds of a client's scheme that its RESTMapper says are
// served. It finds no custom resources but those registered in the scheme.
func Known(c client.Client) Lister {
	return Func(func(context.Context) ([]Resource, error) {
		s, mapper := c.Scheme(), c.RESTMapper()
		seen := map[schema.GroupKind]bool{}
		var out []Resource
		for gvk := range s.AllKnownTypes() {
			gk := gvk.GroupKind()
			if gvk.Version == runtime.APIVersionInternal || seen[gk] || gk.Group == "extensions" || gk.Group == "" && gk.Kind == "ComponentStatus" {
				continue
			}
			if !s.Recognizes(gvk.GroupVersion().WithKind(gvk.Kind+"List")) || strings.HasSuffix(gvk.Kind, "List") {
				continue
			}
			seen[gk] = true
			m, err := mapper.RESTMapping(gk)
			if meta.IsNoMatchError(err) {
				continue
			}
			if err != nil {
				return out, err
			}
			out = append(out, Resource{Kind: m.GroupVersionKind, Resource: m.Resource.Resource, Namespaced: m.Scope.Name() == meta.RESTScopeNameNamespace})
		}
		slices.SortFunc(out, func(a, b Resource) int { return strings.Compare(a.Kind.String(), b.Kind.String()) })
		return out, nil
	})
}

// NewObject makes an empty object of a kind: typed if the scheme has it, else
// metadata only.
func NewObject(s *runtime.Scheme, gvk schema.GroupVersionKind) client.Object {
	if o, err := s.New(gvk); err == nil {
		if c, ok := o.(client.Object); ok {
			return c
		}
	}
	return NewMetadata(gvk)
}

// NewMetadata makes an empty metadata-only object of a kind.
func NewMetadata(gvk schema.GroupVersionKind) *metav1.PartialObjectMetadata {
	p := &metav1.PartialObjectMetadata{}
	p.SetGroupVersionKind(gvk)
	return p
}

// NewList makes an empty list for objects such as NewObject makes.
func NewList(s *runtime.Scheme, gvk schema.GroupVersionKind) client.ObjectList {
	list := gvk.GroupVersion().WithKind(gvk.Kind + "List")
	if s.Recognizes(gvk) {
		if o, err := s.New(list); err == nil {
			if c, ok := o.(client.ObjectList); ok {
				return c
			}
		}
	}
	p := &metav1.PartialObjectMetadataList{}
	p.SetGroupVersionKind(list)
	return p
}
