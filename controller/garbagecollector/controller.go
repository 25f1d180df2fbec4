package garbagecollector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/resources"
)

// Options configures a Controller.
type Options struct {
	controller.Common
	// Resources lists the kinds to watch. By default those that the client's
	// scheme and RESTMapper know; use resources.FromDiscovery to include custom
	// resources.
	Resources resources.Lister
	// Ignored kinds are not watched; by default Events of both groups, which
	// have no dependents and would fill the graph.
	Ignored []schema.GroupResource
	// MetadataOnly watches metadata of all kinds instead of whole objects of
	// those the scheme knows. It saves memory where other controllers don't
	// watch the same kinds through the same cache.
	MetadataOnly bool
	// Resync is how often Resources is asked again; 0 means 30s.
	Resync time.Duration
}

// Controller keeps the graph and collects.
type Controller struct {
	client client.WithWatch
	cache  cache.Cache
	opts   Options
	runner *controller.Runner
	graph  *graph
	absent *lru.Cache
	ready  atomic.Bool
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	if o.Resync < 0 {
		return nil, fmt.Errorf("garbagecollector: Options.Resync is %v, expected a positive duration, or 0 for the default", o.Resync)
	}
	if o.Resync == 0 {
		o.Resync = 30 * time.Second
	}
	if o.Ignored == nil {
		o.Ignored = []schema.GroupResource{{Resource: "events"}, {Group: "events.k8s.io", Resource: "events"}}
	}
	o.Common = o.Common.WithDefaults(20)
	ctl := &Controller{client: c, cache: cc, opts: o}
	r, err := controller.New("garbage_collector", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "garbage-collector-controller",
		Setup: func(context.Context) error {
			ctl.ready.Store(false)
			ctl.absent = lru.New(5000)
			ctl.graph = newGraph(func(uid types.UID) { ctl.runner.Enqueue(request(uid)) }, ctl.misplaced)
			return nil
		},
		Background: []func(context.Context) error{ctl.watch},
	})
	if err != nil {
		return nil, err
	}
	if o.Resources == nil {
		ctl.opts.Resources = resources.Known(c)
	}
	ctl.runner = r
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

// Synced says whether all kinds known so far are in the graph.
func (c *Controller) Synced() bool { return c.ready.Load() }

func request(uid types.UID) controller.Request {
	return controller.Request{NamespacedName: types.NamespacedName{Name: string(uid)}}
}

func (c *Controller) misplaced(child identity, ref metav1.OwnerReference) {
	c.runner.Recorder().Eventf(&corev1.ObjectReference{
		APIVersion: child.kind.GroupVersion().String(), Kind: child.kind.Kind, Namespace: child.namespace, Name: child.name, UID: child.uid,
	}, corev1.EventTypeWarning, "OwnerRefInvalidNamespace", "ownerRef %s does not exist in namespace %q", referred(ref, child.namespace), child.namespace)
}

// monitor is one kind being watched.
type monitor struct {
	kind     schema.GroupVersionKind
	informer cache.Informer
	reg      toolscache.ResourceEventHandlerRegistration
}

// watch keeps a monitor of every kind that is served.
func (c *Controller) watch(ctx context.Context) error {
	monitors := map[schema.GroupKind]*monitor{}
	defer func() {
		c.ready.Store(false)
		for _, m := range monitors {
			c.stop(m)
		}
	}()
	for {
		if err := c.sync(ctx, monitors); err != nil && ctx.Err() == nil {
			c.runner.Logger().Error(err, "watching all kinds")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.runner.Clock().After(c.opts.Resync):
		}
	}
}

func (c *Controller) stop(m *monitor) {
	if m.informer.IsStopped() {
		return
	}
	if err := m.informer.RemoveEventHandler(m.reg); err != nil {
		c.runner.Logger().Error(err, "removing an event handler", "kind", m.kind)
	}
}

func (c *Controller) sync(ctx context.Context, monitors map[schema.GroupKind]*monitor) error {
	list, listErr := c.opts.Resources.Resources(ctx)
	if listErr != nil && len(list) == 0 {
		return listErr
	}
	errs := []error{listErr}
	wanted := map[schema.GroupKind]bool{}
	var added []*monitor
	for _, r := range list {
		if slices.Contains(c.opts.Ignored, r.GroupResource()) {
			continue
		}
		gk := r.Kind.GroupKind()
		wanted[gk] = true
		if monitors[gk] != nil {
			continue
		}
		m, err := c.start(ctx, r.Kind)
		if err != nil {
			errs = append(errs, fmt.Errorf("%v: %w", r.Kind, err))
			continue
		}
		monitors[gk] = m
		added = append(added, m)
	}
	if listErr == nil {
		for gk, m := range monitors {
			if !wanted[gk] {
				c.stop(m)
				delete(monitors, gk)
				for _, uid := range c.graph.ofKind(gk) {
					c.graph.remove(uid)
				}
			}
		}
	}
	if len(added) > 0 {
		// Until new kinds are in the graph, dependents may be missing from it.
		c.ready.Store(false)
		c.waitSynced(ctx, added)
	}
	if !c.ready.Load() && ctx.Err() == nil {
		c.ready.Store(true)
		c.runner.Logger().V(1).Info("graph built", "kinds", len(monitors), "objects", c.graph.size())
	}
	return errors.Join(errs...)
}

func (c *Controller) start(ctx context.Context, kind schema.GroupVersionKind) (*monitor, error) {
	var obj client.Object = resources.NewMetadata(kind)
	if !c.opts.MetadataOnly {
		obj = resources.NewObject(c.client.Scheme(), kind)
	}
	inf, err := c.cache.GetInformer(ctx, obj, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, err
	}
	reg, err := inf.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.observe(kind, o) },
		UpdateFunc: func(_, o any) { c.observe(kind, o) },
		DeleteFunc: func(o any) {
			if t, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			if obj, ok := o.(client.Object); ok {
				c.absent.Add(key{uid: obj.GetUID(), namespace: obj.GetNamespace()}, true)
				c.graph.remove(obj.GetUID())
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return &monitor{kind: kind, informer: inf, reg: reg}, nil
}

func (c *Controller) observe(kind schema.GroupVersionKind, o any) {
	if obj, ok := o.(client.Object); ok {
		c.graph.observe(kind, obj)
	}
}

// waitSynced waits for monitors, but not for ever: a kind that can't be listed
// must not keep the others from being collected.
func (c *Controller) waitSynced(ctx context.Context, ms []*monitor) {
	clock := c.runner.Clock()
	end := clock.Now().Add(c.opts.Resync)
	for delay := time.Millisecond; ; delay = min(2*delay, 100*time.Millisecond) {
		var waiting []string
		for _, m := range ms {
			if !m.reg.HasSynced() {
				waiting = append(waiting, m.kind.Kind)
			}
		}
		if len(waiting) == 0 {
			return
		}
		if clock.Now().After(end) {
			c.runner.Logger().Info("going on without kinds that have not synced", "kinds", waiting)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-clock.After(delay):
		}
	}
}
