package inproc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/objectcache"
)

// informer is a view of one resource in one form. It is a client-go SharedIndexInformer whose store is the API
// server's object cache.
type informer struct {
	cache  *Cache
	res    *core.Resource
	form   form
	cached *objectcache.Resource
	index  *indexer
	sel    *core.Selection // nil: everything
	synced chan struct{}

	mu       sync.Mutex
	ctx      context.Context // ends with the cache or the removal of the informer; nil before the start
	cancel   context.CancelFunc
	removed  chan struct{}
	handlers map[*registration]struct{}
}

var _ toolscache.SharedIndexInformer = (*informer)(nil)

func newInformer(c *Cache, r *core.Resource, f form, sel *core.Selection) *informer {
	i := &informer{
		cache: c, res: r, form: f, sel: sel, cached: c.core.Cached(r), synced: make(chan struct{}), removed: make(chan struct{}),
		handlers: map[*registration]struct{}{},
	}
	i.index = &indexer{i: i, indexes: map[string]*lazyIndex{}}
	return i
}

// start is called with the cache's lock held.
func (i *informer) start(ctx context.Context) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ctx, i.cancel = context.WithCancel(ctx)
	run := i.ctx
	if !i.cache.run(func() {
		if i.authorize(run) {
			close(i.synced)
		}
	}) {
		i.cancel()
		return
	}
	for h := range i.handlers {
		i.serve(h)
	}
}

// serve starts a registered handler; called with both locks held.
func (i *informer) serve(h *registration) {
	h.ctx, h.cancel = context.WithCancel(i.ctx)
	ctx := h.ctx
	if !i.cache.run(func() { h.run(ctx) }) {
		h.cancel()
	}
}

// authorize waits until the user may list and watch, as reflectors do. It reports false if ctx ends first.
func (i *informer) authorize(ctx context.Context) bool {
	for delay := 10 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		err := i.cache.core.WaitReady(ctx)
		for _, verb := range []string{"list", "watch"} {
			if err == nil {
				err = i.cache.core.AuthorizeRead(i.cache.asUser(ctx), core.Target{Resource: i.res}, verb)
			}
		}
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if delay > time.Second {
			i.cache.opts.Logger.Error(err, "an informer cannot start yet", "resource", i.res.GVR.String())
		}
		select {
		case <-i.cache.opts.Clock.After(delay):
		case <-ctx.Done():
			return false
		case <-i.cache.core.Stopped():
			return false
		}
	}
}

func (i *informer) registrations() []*registration {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Collect(maps.Keys(i.handlers))
}

// stop is called with the cache's lock held.
func (i *informer) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	close(i.removed)
	if i.cancel != nil {
		i.cancel()
	}
}

// stopped is closed when the informer has been removed or its cache stopped.
func (i *informer) stopped() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ctx != nil {
		return i.ctx.Done()
	}
	return i.removed
}

func (i *informer) object(o *core.Object) (client.Object, error) { return shared(i.res, o, i.form) }

// has reports whether the informer's selection has an object.
func (i *informer) has(o *core.Object) bool { return i.sel == nil || i.sel.Matches(o) }

// find returns the object of a key, nil if there is none or it is not selected.
func (i *informer) find(key string) *core.Object {
	if o := i.cached.Get(key); o != nil && i.has(o) {
		return o
	}
	return nil
}

// ascend calls yield for the selected objects of a namespace, or of all, in key order.
func (i *informer) ascend(namespace string, yield func(*core.Object) bool) {
	prefix := ""
	if namespace != "" {
		prefix = namespace + "/"
	}
	if i.sel != nil {
		if name, value := i.sel.Index(); name != "" {
			objs, _ := i.cached.ByIndex(name, value)
			for _, o := range objs {
				if strings.HasPrefix(o.Key(), prefix) && i.has(o) && !yield(o) {
					return
				}
			}
			return
		}
	}
	i.cached.Snapshot().Ascend(prefix, "", func(o *core.Object) bool { return !i.has(o) || yield(o) })
}

// AddEventHandler implements cache.Informer.
func (i *informer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(h, toolscache.HandlerOptions{})
}

// AddEventHandlerWithResyncPeriod implements cache.Informer.
func (i *informer) AddEventHandlerWithResyncPeriod(h toolscache.ResourceEventHandler, period time.Duration) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(h, toolscache.HandlerOptions{ResyncPeriod: &period})
}

// AddEventHandlerWithOptions implements cache.Informer.
func (i *informer) AddEventHandlerWithOptions(h toolscache.ResourceEventHandler, o toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	r := &registration{informer: i, handler: h, synced: make(chan struct{}), flush: make(chan chan<- struct{})}
	if o.ResyncPeriod != nil {
		r.resync = *o.ResyncPeriod
	}
	i.cache.mu.Lock()
	defer i.cache.mu.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	select {
	case <-i.removed:
		return nil, errors.New("inproc: the informer has been stopped")
	default:
	}
	i.handlers[r] = struct{}{}
	if i.ctx != nil {
		i.serve(r)
	}
	return r, nil
}

// RemoveEventHandler implements cache.Informer.
func (i *informer) RemoveEventHandler(handle toolscache.ResourceEventHandlerRegistration) error {
	r, ok := handle.(*registration)
	if !ok || r.informer != i {
		return fmt.Errorf("inproc: %T is not a registration of this informer", handle)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.handlers, r)
	if r.cancel != nil {
		r.cancel()
	}
	return nil
}

// AddIndexers implements cache.Informer.
func (i *informer) AddIndexers(x toolscache.Indexers) error { return i.index.AddIndexers(x) }

