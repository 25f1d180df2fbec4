package garbagecollector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/pods"
	"github.com/keelson/keelson/controller/resources"
)

// key is an absent owner, as referred to from a namespace.
type key struct {
	uid       types.UID
	namespace string
}

// Reconcile looks at the object with a uid, which is the request's name.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	if !c.ready.Load() {
		return controller.Result{RequeueAfter: 50 * time.Millisecond}, nil
	}
	n, ok := c.graph.get(types.UID(req.Name))
	if !ok {
		return controller.Result{}, nil
	}
	var err error
	var res controller.Result
	switch {
	case n.orphaning:
		err = c.orphan(ctx, n)
	case n.foreground:
		err = c.foreground(ctx, n)
	case n.deleting:
		// Something else has to end its deletion.
	case n.virtual:
		res.RequeueAfter, err = c.verify(ctx, n)
	case len(n.owners) > 0:
		err = c.collect(ctx, n)
	}
	var impossible *scopeError
	switch {
	case errors.As(err, &impossible):
		return controller.Result{}, reconcile.TerminalError(err)
	case apierrors.IsConflict(err):
		// The graph will show what has changed; look again once it has.
		return controller.Result{RequeueAfter: 100 * time.Millisecond}, nil
	}
	return res, err
}

func (c *Controller) object(id identity) client.Object {
	var o client.Object
	if c.opts.MetadataOnly {
		o = resources.NewMetadata(id.kind)
	} else {
		o = resources.NewObject(c.client.Scheme(), id.kind)
	}
	o.SetNamespace(id.namespace)
	o.SetName(id.name)
	return o
}

func (c *Controller) read(ctx context.Context, id identity) (client.Object, error) {
	o := c.object(id)
	return o, c.client.Get(ctx, client.ObjectKey{Namespace: id.namespace, Name: id.name}, o)
}

// scopeError reports a reference to a namespaced owner by an object without a
// namespace, which cannot be resolved and makes no owner absent.
type scopeError struct{ ref identity }

func (e *scopeError) Error() string {
	return fmt.Sprintf("cluster-scoped object refers to a namespaced owner %v", e.ref)
}

// locate puts a reference into the scope its kind has.
func (c *Controller) locate(id identity) (identity, error) {
	m, err := c.client.RESTMapper().RESTMapping(id.kind.GroupKind(), id.kind.Version)
	if err != nil && meta.IsNoMatchError(err) {
		m, err = c.client.RESTMapper().RESTMapping(id.kind.GroupKind())
	}
	if err != nil {
		return id, fmt.Errorf("resolving owner %v: %w", id, err)
	}
	id.kind = m.GroupVersionKind
	if m.Scope.Name() == meta.RESTScopeNameRoot {
		id.namespace = ""
	} else if id.namespace == "" {
		return id, &scopeError{id}
	}
	return id, nil
}

// verifyAgain is when to look again at an object that exists but that no
// informer has shown.
const verifyAgain = 5 * time.Second

// verify finds out whether an object known only from references exists. If it
// does, its informer should show it; until then it is looked at now and then,
// for it may come and go without the informer ever showing it.
func (c *Controller) verify(ctx context.Context, n snapshot) (time.Duration, error) {
	id, err := c.locate(n.identity)
	if err != nil {
		return 0, err
	}
	o, err := c.read(ctx, id)
	switch {
	case apierrors.IsNotFound(err), err == nil && o.GetUID() != n.uid:
		c.absent.Add(key{n.uid, id.namespace}, true)
		c.graph.remove(n.uid)
		return 0, nil
	case err != nil:
		return 0, err
	}
	return verifyAgain, nil
}

// ownerState is the state of one owner reference.
type ownerState int

const (
	solid    ownerState = iota // exists
	dangling                   // absent
	waiting                    // exists, and waits for its dependents to go
)

func (c *Controller) ownerState(ctx context.Context, ref metav1.OwnerReference, namespace string) (ownerState, error) {
	id, err := c.locate(referred(ref, namespace))
	if err != nil {
		return solid, err
	}
	if _, ok := c.absent.Get(key{ref.UID, id.namespace}); ok {
		return dangling, nil
	}
	o, err := c.read(ctx, id)
	switch {
	case apierrors.IsNotFound(err), err == nil && o.GetUID() != ref.UID:
		c.absent.Add(key{ref.UID, id.namespace}, true)
		return dangling, nil
	case err != nil:
		return solid, err
	case o.GetDeletionTimestamp() != nil && slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents):
		return waiting, nil
	}
	return solid, nil
}

