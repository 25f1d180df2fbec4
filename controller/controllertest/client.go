package controllertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// errApply is what server-side apply answers here.
var errApply = errors.New("controllertest: server-side apply is not supported by the cluster in memory")

// Client returns a client that reads live.
func (c *Cluster) Client() client.WithWatch { return &memClient{c} }

type memClient struct{ c *Cluster }

var _ client.WithWatch = (*memClient)(nil)

func (m *memClient) Scheme() *runtime.Scheme     { return m.c.scheme }
func (m *memClient) RESTMapper() meta.RESTMapper { return m.c.mapper }

func (m *memClient) GroupVersionKindFor(o runtime.Object) (schema.GroupVersionKind, error) {
	return apiutil.GVKForObject(o, m.c.scheme)
}

func (m *memClient) IsObjectNamespaced(o runtime.Object) (bool, error) {
	return apiutil.IsObjectNamespaced(o, m.c.scheme, m.c.mapper)
}

// into copies a stored object to the caller's, whichever form that has.
func into(stored, out client.Object, gvk schema.GroupVersionKind) error {
	switch o := out.(type) {
	case *metav1.PartialObjectMetadata:
		*o = *asMetadata(stored, gvk)
		return nil
	case *unstructured.Unstructured:
		m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(stored)
		if err != nil {
			return err
		}
		o.Object = m
		o.SetGroupVersionKind(gvk)
		return nil
	}
	src := reflect.ValueOf(stored.DeepCopyObject())
	dst := reflect.ValueOf(out)
	if src.Type() != dst.Type() {
		return fmt.Errorf("controllertest: %T asked for where %T is stored", out, stored)
	}
	dst.Elem().Set(src.Elem())
	return nil
}

func asMetadata(o client.Object, gvk schema.GroupVersionKind) *metav1.PartialObjectMetadata {
	p := &metav1.PartialObjectMetadata{ObjectMeta: *meta.AsPartialObjectMetadata(o).ObjectMeta.DeepCopy()}
	p.SetGroupVersionKind(gvk)
	return p
}

func (m *memClient) Get(ctx context.Context, key client.ObjectKey, out client.Object, _ ...client.GetOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	gvk, err := m.c.kindOf(out)
	if err != nil {
		return err
	}
	if err := m.c.enter(Call{Verb: "get", Kind: gvk, Namespace: key.Namespace, Name: key.Name}); err != nil {
		return err
	}
	o, ok := m.c.objects[gvk][key]
	if !ok {
		return apierrors.NewNotFound(m.c.resource(gvk), key.Name)
	}
	return into(o, out, gvk)
}

func selects(o client.Object, opts *client.ListOptions) bool {
	if opts.Namespace != "" && o.GetNamespace() != opts.Namespace {
		return false
	}
	if opts.LabelSelector != nil && !opts.LabelSelector.Matches(labels.Set(o.GetLabels())) {
		return false
	}
	if opts.FieldSelector == nil || opts.FieldSelector.Empty() {
		return true
	}
	set := fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace()}
	if pod, ok := o.(*corev1.Pod); ok {
		set["spec.nodeName"], set["status.phase"] = pod.Spec.NodeName, string(pod.Status.Phase)
	}
	return opts.FieldSelector.Matches(set)
}

func (m *memClient) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := (&client.ListOptions{}).ApplyOptions(opts)
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	gvk, err := m.c.kindOf(list)
	if err != nil {
		return err
	}
	if err := m.c.enter(Call{Verb: "list", Kind: gvk, Namespace: o.Namespace}); err != nil {
		return err
	}
	var items []runtime.Object
	for _, obj := range m.c.sorted(gvk) {
		if !selects(obj, o) {
			continue
		}
		switch list.(type) {
		case *metav1.PartialObjectMetadataList:
			items = append(items, asMetadata(obj, gvk))
		case *unstructured.UnstructuredList:
			u := &unstructured.Unstructured{}
			if err := into(obj, u, gvk); err != nil {
				return err
			}
			items = append(items, u)
		default:
			items = append(items, obj.DeepCopyObject())
		}
	}
	if err := meta.SetList(list, items); err != nil {
		return err
	}
	list.SetResourceVersion(strconv.FormatUint(m.c.version, 10))
	return nil
}

func (m *memClient) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	n, err := m.c.create(obj)
	if err != nil {
		return err
	}
	gvk, _ := m.c.kindOf(obj)
	return into(n, obj, gvk)
}

func (m *memClient) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	return m.update(ctx, obj, "")
}

func (m *memClient) update(ctx context.Context, obj client.Object, sub string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	gvk, err := m.c.kindOf(obj)
	if err != nil {
		return err
	}
	if err := m.c.enter(Call{Verb: "update", Kind: gvk, Subresource: sub, Namespace: obj.GetNamespace(), Name: obj.GetName(), Object: obj}); err != nil {
		return err
	}
	cur, ok := m.c.objects[gvk][client.ObjectKeyFromObject(obj)]
	if !ok {
		return apierrors.NewNotFound(m.c.resource(gvk), obj.GetName())
	}
	n, err := m.c.replace(gvk, cur, m.c.clean(obj, gvk), sub)
	if err != nil {
		return err
	}
	return into(n, obj, gvk)
}

