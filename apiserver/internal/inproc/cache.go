package inproc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/objectcache"
)

// CacheOptions configures a Cache.
type CacheOptions struct {
	// Scheme maps the caller's Go types to kinds; default the core's.
	Scheme *runtime.Scheme
	// UnsafeDisableDeepCopy makes reads return shared objects, which must not be modified.
	UnsafeDisableDeepCopy bool
	// ReaderFailOnMissingInformer makes reads of kinds without an informer fail.
	ReaderFailOnMissingInformer bool
	// ByObject narrows what the cache has of a kind, in all its forms. A field that the kind indexes (spec.nodeName of pods) makes the
	// cost of a cache that of what it selects.
	ByObject map[client.Object]Selector

	Clock  clock.WithTicker // default the real one
	Logger logr.Logger      // default discards
}

// Selector narrows a cache; nil selects everything.
type Selector struct {
	Label labels.Selector
	Field fields.Selector
}

// FromOptions translates controller-runtime's options, so that a manager's cache can be made in-process. What shared objects make
// impossible (transforms) or is not supported (namespaces) is an error.
func FromOptions(o cache.Options) (CacheOptions, error) {
	out := CacheOptions{Scheme: o.Scheme, ReaderFailOnMissingInformer: o.ReaderFailOnMissingInformer, ByObject: map[client.Object]Selector{}}
	if o.DefaultUnsafeDisableDeepCopy != nil {
		out.UnsafeDisableDeepCopy = *o.DefaultUnsafeDisableDeepCopy
	}
	unsupported := map[string]bool{
		"DefaultNamespaces": len(o.DefaultNamespaces) > 0, "DefaultTransform": o.DefaultTransform != nil, "NewInformer": o.NewInformer != nil,
		"DefaultLabelSelector": o.DefaultLabelSelector != nil && !o.DefaultLabelSelector.Empty(),
		"DefaultFieldSelector": o.DefaultFieldSelector != nil && !o.DefaultFieldSelector.Empty(),
	}
	for obj, b := range o.ByObject {
		out.ByObject[obj] = Selector{Label: b.Label, Field: b.Field}
		unsupported["ByObject.Namespaces"] = unsupported["ByObject.Namespaces"] || len(b.Namespaces) > 0
		unsupported["ByObject.Transform"] = unsupported["ByObject.Transform"] || b.Transform != nil
		unsupported["ByObject.UnsafeDisableDeepCopy"] = unsupported["ByObject.UnsafeDisableDeepCopy"] || b.UnsafeDisableDeepCopy != nil
	}
	for _, name := range slices.Sorted(maps.Keys(unsupported)) {
		if unsupported[name] {
			return CacheOptions{}, fmt.Errorf("inproc: cache.Options.%s is not supported in-process", name)
		}
	}
	return out, nil
}

// Cache is a cache.Cache on a core, as one user.
type Cache struct {
	types *types
	core  *core.Core
	user  user.Info
	opts  CacheOptions

	mu        sync.Mutex
	informers map[informerKey]*informer
	ctx       context.Context // of Start; nil before
	stopping  bool
	wg        sync.WaitGroup
	started   chan struct{}
}

type informerKey struct {
	gvk  schema.GroupVersionKind
	form form
}

var _ cache.Cache = (*Cache)(nil)

// NewCache returns a cache that reads as u.
func NewCache(c *core.Core, u user.Info, o CacheOptions) *Cache {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	return &Cache{
		types: newTypes(c, o.Scheme), core: c, user: u, opts: o,
		informers: map[informerKey]*informer{}, started: make(chan struct{}),
	}
}

func (c *Cache) asUser(ctx context.Context) context.Context { return request.WithUser(ctx, c.user) }

// Start implements cache.Informers: it runs the informers until ctx ends, once.
func (c *Cache) Start(ctx context.Context) error {
	c.mu.Lock()
	if c.ctx != nil {
		c.mu.Unlock()
		return errors.New("inproc: the cache has been started before")
	}
	c.ctx = ctx
	for _, i := range c.informers {
		i.start(ctx)
	}
	close(c.started)
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	c.wg.Wait()
	return nil
}

