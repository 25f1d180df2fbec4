// Package claim adopts and releases the objects a controller owns by its
// selector.
package claim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/internal/view"
)

// Claimer claims objects of type T for one owner during one reconciliation.
type Claimer[T client.Object] struct {
	Client   client.Client
	Owner    client.Object
	Kind     schema.GroupVersionKind
	Selector labels.Selector
	// Finalizers are added to objects adopted.
	Finalizers []string
	// Filter, when set, drops candidates for adoption.
	Filter func(T) bool

	once sync.Once
	may  error
}

// Candidates returns what the owner controls and what nobody does in its
// namespace.
func Candidates[T client.Object](ctx context.Context, v *view.View[T], owner client.Object) ([]T, error) {
	owned, err := v.By(ctx, view.Controller(), view.OwnedBy(owner.GetUID()))
	if err != nil {
		return nil, err
	}
	orphans, err := v.By(ctx, view.Controller(), view.Orphans(owner.GetNamespace()))
	if err != nil {
		return nil, err
	}
	return append(owned, orphans...), nil
}

// Claim returns those of objs that the owner controls afterwards. It adopts
// orphans that match and releases its own that don't any more.
func (c *Claimer[T]) Claim(ctx context.Context, objs []T) ([]T, error) {
	var out []T
	var errs []error
	for _, o := range objs {
		ok, err := c.claim(ctx, o)
		if err != nil {
			errs = append(errs, err)
		} else if ok {
			out = append(out, o)
		}
	}
	return out, errors.Join(errs...)
}

func (c *Claimer[T]) claim(ctx context.Context, o T) (bool, error) {
	matches := c.Selector.Matches(labels.Set(o.GetLabels()))
	if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
		if ref.UID != c.Owner.GetUID() {
			return false, nil
		}
		if matches {
			return true, nil
		}
		if c.Owner.GetDeletionTimestamp() != nil {
			return false, nil
		}
		return false, c.release(ctx, o)
	}
	if !matches || c.Owner.GetDeletionTimestamp() != nil || o.GetDeletionTimestamp() != nil {
		return false, nil
	}
	if o.GetNamespace() != c.Owner.GetNamespace() || c.Filter != nil && !c.Filter(o) {
		return false, nil
	}
	if err := c.mayAdopt(ctx); err != nil {
		return false, fmt.Errorf("can't adopt %T %v/%v (%v): %w", o, o.GetNamespace(), o.GetName(), o.GetUID(), err)
	}
	err := c.patch(ctx, o, map[string]any{
		"ownerReferences": []metav1.OwnerReference{*metav1.NewControllerRef(c.Owner, c.Kind)},
		"uid":             o.GetUID(),
	})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err), apierrors.IsInvalid(err):
		// Gone, replaced, or adopted by another meanwhile.
		return false, nil
	case err != nil:
		return false, err
	}
	return true, nil
}

// mayAdopt reads the owner live: a cached owner may have been deleted, and
// what it adopts would then never be collected.
func (c *Claimer[T]) mayAdopt(ctx context.Context) error {
	c.once.Do(func() {
		fresh, ok := c.Owner.DeepCopyObject().(client.Object)
		if !ok {
			c.may = fmt.Errorf("%T is no client.Object", c.Owner)
			return
		}
		if err := c.Client.Get(ctx, client.ObjectKeyFromObject(c.Owner), fresh); err != nil {
			c.may = err
			return
		}
		switch {
		case fresh.GetUID() != c.Owner.GetUID():
			c.may = fmt.Errorf("original %v %v/%v is gone: got uid %v, wanted %v", c.Kind.Kind, c.Owner.GetNamespace(), c.Owner.GetName(), fresh.GetUID(), c.Owner.GetUID())
		case fresh.GetDeletionTimestamp() != nil:
			c.may = fmt.Errorf("%v/%v has just been deleted at %v", c.Owner.GetNamespace(), c.Owner.GetName(), fresh.GetDeletionTimestamp())
		}
	})
	return c.may
}

func (c *Claimer[T]) release(ctx context.Context, o T) error {
	meta := map[string]any{
		"ownerReferences": []map[string]any{{"$patch": "delete", "uid": c.Owner.GetUID()}},
		"uid":             o.GetUID(),
	}
	if len(c.Finalizers) > 0 {
		meta["$deleteFromPrimitiveList/finalizers"] = c.Finalizers
		err := c.send(ctx, o, meta)
		return ignoreGone(err)
	}
	return ignoreGone(c.send(ctx, o, meta))
}

func ignoreGone(err error) error {
	// Invalid: the object has been replaced, or has no such owner any more.
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

func (c *Claimer[T]) patch(ctx context.Context, o T, meta map[string]any) error {
	if len(c.Finalizers) > 0 {
		meta["finalizers"] = c.Finalizers
	}
	return c.send(ctx, o, meta)
}

func (c *Claimer[T]) send(ctx context.Context, o T, meta map[string]any) error {
	data, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return err
	}
	target, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("%T is no client.Object", o)
	}
	return c.Client.Patch(ctx, target, client.RawPatch(types.StrategicMergePatchType, data))
}
