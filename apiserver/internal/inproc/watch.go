package inproc

import (
	"context"
	"errors"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/core"
)

// watcher is a watch.Interface over a core's watch.
type watcher struct {
	events chan watch.Event
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once
}

func newWatch(ctx context.Context, w *core.Watch, r *core.Resource, f form) *watcher {
	ctx, cancel := context.WithCancel(ctx)
	x := &watcher{events: make(chan watch.Event), cancel: cancel, done: make(chan struct{})}
	go x.run(ctx, w, r, f)
	return x
}

// Stop implements watch.Interface; it returns when the watch's goroutine has ended.
func (x *watcher) Stop() {
	x.once.Do(x.cancel)
	<-x.done
}

// ResultChan implements watch.Interface.
func (x *watcher) ResultChan() <-chan watch.Event { return x.events }

func (x *watcher) run(ctx context.Context, w *core.Watch, r *core.Resource, f form) {
	defer close(x.done)
	defer close(x.events)
	defer w.Close()
	buf := make([]core.Event, 0, 64)
	for {
		events, err := w.Next(ctx, buf)
		if err != nil {
			if ctx.Err() == nil {
				x.send(ctx, watch.Event{Type: watch.Error, Object: statusOf(err)})
			}
			return
		}
		for _, e := range events {
			ev, err := eventOf(e, r, f)
			if err != nil {
				x.send(ctx, watch.Event{Type: watch.Error, Object: statusOf(err)})
				return
			}
			if !x.send(ctx, ev) {
				return
			}
		}
	}
}

func (x *watcher) send(ctx context.Context, e watch.Event) bool {
	select {
	case x.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

func statusOf(err error) *metav1.Status {
	var s apierrors.APIStatus
	if !errors.As(err, &s) {
		s = apierrors.NewInternalError(err)
	}
	st := s.Status()
	return &st
}

func eventOf(e core.Event, r *core.Resource, f form) (watch.Event, error) {
	if e.Object == nil {
		obj, err := bookmark(e, r, f)
		return watch.Event{Type: e.Type, Object: obj}, err
	}
	obj, err := shared(r, e.Object, f)
	if err != nil {
		return watch.Event{}, err
	}
	return watch.Event{Type: e.Type, Object: obj.DeepCopyObject()}, nil
}

// bookmark is an object that has but a resourceVersion.
func bookmark(e core.Event, r *core.Resource, f form) (client.Object, error) {
	var obj client.Object
	switch f {
	case metadata:
		obj = &metav1.PartialObjectMetadata{}
	case untyped:
		obj = &unstructured.Unstructured{}
	default:
		o, err := r.New("")
		if err != nil {
			return nil, err
		}
		obj = o.(client.Object)
	}
	obj.GetObjectKind().SetGroupVersionKind(r.GVK)
	obj.SetResourceVersion(strconv.FormatInt(e.Revision, 10))
	if e.InitialEventsEnd {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return obj, nil
}