func (m *memClient) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	return m.patch(ctx, obj, patch, "")
}

func (m *memClient) patch(ctx context.Context, obj client.Object, patch client.Patch, sub string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	data, err := patch.Data(obj)
	if err != nil {
		return err
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	gvk, err := m.c.kindOf(obj)
	if err != nil {
		return err
	}
	if err := m.c.enter(Call{Verb: "patch", Kind: gvk, Subresource: sub, Namespace: obj.GetNamespace(), Name: obj.GetName()}); err != nil {
		return err
	}
	cur, ok := m.c.objects[gvk][client.ObjectKeyFromObject(obj)]
	if !ok {
		return apierrors.NewNotFound(m.c.resource(gvk), obj.GetName())
	}
	// A patch without a version is no conditional write.
	bare := cur.DeepCopyObject().(client.Object)
	bare.SetResourceVersion("")
	doc, err := json.Marshal(bare)
	if err != nil {
		return err
	}
	var out []byte
	switch patch.Type() {
	case types.MergePatchType:
		out, err = jsonpatch.MergePatch(doc, data)
	case types.StrategicMergePatchType:
		out, err = strategicpatch.StrategicMergePatch(doc, data, cur)
	case types.JSONPatchType:
		var p jsonpatch.Patch
		if p, err = jsonpatch.DecodePatch(data); err == nil {
			out, err = p.Apply(doc)
		}
	default:
		return errApply
	}
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	n := reflect.New(reflect.TypeOf(cur).Elem()).Interface().(client.Object)
	if err := json.Unmarshal(out, n); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	res, err := m.c.replace(gvk, cur, n, sub)
	if err != nil {
		return err
	}
	return into(res, obj, gvk)
}

func (m *memClient) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	gvk, err := m.c.kindOf(obj)
	if err != nil {
		return err
	}
	if err := m.c.enter(Call{Verb: "delete", Kind: gvk, Namespace: obj.GetNamespace(), Name: obj.GetName()}); err != nil {
		return err
	}
	o := client.DeleteOptions{}
	o.ApplyOptions(opts)
	return m.c.delete(gvk, client.ObjectKeyFromObject(obj), o)
}

func (m *memClient) DeleteAllOf(ctx context.Context, obj client.Object, opts ...client.DeleteAllOfOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	gvk, err := m.c.kindOf(obj)
	if err != nil {
		return err
	}
	o := client.DeleteAllOfOptions{}
	o.ApplyOptions(opts)
	if err := m.c.enter(Call{Verb: "deletecollection", Kind: gvk, Namespace: o.Namespace}); err != nil {
		return err
	}
	for _, cur := range m.c.sorted(gvk) {
		if selects(cur, &o.ListOptions) {
			if err := m.c.delete(gvk, client.ObjectKeyFromObject(cur), o.DeleteOptions); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memClient) Apply(context.Context, runtime.ApplyConfiguration, ...client.ApplyOption) error {
	return errApply
}

func (m *memClient) Status() client.SubResourceWriter { return m.SubResource("status") }

func (m *memClient) SubResource(name string) client.SubResourceClient {
	return &memSubresource{m, name}
}

type memSubresource struct {
	m    *memClient
	name string
}

func (s *memSubresource) Get(context.Context, client.Object, client.Object, ...client.SubResourceGetOption) error {
	return fmt.Errorf("controllertest: reading subresource %q is not supported", s.name)
}

// Create serves pods/eviction, as a plain deletion.
func (s *memSubresource) Create(ctx context.Context, obj, sub client.Object, _ ...client.SubResourceCreateOption) error {
	ev, ok := sub.(*policyv1.Eviction)
	if !ok {
		return fmt.Errorf("controllertest: creating subresource %q is not supported", s.name)
	}
	var opts []client.DeleteOption
	if ev.DeleteOptions != nil {
		opts = append(opts, &client.DeleteOptions{GracePeriodSeconds: ev.DeleteOptions.GracePeriodSeconds, Preconditions: ev.DeleteOptions.Preconditions})
	}
	return s.m.Delete(ctx, obj, opts...)
}

func (s *memSubresource) Update(ctx context.Context, obj client.Object, opts ...client.SubResourceUpdateOption) error {
	return s.m.update(ctx, obj, s.name)
}

func (s *memSubresource) Patch(ctx context.Context, obj client.Object, p client.Patch, _ ...client.SubResourcePatchOption) error {
	return s.m.patch(ctx, obj, p, s.name)
}

func (s *memSubresource) Apply(context.Context, runtime.ApplyConfiguration, ...client.SubResourceApplyOption) error {
	return errApply
}

func (m *memClient) Watch(ctx context.Context, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
	o := (&client.ListOptions{}).ApplyOptions(opts)
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	gvk, err := m.c.kindOf(list)
	if err != nil {
		return nil, err
	}
	if err := m.c.enter(Call{Verb: "watch", Kind: gvk, Namespace: o.Namespace}); err != nil {
		return nil, err
	}
	return m.c.watch(ctx, gvk, list, o), nil
}
