package core

import (
	"context"
	"errors"
	"fmt"
	"sync"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/apiserver/kind"
)

// Core serves verbs on the objects of a store.
type Core struct {
	opts      Options
	scheme    *runtime.Scheme
	cache     *objectcache.Cache
	resources []*Resource
	byGVR     map[schema.GroupVersionResource]*Resource
	byGVK     map[schema.GroupVersionKind]*Resource // hub and other versions of stored kinds
	mutating  admission.MutationInterface
	validates admission.ValidationInterface
	ifaces    admission.ObjectInterfaces
	managed   *fieldManagers
	access    kind.Access
	names     fieldNames
	shared    *interner
}

// stored is what all versions of a kind share.
type stored struct {
	kind  *kind.Kind
	hub   *Resource
	codec *codec
	cache *objectcache.Resource
	shape *shape
}

// New returns a Core. It starts nothing; requests block until Run has loaded the store.
func New(o Options) (*Core, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	c := &Core{
		opts: o, scheme: o.Scheme, shared: newInterner(),
		byGVR: map[schema.GroupVersionResource]*Resource{},
		byGVK: map[schema.GroupVersionKind]*Resource{},
	}
	c.cache = objectcache.New(o.Store, objectcache.Options{
		Prefix: o.KeyPrefix, HistoryEvents: o.HistoryEvents, HistoryBytes: o.HistoryBytes, Clock: o.Clock, Logger: o.Logger,
	})
	c.mutating, _ = o.Admission.(admission.MutationInterface)
	c.validates, _ = o.Admission.(admission.ValidationInterface)
	c.access = access{c}
	// Any group's kinds may have the scale subresource.
	if err := autoscalingv1.AddToScheme(c.scheme); err != nil {
		return nil, fmt.Errorf("core: %w", err)
	}
	for _, g := range o.Groups {
		if g.AddToScheme != nil {
			if err := g.AddToScheme(c.scheme); err != nil {
				return nil, fmt.Errorf("core: group %q: %w", g.Name, err)
			}
		}
	}
	for _, g := range o.Groups {
		if err := c.addGroup(g); err != nil {
			return nil, err
		}
	}
	c.ifaces = admission.NewObjectInterfacesFromScheme(c.scheme)
	c.managed = newFieldManagers(c)
	if err := c.register(o.Metrics); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Core) addGroup(g kind.Group) error {
	for _, k := range g.Kinds {
		if err := checkKind(k, c.scheme); err != nil {
			return err
		}
		s := &stored{kind: k, codec: newCodec(k, c.scheme, c.shared), shape: shapeOf(k, c.scheme)}
		prefix := k.StorePrefix
		if prefix == "" {
			prefix = k.Resource
		}
		indexes := make([]objectcache.Index, 0, len(k.IndexFields))
		for _, f := range k.IndexFields {
			get := k.Fields[f]
			indexes = append(indexes, objectcache.Index{Name: f, Get: func(obj runtime.Object) string { return get(obj.(client.Object)) }})
		}
		var err error
		if s.cache, err = c.cache.Add(prefix, s.codec, indexes); err != nil {
			return err
		}
		for _, r := range resourcesOf(k, g.Virtuals) {
			r.stored = s
			if r.Version == nil {
				s.hub = r
			}
			if err := c.add(r); err != nil {
				return err
			}
			c.byGVK[r.GVK] = r
		}
	}
	for _, v := range g.Virtuals {
		if v.Subresource != "" {
			if !c.hasParent(g, v) {
				return fmt.Errorf("core: virtual subresource %s/%s has no resource in group %q", v.Resource, v.Subresource, g.Name)
			}
			continue
		}
		r := &Resource{
			GVR: v.GVK.GroupVersion().WithResource(v.Resource), GVK: v.GVK, Virtual: v, Namespaced: v.Namespaced,
			Singular: v.Singular, Verbs: []string{"create"},
		}
		if err := c.add(r); err != nil {
			return err
		}
	}
	return nil
}