// run starts a goroutine that Start waits for; called with mu held.
func (c *Cache) run(f func()) bool {
	if c.stopping {
		return false
	}
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		f()
	}()
	return true
}

// WaitForCacheSync implements cache.Informers.
func (c *Cache) WaitForCacheSync(ctx context.Context) bool {
	select {
	case <-c.started:
	case <-ctx.Done():
		return false
	}
	c.mu.Lock()
	all := make([]*informer, 0, len(c.informers))
	for _, i := range c.informers {
		all = append(all, i)
	}
	c.mu.Unlock()
	for _, i := range all {
		select {
		case <-i.synced:
		case <-i.stopped():
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Flush blocks until the handlers of all informers have been called for everything that the core's cache had when Flush was called. It must
// not be called by a handler. Errors: the context's, objectcache.ErrStopped.
func (c *Cache) Flush(ctx context.Context) error {
	c.mu.Lock()
	var handlers []*registration
	for _, i := range c.informers {
		handlers = append(handlers, i.registrations()...)
	}
	c.mu.Unlock()
	flushed := make([]chan struct{}, len(handlers))
	for n, h := range handlers {
		flushed[n] = make(chan struct{})
		select {
		case h.flush <- flushed[n]:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.core.Stopped():
			return objectcache.ErrStopped
		}
	}
	for _, done := range flushed {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.core.Stopped():
			return objectcache.ErrStopped
		}
	}
	return nil
}

// informer returns the informer of a kind in a form, made if need be.
func (c *Cache) informer(gvk schema.GroupVersionKind, f form, make bool) (*informer, error) {
	key := informerKey{gvk, f}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.informers[key]; i != nil {
		return i, nil
	}
	if !make {
		return nil, &cache.ErrResourceNotCached{GVK: gvk}
	}
	r, err := c.types.resourceOf(gvk)
	if err != nil {
		return nil, err
	}
	if r.Kind == nil || !r.HasVerb("", "list") || !r.HasVerb("", "watch") {
		return nil, fmt.Errorf("inproc: %s cannot be listed and watched", gvk)
	}
	sel, err := c.selection(gvk, r)
	if err != nil {
		return nil, err
	}
	i := newInformer(c, r, f, sel)
	c.informers[key] = i
	if c.ctx != nil {
		i.start(c.ctx)
	}
	return i, nil
}

// selection is what ByObject says of a kind; nil if nothing.
func (c *Cache) selection(gvk schema.GroupVersionKind, r *core.Resource) (*core.Selection, error) {
	for obj, s := range c.opts.ByObject {
		if k, err := apiutil.GVKForObject(obj, c.types.scheme); err != nil {
			return nil, err
		} else if k == gvk {
			return c.core.Select(core.Target{Resource: r}, core.ListOptions{LabelSelector: s.Label, FieldSelector: s.Field})
		}
	}
	return nil, nil
}

// GetInformer implements cache.Informers.
func (c *Cache) GetInformer(ctx context.Context, obj client.Object, opts ...cache.InformerGetOption) (cache.Informer, error) {
	gvk, err := apiutil.GVKForObject(obj, c.types.scheme)
	if err != nil {
		return nil, err
	}
	return c.get(ctx, gvk, formOf(obj), opts)
}

// GetInformerForKind implements cache.Informers.
func (c *Cache) GetInformerForKind(ctx context.Context, gvk schema.GroupVersionKind, opts ...cache.InformerGetOption) (cache.Informer, error) {
	obj, err := c.types.scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	return c.get(ctx, gvk, formOf(obj), opts)
}

func (c *Cache) get(ctx context.Context, gvk schema.GroupVersionKind, f form, opts []cache.InformerGetOption) (cache.Informer, error) {
	i, err := c.informer(gvk, f, true)
	if err != nil {
		return nil, err
	}
	var o cache.InformerGetOptions
	for _, f := range opts {
		f(&o)
	}
	if o.BlockUntilSynced == nil || *o.BlockUntilSynced {
		return i, c.wait(ctx, i)
	}
	return i, nil
}

// wait blocks until a started informer has synced.
func (c *Cache) wait(ctx context.Context, i *informer) error {
	select {
	case <-c.started:
	default:
		return nil
	}
	select {
	case <-i.synced:
		return nil
	case <-i.stopped():
		return errors.New("inproc: the informer has been stopped")
	case <-ctx.Done():
		return fmt.Errorf("inproc: waiting for %s: %w", i.res.GVK, ctx.Err())
	}
}

// RemoveInformer implements cache.Informers. Its handlers get no more events; one that is being called may go on for a moment.
func (c *Cache) RemoveInformer(_ context.Context, obj client.Object) error {
	gvk, err := apiutil.GVKForObject(obj, c.types.scheme)
	if err != nil {
		return err
	}
	key := informerKey{gvk, formOf(obj)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.informers[key]; i != nil {
		delete(c.informers, key)
		i.stop()
	}
	return nil
}

// IndexField implements client.FieldIndexer.
func (c *Cache) IndexField(ctx context.Context, obj client.Object, field string, extract client.IndexerFunc) error {
	gvk, err := apiutil.GVKForObject(obj, c.types.scheme)
	if err != nil {
		return err
	}
	i, err := c.informer(gvk, formOf(obj), true)
	if err != nil {
		return err
	}
	return i.AddIndexers(toolscache.Indexers{fieldIndex(field): func(obj any) ([]string, error) {
		o, ok := obj.(client.Object)
		if !ok {
			return nil, fmt.Errorf("object of type %T is not an Object", obj)
		}
		return extract(o), nil
	}})
}

func fieldIndex(field string) string { return "field:" + field }

// reader returns the informer to read from.
func (c *Cache) reader(ctx context.Context, gvk schema.GroupVersionKind, f form) (*informer, error) {
	select {
	case <-c.started:
	default:
		return nil, &cache.ErrCacheNotStarted{}
	}
	i, err := c.informer(gvk, f, !c.opts.ReaderFailOnMissingInformer)
	if err != nil {
		return nil, err
	}
	return i, c.wait(ctx, i)
}

// Get implements client.Reader.
func (c *Cache) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	gvk, err := apiutil.GVKForObject(obj, c.types.scheme)
	if err != nil {
		return err
	}
	i, err := c.reader(ctx, gvk, formOf(obj))
	if err != nil {
		return err
	}
	o := (&client.GetOptions{}).ApplyOptions(opts)
	found := i.find(storeKey(i.res, key.Namespace, key.Name))
	if found == nil {
		return notFound(gvk, key.Name)
	}
	return out(i.res, found, obj, c.share(o.UnsafeDisableDeepCopy))
}

func (c *Cache) share(option *bool) bool {
	if option != nil {
		return *option
	}
	return c.opts.UnsafeDisableDeepCopy
}

func storeKey(r *core.Resource, namespace, name string) string {
	if !r.Namespaced || namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// List implements client.Reader.
func (c *Cache) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	gvk, err := apiutil.GVKForObject(list, c.types.scheme)
	if err != nil {
		return err
	}
	if meta.IsListType(list) {
		gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
	}
	i, err := c.reader(ctx, gvk, formOf(list))
	if err != nil {
		return err
	}
	o := (&client.ListOptions{}).ApplyOptions(opts)
	if o.Continue != "" {
		return errors.New("continue list option is not supported by the cache")
	}
	items, err := i.selectObjects(o)
	if err != nil {
		return err
	}
	if o.Limit > 0 && int64(len(items)) > o.Limit {
		items = slices.Clip(items[:o.Limit])
	}
	if err := fillList(i.res, items, list, c.share(o.UnsafeDisableDeepCopy)); err != nil {
		return err
	}
	list.GetObjectKind().SetGroupVersionKind(i.res.ListGVK())
	list.SetContinue("continue-not-supported")
	return nil
}
