package controller

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// Source is one kind to watch and what its events ask to reconcile.
type Source struct {
	// Object is of the kind to watch: a typed object, unstructured, or
	// PartialObjectMetadata with its kind set.
	Object client.Object
	// Handler turns an event into requests; nil enqueues the object itself.
	// Objects it is given are shared: it must not modify them.
	Handler handler.EventHandler
	// Predicates drop events before the handler sees them; all must agree.
	Predicates []predicate.Predicate
}

// For enqueues the objects of a kind themselves.
func For(obj client.Object, p ...predicate.Predicate) Source {
	return Source{Object: obj, Predicates: p}
}

// Owned enqueues the controller (an object of kind owner) of each object. When
// an object changes hands both owners are enqueued.
func Owned(obj client.Object, owner schema.GroupVersionKind, p ...predicate.Predicate) Source {
	return Mapped(obj, func(_ context.Context, o client.Object) []Request {
		if name, ok := ControllerName(o, owner.GroupKind()); ok {
			return []Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
		}
		return nil
	}, p...)
}

// Mapped enqueues what f returns for each object; for an update, what it
// returns for the old and the new state.
func Mapped(obj client.Object, f func(context.Context, client.Object) []Request, p ...predicate.Predicate) Source {
	return Source{Object: obj, Handler: handler.EnqueueRequestsFromMapFunc(f), Predicates: p}
}

// ControllerName returns the name of the object's controller if that is of the
// group and kind given.
func ControllerName(o client.Object, owner schema.GroupKind) (string, bool) {
	ref := metav1.GetControllerOfNoCopy(o)
	if ref == nil || ref.Kind != owner.Kind {
		return "", false
	}
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil || gv.Group != owner.Group {
		return "", false
	}
	return ref.Name, true
}

// RequestFor names an object.
func RequestFor(o client.Object) Request {
	return Request{NamespacedName: client.ObjectKeyFromObject(o)}
}

// listener adapts a Source to an informer's handler.
type listener struct {
	ctx   context.Context
	src   Source
	h     handler.EventHandler
	queue Queue
}

func newListener(ctx context.Context, s Source, q Queue) *listener {
	h := s.Handler
	if h == nil {
		h = &handler.EnqueueRequestForObject{}
	}
	return &listener{ctx: ctx, src: s, h: h, queue: q}
}

func (l *listener) OnAdd(obj any, initial bool) {
	o, ok := obj.(client.Object)
	if !ok {
		return
	}
	e := event.CreateEvent{Object: o, IsInInitialList: initial}
	for _, p := range l.src.Predicates {
		if !p.Create(e) {
			return
		}
	}
	l.h.Create(l.ctx, e, l.queue)
}

func (l *listener) OnUpdate(oldObj, newObj any) {
	o, ok := oldObj.(client.Object)
	n, ok2 := newObj.(client.Object)
	if !ok || !ok2 {
		return
	}
	e := event.UpdateEvent{ObjectOld: o, ObjectNew: n}
	for _, p := range l.src.Predicates {
		if !p.Update(e) {
			return
		}
	}
	l.h.Update(l.ctx, e, l.queue)
}

func (l *listener) OnDelete(obj any) {
	unknown := false
	if t, ok := tombstone(obj); ok {
		obj, unknown = t, true
	}
	o, ok := obj.(client.Object)
	if !ok {
		return
	}
	e := event.DeleteEvent{Object: o, DeleteStateUnknown: unknown}
	for _, p := range l.src.Predicates {
		if !p.Delete(e) {
			return
		}
	}
	l.h.Delete(l.ctx, e, l.queue)
}
