package core

import (
	"context"
	"errors"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apiserver/pkg/admission"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/store"
)

// A collection is deleted in commits of this many objects, several at a time.
const (
	deleteBatch   = 256
	deleteWorkers = 8
)

// DeleteCollection deletes what List would return, and returns that. It is not atomic: an error may leave part of it deleted.
func (c *Core) DeleteCollection(ctx context.Context, t Target, opts metav1.DeleteOptions, list ListOptions) (*List, error) {
	if err := c.authorize(ctx, t, "deletecollection", &list); err != nil {
		return nil, err
	}
	if err := t.serves("deletecollection"); err != nil {
		return nil, err
	}
	if t.Resource.Namespaced && t.Namespace == "" { // one request doesn't empty the whole cluster
		return nil, apierrors.NewMethodNotSupported(t.Resource.GVR.GroupResource(), "deletecollection")
	}
	if errs := validation.ValidateDeleteOptions(&opts); len(errs) > 0 {
		return nil, invalidOptions("DeleteOptions", errs)
	}
	l, err := c.list(ctx, t, list)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	work := make(chan []*Object)
	failed := make(chan error, deleteWorkers)
	for range min(deleteWorkers, (len(l.Items)+deleteBatch-1)/deleteBatch) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for batch := range work {
				if err := c.deleteBatch(ctx, t, opts, batch); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	err = nil
	for from := 0; from < len(l.Items) && err == nil; from += deleteBatch {
		select {
		case work <- l.Items[from:min(from+deleteBatch, len(l.Items))]:
		case err = <-failed:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	close(work)
	wg.Wait()
	if err == nil {
		select {
		case err = <-failed:
		default:
		}
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// deleteBatch removes in one commit what can go at once; the rest, and everything if somebody interferes, one by one.
func (c *Core) deleteBatch(ctx context.Context, t Target, opts metav1.DeleteOptions, batch []*Object) error {
	s := t.Resource.stored
	var now []objectcache.Deletion
	var single []*Object
	for _, o := range batch {
		if s.kind.Begin != nil || s.kind.Claims != nil || isDryRun(opts.DryRun) || opts.Preconditions != nil {
			single = append(single, o)
			continue
		}
		if _, _, gone := c.planDelete(ctx, s, o.Object(), opts); !gone {
			single = append(single, o)
			continue
		}
		if err := c.admitDelete(ctx, t, o, &opts); err != nil {
			return err
		}
		now = append(now, objectcache.Deletion{Resource: s.cache, Object: o})
	}
	if len(now) > 0 {
		_, err := c.cache.Delete(ctx, now...)
		var lost *store.ConflictError
		switch {
		case errors.As(err, &lost):
			for _, d := range now {
				single = append(single, d.Object)
			}
		case err != nil:
			return storeError(err)
		}
	}
	return c.deleteEach(ctx, t, opts, single)
}

func (c *Core) admitDelete(ctx context.Context, t Target, o *Object, opts *metav1.DeleteOptions) error {
	if c.mutating == nil && c.validates == nil {
		return nil
	}
	t.Name, t.Namespace = o.Object().GetName(), o.Object().GetNamespace()
	a := c.attributes(ctx, t, nil, o.Object(), t.Name, admission.Delete, opts, isDryRun(opts.DryRun))
	if err := c.admit(ctx, a); err != nil {
		return err
	}
	return c.validateAdmission(ctx, a)
}

// deleteEach deletes one by one, several at a time, since a store makes concurrent commits durable together.
func (c *Core) deleteEach(ctx context.Context, t Target, opts metav1.DeleteOptions, objs []*Object) error {
	const parallel = 32
	var wg sync.WaitGroup
	errs := make(chan error, len(objs))
	sem := make(chan struct{}, parallel)
	for _, o := range objs {
		one := t
		one.Name, one.Namespace = o.Object().GetName(), o.Object().GetNamespace()
		sem <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() { <-sem; wg.Done() }()
			if _, _, err := c.delete(ctx, one, opts); err != nil && !apierrors.IsNotFound(err) {
				errs <- err
			}
		}()
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
