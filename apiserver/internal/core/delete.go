package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/store"
)

// Delete deletes an object or asks for its deletion; deleted reports whether it is gone. The result is the object as it is now or was
// last, or, when it is gone and the kind doesn't return deleted objects, a *metav1.Status.
func (c *Core) Delete(ctx context.Context, t Target, opts metav1.DeleteOptions) (res *Object, deleted bool, err error) {
	if err := c.authorize(ctx, t, "delete", nil); err != nil {
		return nil, false, err
	}
	if err := t.serves("delete"); err != nil {
		return nil, false, err
	}
	if errs := validation.ValidateDeleteOptions(&opts); len(errs) > 0 {
		return nil, false, invalidOptions("DeleteOptions", errs)
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, false, err
	}
	return c.delete(ctx, t, opts)
}

func (c *Core) delete(ctx context.Context, t Target, opts metav1.DeleteOptions) (*Object, bool, error) {
	key, err := t.key()
	if err != nil {
		return nil, false, err
	}
	s := t.Resource.stored
	if s.kind.DeletionWarnings != nil {
		addWarnings(ctx, s.kind.DeletionWarnings(&opts))
	}
	if g := opts.GracePeriodSeconds; g != nil && *g < 0 {
		opts.GracePeriodSeconds = ptrTo(int64(1))
	}
	fresh := false
	for {
		cur := s.cache.Get(key)
		res, deleted, err := c.tryDelete(ctx, t, key, cur, opts)
		if err == nil {
			if deleted && !s.kind.ReturnDeletedObject {
				res = deletedStatus(t, cur)
			}
			return res, deleted, nil
		}
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		var lost *store.ConflictError
		again := errors.As(err, &lost)
		if fresh && !again {
			return nil, false, err
		}
		if serr := c.Sync(ctx); serr != nil {
			return nil, false, serr
		}
		if !again && s.cache.Get(key) == cur {
			return nil, false, err
		}
		fresh = true
	}
}

// deletedStatus is how Kubernetes says that an object is gone.
func deletedStatus(t Target, last *Object) *Object {
	return objectcache.Transient(&metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess,
		Details: &metav1.StatusDetails{
			Name: last.Object().GetName(), Group: t.Resource.GVR.Group, Kind: t.Resource.GVR.Resource, UID: last.Object().GetUID(),
		},
	})
}

func (c *Core) tryDelete(ctx context.Context, t Target, key string, cur *Object, opts metav1.DeleteOptions) (res *Object, deleted bool, err error) {
	if cur == nil {
		return nil, false, notFound(t)
	}
	s := t.Resource.stored
	old := cur.Object()
	if err := checkPreconditions(t.Resource.GVK, old, opts.Preconditions); err != nil {
		return nil, false, err
	}
	dry := isDryRun(opts.DryRun)
	if c.mutating != nil || c.validates != nil {
		a := c.attributes(ctx, t, nil, old, t.Name, admission.Delete, &opts, dry)
		if err := c.admit(ctx, a); err != nil {
			return nil, false, err
		}
		if err := c.validateAdmission(ctx, a); err != nil {
			return nil, false, err
		}
	}
	next, changed, gone := c.planDelete(ctx, s, old, opts)
	if gone {
		last := cur
		if !dry {
			if last, err = c.remove(ctx, s, cur); err != nil {
				return nil, false, err
			}
		}
		if next != nil {
			next.SetResourceVersion(last.ResourceVersion())
			last = objectcache.Transient(next)
		}
		return last, true, nil
	}
	if !changed {
		return cur, false, nil
	}
	if dry {
		next.SetResourceVersion(cur.ResourceVersion())
		return objectcache.Transient(next), false, nil
	}
	o, err := c.put(ctx, s, key, next, store.At(cur.Revision()))
	return o, false, err
}

func checkPreconditions(gvk schema.GroupVersionKind, obj client.Object, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	gr := schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}
	if p.UID != nil && *p.UID != obj.GetUID() {
		return apierrors.NewConflict(gr, obj.GetName(), fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, obj.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != obj.GetResourceVersion() {
		return apierrors.NewConflict(gr, obj.GetName(), fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, obj.GetResourceVersion()))
	}
	return nil
}

