package controllertest

import (
	"context"
	"strconv"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// watcher delivers a kind's events through an unbounded queue.
type watcher struct {
	c       *Cluster
	kind    schema.GroupVersionKind
	list    client.ObjectList
	opts    *client.ListOptions
	results chan watch.Event
	ctx     context.Context
	cancel  context.CancelFunc

	mu    sync.Mutex
	queue []watch.Event
	wake  chan struct{}
}

func (c *Cluster) watch(ctx context.Context, gvk schema.GroupVersionKind, list client.ObjectList, o *client.ListOptions) *watcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{
		c: c, kind: gvk, list: list, opts: o, ctx: ctx, cancel: cancel,
		results: make(chan watch.Event), wake: make(chan struct{}, 1),
	}
	since := c.version
	if o.Raw != nil && o.Raw.ResourceVersion != "" {
		if v, err := strconv.ParseUint(o.Raw.ResourceVersion, 10, 64); err == nil {
			since = v
		}
	}
	for _, l := range c.log {
		if l.version > since {
			w.offer(l)
		}
	}
	c.watches[w] = struct{}{}
	go w.pump()
	return w
}

func (c *Cluster) publish(l logged) {
	c.log = append(c.log, l)
	for w := range c.watches {
		w.offer(l)
	}
}

func (w *watcher) offer(l logged) {
	if l.kind != w.kind {
		return
	}
	was := l.old != nil && selects(l.old, w.opts)
	is := l.event != watch.Deleted && selects(l.object, w.opts)
	e := watch.Event{Type: l.event}
	switch {
	case is && was:
		e.Type = watch.Modified
	case is:
		e.Type = watch.Added
	case was:
		e.Type = watch.Deleted
	default:
		return
	}
	switch w.list.(type) {
	case *metav1.PartialObjectMetadataList:
		e.Object = asMetadata(l.object, l.kind)
	case *unstructured.UnstructuredList:
		u := &unstructured.Unstructured{}
		if into(l.object, u, l.kind) != nil {
			return
		}
		e.Object = u
	default:
		e.Object = l.object.DeepCopyObject()
	}
	w.mu.Lock()
	w.queue = append(w.queue, e)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) pump() {
	defer close(w.results)
	defer func() {
		w.c.mu.Lock()
		delete(w.c.watches, w)
		w.c.mu.Unlock()
	}()
	for {
		w.mu.Lock()
		batch := w.queue
		w.queue = nil
		w.mu.Unlock()
		for _, e := range batch {
			select {
			case w.results <- e:
			case <-w.ctx.Done():
				return
			}
		}
		select {
		case <-w.wake:
		case <-w.ctx.Done():
			return
		}
	}
}

func (w *watcher) Stop()                          { w.cancel() }
func (w *watcher) ResultChan() <-chan watch.Event { return w.results }

// listWatch serves informers of one kind from the cluster's client.
type listWatch struct {
	client client.WithWatch
	obj    runtime.Object
	kind   schema.GroupVersionKind
}

func (l *listWatch) newList() (client.ObjectList, error) {
	switch l.obj.(type) {
	case *metav1.PartialObjectMetadata:
		p := &metav1.PartialObjectMetadataList{}
		p.SetGroupVersionKind(l.kind.GroupVersion().WithKind(l.kind.Kind + "List"))
		return p, nil
	case *unstructured.Unstructured:
		u := &unstructured.UnstructuredList{}
		u.SetGroupVersionKind(l.kind.GroupVersion().WithKind(l.kind.Kind + "List"))
		return u, nil
	}
	o, err := l.client.Scheme().New(l.kind.GroupVersion().WithKind(l.kind.Kind + "List"))
	if err != nil {
		return nil, err
	}
	return o.(client.ObjectList), nil
}

func (l *listWatch) ListWithContext(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	list, err := l.newList()
	if err != nil {
		return nil, err
	}
	return list, l.client.List(ctx, list)
}

func (l *listWatch) WatchWithContext(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	list, err := l.newList()
	if err != nil {
		return nil, err
	}
	return l.client.Watch(ctx, list, &client.ListOptions{Raw: &opts})
}

func (l *listWatch) List(opts metav1.ListOptions) (runtime.Object, error) {
	return l.ListWithContext(context.Background(), opts)
}

func (l *listWatch) Watch(opts metav1.ListOptions) (watch.Interface, error) {
	return l.WatchWithContext(context.Background(), opts)
}

// IsWatchListSemanticsUnSupported tells reflectors to list and then watch.
func (l *listWatch) IsWatchListSemanticsUnSupported() bool { return true }
