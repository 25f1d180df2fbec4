package inproc

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/keelson/keelson/apiserver/internal/core"
)

// types maps Go objects to served resources.
type types struct {
	core   *core.Core
	scheme *runtime.Scheme
	mapper meta.RESTMapper
	byKind map[schema.GroupVersionKind]*core.Resource
}

func newTypes(c *core.Core, scheme *runtime.Scheme) *types {
	t := &types{core: c, scheme: scheme, byKind: map[schema.GroupVersionKind]*core.Resource{}}
	if scheme == nil {
		t.scheme = c.Scheme()
	}
	var versions []schema.GroupVersion
	seen := map[schema.GroupVersion]bool{}
	for _, r := range c.Resources() {
		if _, ok := t.byKind[r.GVK]; !ok {
			t.byKind[r.GVK] = r
		}
		if gv := r.GVR.GroupVersion(); !seen[gv] {
			seen[gv] = true
			versions = append(versions, gv)
		}
	}
	m := meta.NewDefaultRESTMapper(versions)
	for _, r := range c.Resources() {
		scope := meta.RESTScopeRoot
		if r.Namespaced {
			scope = meta.RESTScopeNamespace
		}
		singular := r.Singular
		if singular == "" {
			singular = strings.ToLower(r.GVK.Kind)
		}
		m.AddSpecific(r.GVK, r.GVR, r.GVR.GroupVersion().WithResource(singular), scope)
	}
	t.mapper = m
	return t
}

// resource finds what serves an object, a list or a kind.
func (t *types) resource(obj runtime.Object) (*core.Resource, error) {
	gvk, err := apiutil.GVKForObject(obj, t.scheme)
	if err != nil {
		return nil, err
	}
	if meta.IsListType(obj) {
		gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
	}
	return t.resourceOf(gvk)
}

func (t *types) resourceOf(gvk schema.GroupVersionKind) (*core.Resource, error) {
	if r, ok := t.byKind[gvk]; ok {
		return r, nil
	}
	return nil, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
}

// target names an object of a resource.
func target(r *core.Resource, namespace, name string) core.Target {
	if !r.Namespaced {
		namespace = ""
	}
	return core.Target{Resource: r, Namespace: namespace, Name: name}
}

// in copies a caller's object into one that the core may keep: of the type that the resource, or its subresource, is served with.
func in(r *core.Resource, sub string, obj runtime.Object) (runtime.Object, error) {
	want, err := r.New(sub)
	if err != nil {
		return nil, err
	}
	if reflect.TypeOf(want) == reflect.TypeOf(obj) {
		return obj.DeepCopyObject(), nil
	}
	switch o := obj.(type) {
	case *unstructured.Unstructured:
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, want); err != nil {
			return nil, err
		}
		return want, nil
	case *metav1.PartialObjectMetadata:
		return nil, fmt.Errorf("cannot write an object by its metadata only; use a patch")
	}
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	return want, json.Unmarshal(data, want)
}

// out copies what the core answered into a caller's object.
func out(r *core.Resource, o *core.Object, dst runtime.Object, share bool) error {
	view, err := o.View(r)
	if err != nil {
		return err
	}
	switch d := dst.(type) {
	case *metav1.PartialObjectMetadata:
		src := metadataOf(o, r)
		if !share {
			src = src.DeepCopy()
		}
		*d = *src
		return nil
	case *unstructured.Unstructured:
		u, err := unstructuredOf(o, r)
		if err != nil {
			return err
		}
		if !share {
			u = u.DeepCopy()
		}
		d.Object = u.Object
		return nil
	}
	if reflect.TypeOf(view) != reflect.TypeOf(dst) {
		if _, ok := view.(*metav1.Status); ok {
			return nil // the answer to a virtual creation, which the body doesn't hold
		}
		data, err := o.Encoded(r, runtime.ContentTypeJSON)
		if err != nil {
			return err
		}
		v := reflect.ValueOf(dst).Elem()
		v.Set(reflect.Zero(v.Type()))
		return json.Unmarshal(data, dst)
	}
	if !share {
		view = view.DeepCopyObject()
	}
	reflect.ValueOf(dst).Elem().Set(reflect.ValueOf(view).Elem())
	return nil
}