// planDelete decides what a delete does to an object: remove it (gone; next, if not nil, is how the answer shows it), change it (next), or nothing.
func (c *Core) planDelete(ctx context.Context, s *stored, old client.Object, opts metav1.DeleteOptions) (next client.Object, changed, gone bool) {
	held := s.kind.HoldsRemoval != nil && s.kind.HoldsRemoval(old)
	finalizers, refinalized := deletionFinalizers(s, old, opts)
	if s.kind.GracePeriod == nil && !held && len(finalizers) == 0 {
		return nil, false, true
	}
	next = old.DeepCopyObject().(client.Object)
	deleting := old.GetDeletionTimestamp() != nil
	now := c.now()

	graceful, ignore := s.graceful(ctx, next, opts, now)
	if ignore {
		// A deletion that is under way can only be shortened, nor do its options change finalizers any more.
		return nil, false, false
	}
	if refinalized {
		next.SetFinalizers(finalizers)
		changed = true
	}
	if len(finalizers) == 0 && !held && (!graceful || *next.GetDeletionGracePeriodSeconds() == 0) {
		if graceful && !deleting && next.GetGeneration() > 0 {
			next.SetGeneration(next.GetGeneration() + 1)
		}
		return next, false, true
	}
	if graceful {
		changed = true
	} else if markDeleting(next, now, len(finalizers) > 0) {
		changed = true
	}
	if !deleting {
		if g := next.GetGeneration(); g > 0 {
			next.SetGeneration(g + 1)
		}
		if s.kind.PrepareForDelete != nil {
			s.kind.PrepareForDelete(ctx, next)
		}
		changed = true
	}
	return next, changed, false
}

// graceful sets or shortens the grace period of obj. ignore reports that a deletion is under way that this one does not shorten.
func (s *stored) graceful(ctx context.Context, obj client.Object, opts metav1.DeleteOptions, now metav1.Time) (graceful, ignore bool) {
	if s.kind.GracePeriod == nil {
		return false, false
	}
	ts, have := obj.GetDeletionTimestamp(), obj.GetDeletionGracePeriodSeconds()
	if ts == nil {
		period := s.kind.GracePeriod(ctx, obj, opts.GracePeriodSeconds)
		at := metav1.NewTime(now.Add(time.Duration(period) * time.Second))
		obj.SetDeletionTimestamp(&at)
		obj.SetDeletionGracePeriodSeconds(&period)
		return true, false
	}
	if have == nil || *have == 0 {
		return false, false
	}
	was := *have
	if was < 0 {
		was = 1
	}
	if opts.GracePeriodSeconds == nil || *opts.GracePeriodSeconds >= was {
		return false, true
	}
	period := *opts.GracePeriodSeconds
	at := metav1.NewTime(ts.Add(time.Duration(period-was) * time.Second))
	if at.Before(&now) {
		at = now
		if period != 0 {
			period = 1
		}
	}
	obj.SetDeletionTimestamp(&at)
	obj.SetDeletionGracePeriodSeconds(&period)
	return true, false
}

// markDeleting marks an object that has no grace period but cannot go yet.
func markDeleting(obj client.Object, now metav1.Time, zeroGrace bool) bool {
	changed := false
	if ts := obj.GetDeletionTimestamp(); ts == nil || ts.After(now.Time) {
		obj.SetDeletionTimestamp(&now)
		changed = true
	}
	if g := obj.GetDeletionGracePeriodSeconds(); zeroGrace && (g == nil || *g != 0) {
		obj.SetDeletionGracePeriodSeconds(ptrTo(int64(0)))
		changed = true
	}
	return changed
}

// deletionFinalizers returns the finalizers that the object has from this deletion on: those of the garbage
// collector follow the propagation policy.
func deletionFinalizers(s *stored, obj client.Object, opts metav1.DeleteOptions) (out []string, changed bool) {
	old := obj.GetFinalizers()
	var want string
	switch propagation(s, old, opts) {
	case metav1.DeletePropagationOrphan:
		want = metav1.FinalizerOrphanDependents
	case metav1.DeletePropagationForeground:
		want = metav1.FinalizerDeleteDependents
	}
	for _, f := range old {
		if f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents {
			out = append(out, f)
		}
	}
	if want != "" {
		out = append(out, want)
	}
	if len(out) == len(old) && (want == "" || slices.Contains(old, want)) {
		return old, false
	}
	return out, true
}

func propagation(s *stored, finalizers []string, opts metav1.DeleteOptions) metav1.DeletionPropagation {
	//nolint:staticcheck // old clients send it
	if o := opts.OrphanDependents; o != nil {
		if *o {
			return metav1.DeletePropagationOrphan
		}
		return metav1.DeletePropagationBackground
	}
	if p := opts.PropagationPolicy; p != nil {
		return *p
	}
	for _, f := range finalizers {
		switch f {
		case metav1.FinalizerOrphanDependents:
			return metav1.DeletePropagationOrphan
		case metav1.FinalizerDeleteDependents:
			return metav1.DeletePropagationForeground
		}
	}
	if s.kind.DefaultPropagation != "" {
		return s.kind.DefaultPropagation
	}
	return metav1.DeletePropagationBackground
}

func ptrTo[T any](v T) *T { return &v }
