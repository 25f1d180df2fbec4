package view

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Index names a function from an object to the values it is found by. Indexes
// of one name must have one function: the first to add it serves all.
type Index struct {
	Name   string
	Values func(client.Object) []string
}

// Controller finds objects by who controls them: see Of and Orphans.
var controllerIndex = "keelson.controller"

// Controller is the index by controller: objects that have one are found by
// OwnedBy(uid), the others by Orphans(namespace).
func Controller() Index {
	return Index{Name: controllerIndex, Values: func(o client.Object) []string {
		if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
			return []string{OwnedBy(ref.UID)}
		}
		return []string{Orphans(o.GetNamespace())}
	}}
}

// OwnedBy is the value of index Controller for the objects of one controller.
func OwnedBy(uid types.UID) string { return "uid/" + string(uid) }

// Orphans is the value of index Controller for objects without a controller.
func Orphans(namespace string) string { return "none/" + namespace }

// Label is the index by each label of an object: see LabelValue.
func Label() Index {
	return Index{Name: "keelson.label", Values: func(o client.Object) []string {
		l := o.GetLabels()
		out := make([]string, 0, len(l))
		for k, v := range l {
			out = append(out, LabelValue(o.GetNamespace(), k, v))
		}
		return out
	}}
}

// LabelValue is the value of index Label for the objects of a namespace that
// have a label.
func LabelValue(namespace, key, value string) string {
	return namespace + "/" + key + "=" + value
}

// View reads one kind. Its methods may be called from any goroutine after Start.
type View[T client.Object] struct {
	cache   cache.Cache
	scheme  *runtime.Scheme
	proto   T
	indexes []Index
	indexer toolscache.Indexer
}

// New makes a view of the objects of proto's kind.
func New[T client.Object](c client.Client, cc cache.Cache, proto T, indexes ...Index) *View[T] {
	return &View[T]{cache: cc, scheme: c.Scheme(), proto: proto, indexes: indexes}
}

// Start asks the cache for the kind's informer and adds the indexes to it. It
// must come before the first read; it may be called again.
func (v *View[T]) Start(ctx context.Context) error {
	inf, err := v.cache.GetInformer(ctx, v.proto, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watching %T: %w", v.proto, err)
	}
	if with, ok := inf.(interface{ GetIndexer() toolscache.Indexer }); ok {
		for _, ix := range v.indexes {
			f := func(obj any) ([]string, error) {
				o, ok := obj.(client.Object)
				if !ok {
					return nil, fmt.Errorf("%T is no client.Object", obj)
				}
				return ix.Values(o), nil
			}
			// Which indexes there are can't be asked without a race.
			if err := inf.AddIndexers(toolscache.Indexers{ix.Name: f}); err != nil && !exists(err) {
				return fmt.Errorf("indexing %T by %s: %w", v.proto, ix.Name, err)
			}
		}
		v.indexer = with.GetIndexer()
		return nil
	}
	for _, ix := range v.indexes {
		if err := v.cache.IndexField(ctx, v.proto, ix.Name, ix.Values); err != nil && !exists(err) {
			return fmt.Errorf("indexing %T by %s: %w", v.proto, ix.Name, err)
		}
	}
	return nil
}

// exists recognizes client-go's error for an index added by another controller
// before, for which it has no type.
func exists(err error) bool { return strings.Contains(err.Error(), "conflict") }

// Get returns an object, or a NotFound error.
func (v *View[T]) Get(ctx context.Context, namespace, name string) (T, error) {
	var none T
	if v.indexer == nil {
		out, _ := v.proto.DeepCopyObject().(T)
		err := v.cache.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, out)
		return out, err
	}
	key := name
	if namespace != "" {
		key = namespace + "/" + name
	}
	obj, ok, err := v.indexer.GetByKey(key)
	if err != nil {
		return none, err
	}
	if t, isT := obj.(T); ok && isT {
		return t, nil
	}
	return none, apierrors.NewNotFound(schema.GroupResource{Resource: fmt.Sprintf("%T", v.proto)}, name)
}

// By returns the objects an index has under a value, in no order.
func (v *View[T]) By(ctx context.Context, index Index, value string) ([]T, error) {
	if v.indexer == nil {
		return v.list(ctx, client.MatchingFields{index.Name: value})
	}
	objs, err := v.indexer.ByIndex(index.Name, value)
	return convert[T](objs), err
}

// Namespace returns the objects of a namespace, in no order.
func (v *View[T]) Namespace(ctx context.Context, namespace string) ([]T, error) {
	if v.indexer == nil {
		return v.list(ctx, client.InNamespace(namespace))
	}
	objs, err := v.indexer.ByIndex(toolscache.NamespaceIndex, namespace)
	if err == nil {
		return convert[T](objs), nil
	}
	var out []T
	for _, o := range convert[T](v.indexer.List()) {
		if o.GetNamespace() == namespace {
			out = append(out, o)
		}
	}
	return out, nil
}

// List returns all objects, in no order.
func (v *View[T]) List(ctx context.Context) ([]T, error) {
	if v.indexer == nil {
		return v.list(ctx)
	}
	return convert[T](v.indexer.List()), nil
}

func (v *View[T]) list(ctx context.Context, opts ...client.ListOption) ([]T, error) {
	kinds, _, err := v.scheme.ObjectKinds(v.proto)
	if err != nil {
		return nil, err
	}
	obj, err := v.scheme.New(kinds[0].GroupVersion().WithKind(kinds[0].Kind + "List"))
	if err != nil {
		return nil, err
	}
	list, ok := obj.(client.ObjectList)
	if !ok {
		return nil, fmt.Errorf("%T is no client.ObjectList", obj)
	}
	if err := v.cache.List(ctx, list, append(opts, client.UnsafeDisableDeepCopy)...); err != nil {
		return nil, err
	}
	var out []T
	err = meta.EachListItem(list, func(o runtime.Object) error {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
		return nil
	})
	return out, err
}

func convert[T any](objs []any) []T {
	out := make([]T, 0, len(objs))
	for _, o := range objs {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out
}

// Starter is a View of any kind.
type Starter interface{ Start(context.Context) error }

// StartAll starts views.
func StartAll(ctx context.Context, views ...Starter) error {
	for _, v := range views {
		if err := v.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}
