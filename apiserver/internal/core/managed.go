package core

import (
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
)

// fieldManagers tracks who owns which field. It is made of apimachinery's field managers, one for each version
// and subresource, made when first needed.
type fieldManagers struct {
	core  *Core
	types func() managedfields.TypeConverter
	fast  *fastTrack

	mu   sync.RWMutex
	made map[managerKey]*managedfields.FieldManager
}

type managerKey struct {
	r   *Resource
	sub string
}

func newFieldManagers(c *Core) *fieldManagers {
	return &fieldManagers{
		core: c,
		fast: newFastTrack(),
		types: sync.OnceValue(func() managedfields.TypeConverter {
			return &typeConverter{
				scheme:  c.scheme,
				known:   applyconfigurations.NewTypeConverter(c.scheme),
				deduced: managedfields.NewDeducedTypeConverter(),
			}
		}),
		made: map[managerKey]*managedfields.FieldManager{},
	}
}

// warm parses the schemas, which takes a moment, before they are needed.
func (f *fieldManagers) warm() { f.types() }

func (f *fieldManagers) of(r *Resource, sub string) (*managedfields.FieldManager, error) {
	key := managerKey{r, sub}
	f.mu.RLock()
	m := f.made[key]
	f.mu.RUnlock()
	if m != nil {
		return m, nil
	}
	conv := converter{r}
	m, err := managedfields.NewDefaultFieldManager(f.types(), conv, conv, conv, r.GVK, r.Kind.GVK.GroupVersion(), sub, resetFields(r, sub))
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if other := f.made[key]; other != nil {
		return other, nil
	}
	f.made[key] = m
	return m, nil
}

// resetFields are those that a write to the object, or the subresource, has no effect on.
func resetFields(r *Resource, sub string) map[fieldpath.APIVersion]fieldpath.Filter {
	var set *fieldpath.Set
	switch {
	case sub == "" && r.Kind.Status != nil:
		set = fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
	case sub == "status":
		set = fieldpath.NewSet(fieldpath.MakePathOrDie("spec"), fieldpath.MakePathOrDie("metadata"))
	default:
		return nil
	}
	return map[fieldpath.APIVersion]fieldpath.Filter{
		fieldpath.APIVersion(r.GVK.GroupVersion().String()): fieldpath.NewExcludeSetFilter(set),
	}
}

// created tracks obj, in the hub version, as written by manager.
func (f *fieldManagers) created(r *Resource, obj client.Object, manager string) {
	empty, err := newObject(f.core.scheme, r.Kind.GVK)
	if err != nil {
		return
	}
	f.update(r, "", empty, obj, manager)
}

// updated tracks the differences of obj to cur as written by manager.
func (f *fieldManagers) updated(r *Resource, sub string, cur *Object, obj client.Object, manager string) {
	f.update(r, sub, cur.Object(), obj, manager)
}

func (f *fieldManagers) update(r *Resource, sub string, old, obj client.Object, manager string) {
	if f.track(r, sub, old, obj, manager) {
		return
	}
	f.slowUpdate(r, sub, old, obj, manager)
}

// slowUpdate is apimachinery's way.
func (f *fieldManagers) slowUpdate(r *Resource, sub string, old, obj client.Object, manager string) {
	m, err := f.of(r, sub)
	if err != nil {
		obj.SetManagedFields(old.GetManagedFields())
		return
	}
	m.UpdateNoErrors(old, obj, manager)
	wholeSeconds(obj)
}

// wholeSeconds makes the times those that will be stored.
func wholeSeconds(obj client.Object) {
	mf := obj.GetManagedFields()
	for i := range mf {
		if t := mf[i].Time; t != nil && t.Nanosecond() != 0 {
			mf[i].Time = ptrTo(metav1.NewTime(t.Truncate(time.Second)))
		}
	}
}

// apply merges an apply configuration into old, which may be empty.
func (f *fieldManagers) apply(r *Resource, sub string, old client.Object, config *unstructured.Unstructured, manager string, force bool) (client.Object, error) {
	m, err := f.of(r, sub)
	if err != nil {
		return nil, err
	}
	out, err := m.Apply(objectcache.ShallowCopy(old), config, manager, force)
	if err != nil {
		return nil, err
	}
	obj, ok := out.(client.Object)
	if !ok {
		return nil, fmt.Errorf("core: applying to %s gave %T", r.GVK, out)
	}
	wholeSeconds(obj)
	return obj, nil
}

