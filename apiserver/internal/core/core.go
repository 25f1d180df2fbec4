package core

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Core serves verbs on the objects of a store.
type Core struct {
	opts      Options
	scheme    *runtime.Scheme
	resources []*Resource
	byGVR     map[schema.GroupVersionResource]*Resource
}

type (
	codec      struct{}
	storedKind struct{}
	// Watch is a cursor over the events of a resource.
	Watch struct{}
)

var errNotYet = errors.New("core: not yet")

func errNotFoundPath() error { return errNotYet }

// New returns a Core. It starts nothing; requests block until Run has loaded the store.
func New(o Options) (*Core, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	return nil, errNotYet
}

// Run loads the store, follows it, and expires what has a time to live. It returns the context's error or what
// ended the store's watch; once only.
func (c *Core) Run(ctx context.Context) error { return errNotYet }

// WaitReady blocks until the store is loaded.
func (c *Core) WaitReady(ctx context.Context) error { return errNotYet }

// Scheme has the types of all groups.
func (c *Core) Scheme() *runtime.Scheme { return c.scheme }

// Resources returns everything that is served, in the order of Options.Groups, hub versions first.
func (c *Core) Resources() []*Resource { return c.resources }

// Lookup returns the resource of a path.
func (c *Core) Lookup(gvr schema.GroupVersionResource) (*Resource, bool) {
	r, ok := c.byGVR[gvr]
	return r, ok
}

// Get returns an object, or its subresource (status: the object itself; scale: a Scale). Only ResourceVersion of opts
// is read.
func (c *Core) Get(ctx context.Context, t Target, opts metav1.GetOptions) (*Object, error) {
	return nil, errNotYet
}

// List returns objects in key order. t.Name, if set, narrows the list to one.
func (c *Core) List(ctx context.Context, t Target, opts ListOptions) (*List, error) {
	return nil, errNotYet
}

// Watch returns a cursor over the events after opts.ResourceVersion, or after sending what there is. The
// caller closes it.
func (c *Core) Watch(ctx context.Context, t Target, opts ListOptions) (*Watch, error) {
	return nil, errNotYet
}

// Next appends to buf every event there is, at least one, at most what buf's capacity leaves room for (one if there is none), blocking
// until there is one. Errors: the context's; 410 Expired when the next event is no longer retained; 503 when the Core stops.
func (w *Watch) Next(ctx context.Context, buf []Event) ([]Event, error) { return nil, errNotYet }

// Close releases the watch; idempotent.
func (w *Watch) Close() {}

// Create commits obj, which from then on belongs to the Core. For virtual resources and subresources the result holds whatever they answer.
func (c *Core) Create(ctx context.Context, t Target, obj runtime.Object, opts metav1.CreateOptions) (*Object, error) {
	return nil, errNotYet
}

// Update replaces the object, or the part of it that t.Subresource may write; obj belongs to the Core from then on. created reports that
// there was none and the kind allows creation.
func (c *Core) Update(ctx context.Context, t Target, obj runtime.Object, opts metav1.UpdateOptions) (res *Object, created bool, err error) {
	return nil, false, errNotYet
}

// Patch applies a patch: JSON, merge, strategic merge, or an apply configuration (YAML or JSON). data is not modified.
func (c *Core) Patch(ctx context.Context, t Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (res *Object, created bool, err error) {
	return nil, false, errNotYet
}

// Delete deletes an object or asks for its deletion; deleted reports whether it is gone. The result is the object as it is now or was
// last, or, when it is gone and the kind doesn't return deleted objects, a *metav1.Status.
func (c *Core) Delete(ctx context.Context, t Target, opts metav1.DeleteOptions) (res *Object, deleted bool, err error) {
	return nil, false, errNotYet
}

// DeleteCollection deletes what List would return, and returns that.
func (c *Core) DeleteCollection(ctx context.Context, t Target, opts metav1.DeleteOptions, list ListOptions) (*List, error) {
	return nil, errNotYet
}