type (
	metadataKey     struct{ r *core.Resource }
	unstructuredKey struct{ r *core.Resource }
)

// metadataOf returns the object's metadata, shared.
func metadataOf(o *core.Object, r *core.Resource) *metav1.PartialObjectMetadata {
	return o.Derived(metadataKey{r}, func() any {
		p := &metav1.PartialObjectMetadata{}
		if acc, ok := o.Runtime().(metav1.ObjectMetaAccessor); ok {
			if m, ok := acc.GetObjectMeta().(*metav1.ObjectMeta); ok {
				p.ObjectMeta = *m
			}
		} else if u, ok := o.Runtime().(*unstructured.Unstructured); ok {
			_ = runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"metadata": u.Object["metadata"]}, p)
		}
		p.SetGroupVersionKind(r.GVK)
		return p
	}).(*metav1.PartialObjectMetadata)
}

// unstructuredOf returns the object in the resource's version as unstructured, shared.
func unstructuredOf(o *core.Object, r *core.Resource) (*unstructured.Unstructured, error) {
	v := o.Derived(unstructuredKey{r}, func() any {
		view, err := o.View(r)
		if err != nil {
			return err
		}
		if u, ok := view.(*unstructured.Unstructured); ok {
			return u
		}
		m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(view)
		if err != nil {
			return err
		}
		return &unstructured.Unstructured{Object: m}
	})
	if err, ok := v.(error); ok {
		return nil, err
	}
	return v.(*unstructured.Unstructured), nil
}

// form is how objects are handed out.
type form uint8

const (
	typed form = iota
	untyped
	metadata
)

func formOf(obj runtime.Object) form {
	switch obj.(type) {
	case *metav1.PartialObjectMetadata, *metav1.PartialObjectMetadataList:
		return metadata
	case runtime.Unstructured:
		return untyped
	}
	return typed
}

// shared returns the object in a form, not to be modified.
func shared(r *core.Resource, o *core.Object, f form) (client.Object, error) {
	switch f {
	case metadata:
		return metadataOf(o, r), nil
	case untyped:
		return unstructuredOf(o, r)
	}
	view, err := o.View(r)
	if err != nil {
		return nil, err
	}
	return view.(client.Object), nil
}

// fillList sets the items of a list.
func fillList(r *core.Resource, items []*core.Object, list client.ObjectList, share bool) error {
	switch l := list.(type) {
	case *metav1.PartialObjectMetadataList:
		l.Items = make([]metav1.PartialObjectMetadata, len(items))
		for i, o := range items {
			if err := out(r, o, &l.Items[i], share); err != nil {
				return err
			}
		}
		return nil
	case *unstructured.UnstructuredList:
		l.Items = make([]unstructured.Unstructured, len(items))
		for i, o := range items {
			if err := out(r, o, &l.Items[i], share); err != nil {
				return err
			}
		}
		return nil
	}
	ptr, err := meta.GetItemsPtr(list)
	if err != nil {
		return err
	}
	slice := reflect.ValueOf(ptr).Elem()
	elem := slice.Type().Elem()
	fresh := reflect.MakeSlice(slice.Type(), len(items), len(items))
	for i, o := range items {
		var dst reflect.Value
		if elem.Kind() == reflect.Pointer {
			dst = reflect.New(elem.Elem())
			fresh.Index(i).Set(dst)
		} else {
			dst = fresh.Index(i).Addr()
		}
		obj, ok := dst.Interface().(runtime.Object)
		if !ok {
			return fmt.Errorf("items of %T are not objects", list)
		}
		if err := out(r, o, obj, share); err != nil {
			return err
		}
	}
	slice.Set(fresh)
	return nil
}
