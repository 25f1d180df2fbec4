package apiserver

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/keelson/keelson/apiserver/internal/core"
)

// reader gives the server's own parts what its core has, without authorization. What it returns shares memory with the
// stored objects and must not be modified. The core is set after the parts that need it to be made have a reader.
type reader struct{ core atomic.Pointer[core.Core] }

var _ client.Reader = (*reader)(nil)

func (r *reader) resource(obj runtime.Object, list bool) (*core.Core, *core.Resource, error) {
	c := r.core.Load()
	gvk, err := apiutil.GVKForObject(obj, c.Scheme())
	if err != nil {
		return nil, nil, err
	}
	if list {
		gvk.Kind = gvk.Kind[:len(gvk.Kind)-len("List")]
	}
	res, ok := c.LookupKind(gvk)
	if !ok {
		return nil, nil, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
	}
	return c, res, nil
}

// Get implements client.Reader. What the cache has not seen yet is looked for in the store.
func (r *reader) Get(ctx context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	c, res, err := r.resource(obj, false)
	if err != nil {
		return err
	}
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	name := key.Name
	if res.Namespaced {
		name = key.Namespace + "/" + key.Name
	}
	var found client.Object
	if o := c.Cached(res).Get(name); o != nil {
		found = o.Object()
	} else if found, err = c.Access().Get(ctx, res.GVK, key.Namespace, key.Name); err != nil {
		return err
	}
	return assign(obj, found)
}

// List implements client.Reader, with namespace, label selector and one of the fields that have an index, on the cache.
func (r *reader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	c, res, err := r.resource(list, true)
	if err != nil {
		return err
	}
	o := (&client.ListOptions{}).ApplyOptions(opts)
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	prefix := ""
	if res.Namespaced && o.Namespace != "" {
		prefix = o.Namespace + "/"
	}
	var items []runtime.Object
	add := func(obj *core.Object) bool {
		if o.LabelSelector == nil || o.LabelSelector.Matches(labels.Set(obj.Object().GetLabels())) {
			items = append(items, obj.Runtime())
		}
		return true
	}
	if o.FieldSelector == nil {
		c.Cached(res).Snapshot().Ascend(prefix, "", add)
		return meta.SetList(list, items)
	}
	fields := o.FieldSelector.Requirements()
	if len(fields) != 1 || fields[0].Operator == selection.NotEquals || fields[0].Value == "" || !c.Cached(res).HasIndex(fields[0].Field) {
		return fmt.Errorf("apiserver: no index of %s selects %s", res.GVR.GroupResource(), o.FieldSelector)
	}
	found, _ := c.Cached(res).ByIndex(fields[0].Field, fields[0].Value)
	for _, obj := range found {
		if strings.HasPrefix(obj.Key(), prefix) {
			add(obj)
		}
	}
	return meta.SetList(list, items)
}

func assign(dst, src client.Object) error {
	d, s := reflect.ValueOf(dst), reflect.ValueOf(src)
	if d.Type() != s.Type() {
		return fmt.Errorf("apiserver: stored object is a %T, not a %T", src, dst)
	}
	d.Elem().Set(s.Elem())
	return nil
}