// typeConverter knows the schemas of Kubernetes' own types, and treats all others as without one.
type typeConverter struct {
	scheme         *runtime.Scheme
	known, deduced managedfields.TypeConverter
	has            sync.Map // schema.GroupVersionKind to bool: known has its schema
}

func (t *typeConverter) of(gvk schema.GroupVersionKind) managedfields.TypeConverter {
	has, ok := t.has.Load(gvk)
	if !ok {
		obj, err := newObject(t.scheme, gvk)
		if err == nil {
			_, err = t.known.ObjectToTyped(obj)
		}
		has, _ = t.has.LoadOrStore(gvk, err == nil)
	}
	if has.(bool) {
		return t.known
	}
	return t.deduced
}

func (t *typeConverter) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	return t.of(obj.GetObjectKind().GroupVersionKind()).ObjectToTyped(obj, opts...)
}

func (t *typeConverter) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	return t.known.TypedToObject(v)
}

// converter is the conversion between a resource's version and the hub, without needless copies, as apimachinery wants it.
type converter struct{ r *Resource }

func (c converter) Convert(in, out, context interface{}) error {
	return fmt.Errorf("core: conversion of %T to %T is not supported", in, out)
}

func (c converter) ConvertFieldLabel(gvk schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

func (c converter) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	have := in.GetObjectKind().GroupVersionKind()
	want, ok := target.KindForGroupVersionKinds([]schema.GroupVersionKind{have, c.r.GVK, c.r.Kind.GVK})
	if !ok {
		return nil, runtime.NewNotRegisteredErrForKind("core", have)
	}
	if u, ok := in.(*unstructured.Unstructured); ok {
		typed, err := newObject(c.r.scheme, have)
		if err != nil {
			return nil, err
		}
		if t, ok := typed.(*unstructured.Unstructured); ok {
			t.Object = u.Object
			in = u
		} else {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
				return nil, err
			}
			typed.GetObjectKind().SetGroupVersionKind(have)
			in = typed
		}
	}
	obj, ok := in.(client.Object)
	switch {
	case !ok:
		return nil, fmt.Errorf("core: %T has no metadata", in)
	case want == have:
		return obj, nil
	case have == c.r.Kind.GVK && want == c.r.GVK:
		return c.r.fromHub(obj)
	case have == c.r.GVK && want == c.r.Kind.GVK:
		return c.r.toHub(obj)
	}
	// Another served version, in which somebody's fields are recorded.
	hub, err := c.r.stored.toHub(have, obj)
	if err != nil {
		return nil, err
	}
	return c.r.stored.fromHub(want, hub)
}

func (s *stored) toHub(gvk schema.GroupVersionKind, obj client.Object) (client.Object, error) {
	if gvk == s.kind.GVK {
		return obj, nil
	}
	hub, err := s.codec.convert(gvk, obj)
	if err == nil {
		hub.GetObjectKind().SetGroupVersionKind(s.kind.GVK)
	}
	return hub, err
}

func (s *stored) fromHub(gvk schema.GroupVersionKind, hub client.Object) (client.Object, error) {
	if gvk == s.kind.GVK {
		return hub, nil
	}
	for i := range s.kind.Versions {
		if v := &s.kind.Versions[i]; v.GVK == gvk {
			obj, err := v.To(hub)
			if err == nil {
				obj.GetObjectKind().SetGroupVersionKind(gvk)
			}
			return obj, err
		}
	}
	return nil, runtime.NewNotRegisteredErrForKind("core", gvk)
}

func (c converter) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	return newObject(c.r.scheme, gvk)
}

// Default implements runtime.ObjectDefaulter for objects in the resource's version.
func (c converter) Default(in runtime.Object) {
	if c.r.Version == nil && c.r.Kind.Default != nil {
		if obj, ok := in.(client.Object); ok {
			c.r.Kind.Default(obj)
		}
	}
}
