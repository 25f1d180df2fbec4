package core

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// memory is a store of objects with revisions and claims, as the core has one: what kinds need of a server.
type memory struct {
	mu       sync.Mutex
	revision int
	objects  map[string]client.Object
	claims   map[string]string // claim to key
	deleted  []metav1.DeleteOptions
}

var _ kind.Access = (*memory)(nil)

func newMemory(objs ...client.Object) *memory {
	m := &memory{objects: map[string]client.Object{}, claims: map[string]string{}}
	for _, obj := range objs {
		m.set(keyOf(obj), obj)
	}
	return m
}

func keyOf(obj client.Object) string {
	return fmt.Sprintf("%s/%s/%s", obj.GetObjectKind().GroupVersionKind().Kind, obj.GetNamespace(), obj.GetName())
}

func (m *memory) set(key string, obj client.Object) {
	m.revision++
	obj.SetResourceVersion(strconv.Itoa(m.revision))
	m.objects[key] = obj
}

func (m *memory) Get(_ context.Context, gvk schema.GroupVersionKind, namespace, name string) (client.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, found := m.objects[fmt.Sprintf("%s/%s/%s", gvk.Kind, namespace, name)]
	if !found {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: gvk.Kind}, name)
	}
	return obj, nil
}

func (m *memory) Cached(gvk schema.GroupVersionKind, namespace, name string) client.Object {
	obj, err := m.Get(context.Background(), gvk, namespace, name)
	if err != nil {
		return nil
	}
	return obj
}

func (m *memory) List(_ context.Context, gvk schema.GroupVersionKind, namespace string) ([]client.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []client.Object
	for _, obj := range m.objects {
		if obj.GetObjectKind().GroupVersionKind().Kind == gvk.Kind && (namespace == "" || namespace == obj.GetNamespace()) {
			out = append(out, obj)
		}
	}
	return out, nil
}

func (m *memory) Update(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string, dryRun bool, change func(client.Object) error) (client.Object, error) {
	old, err := m.Get(ctx, gvk, namespace, name)
	if err != nil {
		return nil, err
	}
	obj := old.DeepCopyObject().(client.Object)
	if err := change(obj); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !dryRun {
		m.set(keyOf(obj), obj)
	}
	return obj, nil
}

func (m *memory) UpdateEach(ctx context.Context, gvk schema.GroupVersionKind, dryRun bool, changes []kind.Change) []error {
	errs := make([]error, len(changes))
	for i, ch := range changes {
		_, errs[i] = m.Update(ctx, gvk, ch.Namespace, ch.Name, dryRun, ch.Apply)
	}
	return errs
}

func (m *memory) Delete(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string, opts metav1.DeleteOptions) error {
	obj, err := m.Get(ctx, gvk, namespace, name)
	if err != nil {
		return err
	}
	if p := opts.Preconditions; p != nil && p.ResourceVersion != nil && *p.ResourceVersion != obj.GetResourceVersion() {
		return apierrors.NewConflict(schema.GroupResource{Resource: gvk.Kind}, name, fmt.Errorf("resource version %s", obj.GetResourceVersion()))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deleted = append(m.deleted, opts)
	if len(opts.DryRun) == 0 {
		delete(m.objects, keyOf(obj))
	}
	return nil
}

// commit runs the part of a request that the core does between validation and the answer: Begin, and the commit of the
// object with its claims, again while another object has one. obj nil removes.
func (m *memory) commit(k *kind.Kind, obj, old client.Object) error {
	ctx := kind.WithAccess(context.Background(), m)
	for attempt := 0; ; attempt++ {
		done, err := k.Begin(ctx, obj, old, false)
		if err != nil {
			return err
		}
		if m.try(k, obj, old) {
			done(true)
			return nil
		}
		done(false)
		if attempt == 10 {
			return fmt.Errorf("no end of conflicts")
		}
	}
}

func (m *memory) try(k *kind.Kind, obj, old client.Object) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	var now, before []string
	key := ""
	if obj != nil {
		now, key = k.Claims(obj), keyOf(obj)
	}
	if old != nil {
		before, key = k.Claims(old), keyOf(old)
	}
	for _, claim := range now {
		if owner, taken := m.claims[claim]; taken && owner != key {
			return false
		}
	}
	for _, claim := range before {
		if !slices.Contains(now, claim) {
			delete(m.claims, claim)
		}
	}
	for _, claim := range now {
		m.claims[claim] = key
	}
	if obj == nil {
		delete(m.objects, key)
	} else {
		m.set(key, obj.DeepCopyObject().(client.Object))
	}
	return true
}
