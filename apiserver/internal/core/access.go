package core

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// access implements kind.Access.
type access struct{ c *Core }

var _ kind.Access = access{}

// Access is the Core without authorization, admission and validation, for the server's own parts.
func (c *Core) Access() kind.Access { return c.access }

func (a access) target(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string) (Target, error) {
	r, ok := a.c.byGVK[gvk]
	if !ok {
		return Target{}, apierrors.NewInternalError(fmt.Errorf("core: kind %s is not served", gvk))
	}
	if !r.Namespaced {
		namespace = ""
	}
	return Target{Resource: r.stored.hub, Namespace: namespace, Name: name}, a.c.WaitReady(ctx)
}

func (a access) Get(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string) (client.Object, error) {
	t, err := a.target(ctx, gvk, namespace, name)
	if err != nil {
		return nil, err
	}
	key, err := t.key()
	if err != nil {
		return nil, err
	}
	if err := a.c.Sync(ctx); err != nil {
		return nil, err
	}
	o := t.Resource.stored.cache.Get(key)
	if o == nil {
		return nil, notFound(t)
	}
	return o.Object(), nil
}

func (a access) List(ctx context.Context, gvk schema.GroupVersionKind, namespace string) ([]client.Object, error) {
	t, err := a.target(ctx, gvk, namespace, "")
	if err != nil {
		return nil, err
	}
	l, err := a.c.list(ctx, t, ListOptions{})
	if err != nil {
		return nil, err
	}
	out := make([]client.Object, len(l.Items))
	for i, o := range l.Items {
		out[i] = o.Object()
	}
	return out, nil
}

func (a access) Cached(gvk schema.GroupVersionKind, namespace, name string) client.Object {
	r, ok := a.c.byGVK[gvk]
	if !ok {
		return nil
	}
	if !r.Namespaced {
		namespace = ""
	}
	key, err := Target{Resource: r.stored.hub, Namespace: namespace, Name: name}.key()
	if err != nil {
		return nil
	}
	if o := r.stored.cache.Get(key); o != nil {
		return o.Object()
	}
	return nil
}

func (a access) Update(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string, dryRun bool, change func(client.Object) error) (client.Object, error) {
	m, err := a.mutation(ctx, gvk, namespace, name, dryRun, change)
	if err != nil {
		return nil, err
	}
	o, _, err := a.c.mutate(ctx, m)
	if err != nil {
		return nil, err
	}
	return o.Object(), nil
}

func (a access) mutation(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string, dryRun bool, change func(client.Object) error) (*mutation, error) {
	t, err := a.target(ctx, gvk, namespace, name)
	if err != nil {
		return nil, err
	}
	opts := &metav1.UpdateOptions{}
	if dryRun {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	m, err := a.c.newMutation(t, opts)
	if err != nil {
		return nil, err
	}
	m.raw = true
	m.unconditional = true
	m.build = func(_ context.Context, cur *Object) (client.Object, error) {
		obj := cur.Object().DeepCopyObject().(client.Object)
		return obj, change(obj)
	}
	return m, nil
}

func (a access) UpdateEach(ctx context.Context, gvk schema.GroupVersionKind, dryRun bool, changes []kind.Change) []error {
	errs := make([]error, len(changes))
	ms := make([]*mutation, len(changes))
	for i, ch := range changes {
		ms[i], errs[i] = a.mutation(ctx, gvk, ch.Namespace, ch.Name, dryRun, ch.Apply)
	}
	a.c.mutateEach(ctx, ms, errs)
	return errs
}

func (a access) Delete(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string, opts metav1.DeleteOptions) error {
	t, err := a.target(ctx, gvk, namespace, name)
	if err != nil {
		return err
	}
	_, _, err = a.c.delete(trusted(ctx), t, opts)
	return err
}