// GetIndexer implements toolscache.SharedIndexInformer.
func (i *informer) GetIndexer() toolscache.Indexer { return i.index }

// GetStore implements toolscache.SharedInformer.
func (i *informer) GetStore() toolscache.Store { return i.index }

// GetController implements toolscache.SharedInformer; it is deprecated there, and there is none here.
func (i *informer) GetController() toolscache.Controller { return nil }

// Run implements toolscache.SharedInformer: informers of a cache run with it.
func (i *informer) Run(stop <-chan struct{}) {
	select {
	case <-stop:
	case <-i.removed:
	}
}

// RunWithContext implements toolscache.SharedInformer.
func (i *informer) RunWithContext(ctx context.Context) { i.Run(ctx.Done()) }

// HasSynced implements cache.Informer.
func (i *informer) HasSynced() bool { return isClosed(i.synced) }

// HasSyncedChecker implements cache.Informer.
func (i *informer) HasSyncedChecker() toolscache.DoneChecker {
	return checker{"informer of " + i.res.GVR.String(), i.synced}
}

// LastSyncResourceVersion implements toolscache.SharedInformer.
func (i *informer) LastSyncResourceVersion() string {
	return strconv.FormatInt(i.cached.Snapshot().Revision, 10)
}

// SetWatchErrorHandler implements toolscache.SharedInformer. There is no watch that could fail.
func (i *informer) SetWatchErrorHandler(toolscache.WatchErrorHandler) error { return nil }

// SetWatchErrorHandlerWithContext implements toolscache.SharedInformer.
func (i *informer) SetWatchErrorHandlerWithContext(toolscache.WatchErrorHandlerWithContext) error {
	return nil
}

// SetTransform implements toolscache.SharedInformer. Objects are shared with the API server, so they cannot be transformed.
func (i *informer) SetTransform(toolscache.TransformFunc) error {
	return errors.New("inproc: informers hand out the API server's own objects, which cannot be transformed")
}

// IsStopped implements cache.Informer.
func (i *informer) IsStopped() bool { return isClosed(i.stopped()) }

type checker struct {
	name string
	done <-chan struct{}
}

func (c checker) Name() string          { return c.name }
func (c checker) Done() <-chan struct{} { return c.done }

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// selectObjects is List's selection: fields by exact match on an index.
func (i *informer) selectObjects(o *client.ListOptions) ([]*core.Object, error) {
	namespace := o.Namespace
	if !i.res.Namespaced {
		namespace = ""
	}
	var items []*core.Object
	if o.FieldSelector != nil && !o.FieldSelector.Empty() {
		var err error
		if items, err = i.byFields(o.FieldSelector, namespace); err != nil {
			return nil, err
		}
	} else {
		if namespace == "" && i.sel == nil {
			items = make([]*core.Object, 0, i.cached.Len())
		}
		i.ascend(namespace, func(o *core.Object) bool {
			items = append(items, o)
			return true
		})
	}
	if s := o.LabelSelector; s != nil && !s.Empty() {
		keep := items[:0]
		for _, x := range items {
			if s.Matches(labels.Set(x.Object().GetLabels())) {
				keep = append(keep, x)
			}
		}
		items = keep
	}
	return items, nil
}

func (i *informer) byFields(s fields.Selector, namespace string) ([]*core.Object, error) {
	var items []*core.Object
	for n, q := range s.Requirements() {
		if q.Operator == selection.NotEquals {
			return nil, errors.New("non-exact field matches are not supported by the cache")
		}
		found, err := i.byField(q.Field, q.Value, namespace)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			items = found
			continue
		}
		in := make(map[*core.Object]bool, len(found))
		for _, x := range found {
			in[x] = true
		}
		keep := items[:0]
		for _, x := range items {
			if in[x] {
				keep = append(keep, x)
			}
		}
		items = keep
	}
	return items, nil
}

// byField uses an index made by IndexField, else one of the API server's own.
func (i *informer) byField(field, value, namespace string) ([]*core.Object, error) {
	if i.index.has(fieldIndex(field)) {
		found, err := i.index.objects(fieldIndex(field), value)
		return inNamespace(found, namespace), err
	}
	switch get := i.res.Kind.Fields[field]; {
	case i.cached.HasIndex(field) && value != "":
		found, _ := i.cached.ByIndex(field, value)
		return slices.DeleteFunc(inNamespace(found, namespace), func(o *core.Object) bool { return !i.has(o) }), nil
	case field == "metadata.name":
		return i.scan(namespace, func(o client.Object) bool { return o.GetName() == value }), nil
	case field == "metadata.namespace":
		return i.scan(namespace, func(o client.Object) bool { return o.GetNamespace() == value }), nil
	case get != nil:
		return i.scan(namespace, func(o client.Object) bool { return get(o) == value }), nil
	}
	return nil, fmt.Errorf("Index with name %s does not exist", fieldIndex(field))
}

func (i *informer) scan(namespace string, match func(client.Object) bool) []*core.Object {
	var out []*core.Object
	i.ascend(namespace, func(o *core.Object) bool {
		if match(o.Object()) {
			out = append(out, o)
		}
		return true
	})
	return out
}

func inNamespace(items []*core.Object, namespace string) []*core.Object {
	if namespace == "" {
		return items
	}
	keep := items[:0]
	for _, x := range items {
		if x.Object().GetNamespace() == namespace {
			keep = append(keep, x)
		}
	}
	return keep
}

// notFound names the kind, as controller-runtime's cache does.
func notFound(gvk schema.GroupVersionKind, name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, name)
}