// collect deletes an object all whose owners are absent or wait for it to go,
// and drops references to absent owners from one that has another.
func (c *Controller) collect(ctx context.Context, n snapshot) error {
	live, err := c.read(ctx, n.identity)
	if apierrors.IsNotFound(err) || err == nil && live.GetUID() != n.uid {
		// The informer missed its end, or will show it.
		c.graph.remove(n.uid)
		return nil
	}
	if err != nil {
		return err
	}
	if live.GetDeletionTimestamp() != nil {
		return nil
	}
	owners := map[ownerState][]metav1.OwnerReference{}
	for _, ref := range live.GetOwnerReferences() {
		s, err := c.ownerState(ctx, ref, n.namespace)
		if err != nil {
			return err
		}
		owners[s] = append(owners[s], ref)
	}
	switch {
	case len(live.GetOwnerReferences()) == 0:
		return nil
	case len(owners[solid]) > 0:
		if len(owners[dangling])+len(owners[waiting]) == 0 {
			return nil
		}
		return c.setOwners(ctx, live, n.identity, owners[solid])
	case len(owners[waiting]) > 0 && len(n.dependents) > 0:
		for _, d := range n.dependents {
			if d.foreground {
				// A circle: this one must not block its owner, or neither ever goes.
				refs := slices.Clone(live.GetOwnerReferences())
				for i := range refs {
					refs[i].BlockOwnerDeletion = nil
				}
				if err := c.setOwners(ctx, live, n.identity, refs); err != nil {
					return err
				}
				live.SetResourceVersion("")
				break
			}
		}
		return c.delete(ctx, live, metav1.DeletePropagationForeground)
	}
	policy := metav1.DeletePropagationBackground
	switch {
	case slices.Contains(live.GetFinalizers(), metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(live.GetFinalizers(), metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationForeground
	}
	return c.delete(ctx, live, policy)
}

func (c *Controller) delete(ctx context.Context, o client.Object, p metav1.DeletionPropagation) error {
	uid, version := o.GetUID(), o.GetResourceVersion()
	pre := client.Preconditions{UID: &uid}
	if version != "" {
		pre.ResourceVersion = &version
	}
	c.runner.Logger().V(1).Info("deleting", "object", fmt.Sprintf("%T %s/%s", o, o.GetNamespace(), o.GetName()), "policy", p)
	return client.IgnoreNotFound(c.client.Delete(ctx, o, pre, client.PropagationPolicy(p)))
}

// foreground lets an object go that waits for its dependents, if none blocks it.
func (c *Controller) foreground(ctx context.Context, n snapshot) error {
	blocked := false
	for _, d := range n.dependents {
		if !d.blocks {
			continue
		}
		blocked = true
		if !d.foreground {
			c.runner.Enqueue(request(d.uid))
		}
	}
	if blocked {
		return nil
	}
	return c.dropFinalizer(ctx, n.identity, metav1.FinalizerDeleteDependents)
}

// orphan takes an owner's reference off all its dependents, then lets it go.
func (c *Controller) orphan(ctx context.Context, n snapshot) error {
	err := errors.Join(pods.Parallel(len(n.dependents), func(i int) error { return c.disown(ctx, n.dependents[i].identity, n.uid) })...)
	if err != nil {
		return err
	}
	return c.dropFinalizer(ctx, n.identity, metav1.FinalizerOrphanDependents)
}

func (c *Controller) disown(ctx context.Context, dep identity, owner types.UID) error {
	live, err := c.read(ctx, dep)
	if apierrors.IsNotFound(err) || err == nil && live.GetUID() != dep.uid {
		return nil
	}
	if err != nil {
		return err
	}
	is := func(r metav1.OwnerReference) bool { return r.UID == owner }
	if !slices.ContainsFunc(live.GetOwnerReferences(), is) {
		return nil
	}
	return client.IgnoreNotFound(c.setOwners(ctx, live, dep, slices.DeleteFunc(slices.Clone(live.GetOwnerReferences()), is)))
}

func (c *Controller) setOwners(ctx context.Context, live client.Object, id identity, refs []metav1.OwnerReference) error {
	return c.patch(ctx, live, id, map[string]any{"ownerReferences": refs})
}

func (c *Controller) dropFinalizer(ctx context.Context, id identity, name string) error {
	live, err := c.read(ctx, id)
	if apierrors.IsNotFound(err) || err == nil && live.GetUID() != id.uid {
		return nil
	}
	if err != nil {
		return err
	}
	if !slices.Contains(live.GetFinalizers(), name) {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(live.GetFinalizers()), func(s string) bool { return s == name })
	return client.IgnoreNotFound(c.patch(ctx, live, id, map[string]any{"finalizers": left}))
}

// patch is a merge patch, which all kinds take, of exactly what was read.
func (c *Controller) patch(ctx context.Context, live client.Object, id identity, metadata map[string]any) error {
	metadata["resourceVersion"] = live.GetResourceVersion()
	metadata["uid"] = live.GetUID()
	data, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return err
	}
	return c.client.Patch(ctx, c.object(id), client.RawPatch(types.MergePatchType, data))
}