func (c *Core) hasParent(g kind.Group, v *kind.Virtual) bool {
	for _, k := range g.Kinds {
		if k.Resource == v.Resource {
			return true
		}
	}
	return false
}

func (c *Core) add(r *Resource) error {
	if _, ok := c.byGVR[r.GVR]; ok {
		return fmt.Errorf("core: resource %s is declared twice", r.GVR)
	}
	r.scheme = c.scheme
	r.envelope = envelopeOf(r.GVK)
	r.jsonPrefix = fmt.Sprintf(`{"kind":%q,"apiVersion":%q,`, r.GVK.Kind, r.GVK.GroupVersion().String())
	c.byGVR[r.GVR] = r
	c.resources = append(c.resources, r)
	return nil
}

func checkKind(k *kind.Kind, scheme *runtime.Scheme) error {
	if k.Resource == "" || k.GVK.Kind == "" || k.GVK.Version == "" {
		return fmt.Errorf("core: kind %v: Resource, Kind and Version are required", k.GVK)
	}
	if _, err := newObject(scheme, k.GVK); err != nil {
		return fmt.Errorf("core: kind %v: %w", k.GVK, err)
	}
	for i := range k.Versions {
		v := &k.Versions[i]
		if v.To == nil || v.From == nil {
			return fmt.Errorf("core: kind %v: version %v needs To and From", k.GVK, v.GVK)
		}
		if _, err := newObject(scheme, v.GVK); err != nil {
			return fmt.Errorf("core: kind %v: %w", k.GVK, err)
		}
	}
	for _, f := range k.IndexFields {
		if k.Fields[f] == nil {
			return fmt.Errorf("core: kind %v: IndexFields has %q, which is not one of Fields", k.GVK, f)
		}
	}
	if k.Scale != nil && (k.Scale.Get == nil || k.Scale.Set == nil) {
		return fmt.Errorf("core: kind %v: Scale needs Get and Set", k.GVK)
	}
	return nil
}

// Run loads the store, follows it, and expires what has a time to live. It returns the context's error or what
// ended the store's watch; once only.
func (c *Core) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Add(2)
	go func() {
		defer wg.Done()
		c.managed.warm()
	}()
	go func() {
		defer wg.Done()
		c.expire(ctx)
	}()
	err := c.cache.Run(ctx)
	cancel()
	return err
}

// WaitReady blocks until the store is loaded.
func (c *Core) WaitReady(ctx context.Context) error {
	select {
	case <-c.cache.Ready():
		return nil
	default:
	}
	select {
	case <-c.cache.Ready():
		return nil
	case <-c.cache.Stopped():
		return storeError(objectcache.ErrStopped)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Ready reports whether the store is loaded and followed.
func (c *Core) Ready() error {
	select {
	case <-c.cache.Stopped():
		return objectcache.ErrStopped
	case <-c.cache.Ready():
		return nil
	default:
		return errors.New("core: the store is not loaded yet")
	}
}

// Stopped is closed when Run has ended.
func (c *Core) Stopped() <-chan struct{} { return c.cache.Stopped() }

// Scheme has the types of all groups.
func (c *Core) Scheme() *runtime.Scheme { return c.scheme }

// Resources returns everything that is served, in the order of Options.Groups, hub versions first.
func (c *Core) Resources() []*Resource { return c.resources }

// Lookup returns the resource of a path.
func (c *Core) Lookup(gvr schema.GroupVersionResource) (*Resource, bool) {
	r, ok := c.byGVR[gvr]
	return r, ok
}

// LookupKind returns the stored resource that serves a kind.
func (c *Core) LookupKind(gvk schema.GroupVersionKind) (*Resource, bool) {
	r, ok := c.byGVK[gvk]
	return r, ok
}

// Cached returns the object cache of a stored resource, for readers that have been authorized.
func (c *Core) Cached(r *Resource) *objectcache.Resource { return r.stored.cache }

// AuthorizeRead reports whether the user in ctx may get, list or watch everything t names.
func (c *Core) AuthorizeRead(ctx context.Context, t Target, verb string) error {
	return c.authorize(ctx, t, verb, nil)
}
