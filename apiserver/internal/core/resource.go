package core

import (
	"slices"
	"sort"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/apiserver/kind"
)

// Resource is one served group-version-resource.
type Resource struct {
	GVR schema.GroupVersionResource
	GVK schema.GroupVersionKind
	// Kind is the declaration of a stored resource, Virtual that of one that is not stored; the other is nil.
	Kind    *kind.Kind
	Virtual *kind.Virtual
	// Version is nil for the hub version, in which objects are stored.
	Version *kind.Version

	Namespaced bool
	Singular   string
	ShortNames []string
	Categories []string
	Verbs      []string

	subresources []Subresource
	scheme       *runtime.Scheme
	envelope     []byte
	jsonPrefix   string
	stored       *stored // nil if Virtual
}

// Subresource is one served subresource of a Resource.
type Subresource struct {
	Name string
	// GVK is the type of its request body.
	GVK   schema.GroupVersionKind
	Verbs []string
	// Virtual is set for those with a body of their own that are only created.
	Virtual *kind.Virtual
}

// Subresources returns what is served below an object's name, sorted by name.
func (r *Resource) Subresources() []Subresource { return r.subresources }

// Subresource returns the subresource of that name.
func (r *Resource) Subresource(name string) (Subresource, bool) {
	i := slices.IndexFunc(r.subresources, func(s Subresource) bool { return s.Name == name })
	if i < 0 {
		return Subresource{}, false
	}
	return r.subresources[i], true
}

// HasVerb reports whether the resource, or its subresource, serves verb.
func (r *Resource) HasVerb(subresource, verb string) bool {
	if subresource == "" {
		return slices.Contains(r.Verbs, verb)
	}
	s, ok := r.Subresource(subresource)
	return ok && slices.Contains(s.Verbs, verb)
}

// New returns an empty object of the type that a request body for the resource, or its subresource, is decoded into.
func (r *Resource) New(subresource string) (runtime.Object, error) {
	gvk := r.GVK
	if subresource != "" {
		s, ok := r.Subresource(subresource)
		if !ok {
			return nil, errNotFoundPath()
		}
		gvk = s.GVK
	}
	obj, err := r.scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// ListGVK is the type of a list of the resource.
func (r *Resource) ListGVK() schema.GroupVersionKind {
	return r.GVK.GroupVersion().WithKind(r.GVK.Kind + "List")
}

// Target says what a request is about.
type Target struct {
	Resource    *Resource
	Subresource string
	Namespace   string // empty for cluster-scoped resources and requests across namespaces
	Name        string
}

// Object is a committed object, or the answer of a request that commits none (dry run, scale, virtual resources).
type Object = objectcache.Object

var scaleGVK = autoscalingv1.SchemeGroupVersion.WithKind("Scale")

var allVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// resourcesOf expands the declaration of a kind into its served versions, hub first.
func resourcesOf(k *kind.Kind, virtuals []*kind.Virtual) []*Resource {
	verbs := k.Verbs
	if verbs == nil {
		verbs = allVerbs
	}
	base := Resource{
		GVK: k.GVK, GVR: k.GVK.GroupVersion().WithResource(k.Resource), Kind: k, Namespaced: k.Namespaced,
		Singular: k.Singular, ShortNames: k.ShortNames, Categories: k.Categories, Verbs: verbs,
	}
	out := []*Resource{&base}
	for i := range k.Versions {
		r := base
		r.Version = &k.Versions[i]
		r.GVK = r.Version.GVK
		name := r.Version.Resource
		if name == "" {
			name = k.Resource
		}
		r.GVR = r.GVK.GroupVersion().WithResource(name)
		out = append(out, &r)
	}
	for _, r := range out {
		r.subresources = subresourcesOf(r, virtuals)
	}
	return out
}

func subresourcesOf(r *Resource, virtuals []*kind.Virtual) []Subresource {
	var subs []Subresource
	add := func(name string, gvk schema.GroupVersionKind, verbs []string) {
		if verbs == nil {
			verbs = []string{"get", "patch", "update"}
		}
		subs = append(subs, Subresource{Name: name, GVK: gvk, Verbs: verbs})
	}
	if s := r.Kind.Status; s != nil {
		add("status", r.GVK, s.Verbs)
	}
	if r.Kind.Scale != nil {
		add("scale", scaleGVK, nil)
	}
	for name, s := range r.Kind.Subresources {
		add(name, r.GVK, s.Verbs)
	}
	for _, v := range virtuals {
		if v.Subresource != "" && v.Resource == r.GVR.Resource {
			subs = append(subs, Subresource{Name: v.Subresource, GVK: v.GVK, Verbs: []string{"create"}, Virtual: v})
		}
	}
	sort.Slice(subs, func(i, j int) bool { return subs[i].Name < subs[j].Name })
	return subs
}

// toHub converts an object of the resource's version into the hub version; obj itself if it is one already.
func (r *Resource) toHub(obj client.Object) (client.Object, error) {
	if r.Version == nil {
		return obj, nil
	}
	hub, err := r.Version.From(obj)
	if err != nil {
		return nil, err
	}
	hub.GetObjectKind().SetGroupVersionKind(r.Kind.GVK)
	return hub, nil
}

// fromHub is the inverse of toHub.
func (r *Resource) fromHub(obj client.Object) (client.Object, error) {
	if r.Version == nil {
		return obj, nil
	}
	v, err := r.Version.To(obj)
	if err != nil {
		return nil, err
	}
	v.GetObjectKind().SetGroupVersionKind(r.GVK)
	return v, nil
}
