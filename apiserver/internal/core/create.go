package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/store"
)

// nameAttempts is how often a generated name is tried; Kubernetes tries as often.
const nameAttempts = 8

// Create commits obj, which from then on belongs to the Core. For virtual resources and subresources the result holds whatever they answer.
func (c *Core) Create(ctx context.Context, t Target, obj runtime.Object, opts metav1.CreateOptions) (*Object, error) {
	if err := c.authorize(ctx, t, "create", nil); err != nil {
		return nil, err
	}
	if err := t.serves("create"); err != nil {
		return nil, err
	}
	if errs := validation.ValidateCreateOptions(&opts); len(errs) > 0 {
		return nil, invalidOptions("CreateOptions", errs)
	}
	o, ok := obj.(client.Object)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%T is not an object with metadata", obj))
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, err
	}
	if t.Resource.Virtual != nil || t.Subresource != "" {
		return c.createVirtual(ctx, t, o, opts)
	}
	o.GetObjectKind().SetGroupVersionKind(t.Resource.GVK)
	hub, err := t.Resource.toHub(o)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	s := t.Resource.stored
	if s.kind.Default != nil {
		s.kind.Default(hub)
	}
	if rv := hub.GetResourceVersion(); rv != "" && rv != "0" {
		return nil, errors.New("resourceVersion should not be set on objects to be created")
	}
	wipeSystemFields(hub)
	if t.Resource.Namespaced && t.Namespace == "" {
		return nil, apierrors.NewBadRequest("an empty namespace may not be set during creation")
	}
	if err := matchNamespace(t, hub); err != nil {
		return nil, err
	}
	dedupOwners(ctx, hub, duplicateOwners)
	if !untracked(ctx) {
		c.managed.created(t.Resource, hub, c.managerOf(ctx, opts.FieldManager))
	}
	return c.finishCreate(ctx, t, hub, &opts)
}

// finishCreate is a creation from mutating admission on; also of updates and applies that create.
func (c *Core) finishCreate(ctx context.Context, t Target, obj client.Object, opts *metav1.CreateOptions) (*Object, error) {
	dry := isDryRun(opts.DryRun)
	if err := c.admit(ctx, c.attributes(ctx, t, obj, nil, obj.GetName(), admission.Create, opts, dry)); err != nil {
		return nil, err
	}
	dedupOwners(ctx, obj, duplicateOwnersAdmitted)
	if obj.GetName() != "" || obj.GetGenerateName() == "" {
		return c.tryCreate(ctx, t, obj, opts, dry)
	}
	for attempt := 1; ; attempt++ {
		obj.SetName(generateName(obj.GetGenerateName()))
		o, err := c.tryCreate(ctx, t, obj, opts, dry)
		if err == nil || !apierrors.IsAlreadyExists(err) {
			return o, err
		}
		if attempt == nameAttempts {
			return nil, apierrors.NewGenerateNameConflict(t.Resource.GVR.GroupResource(), obj.GetName(), 1)
		}
	}
}

func generateName(base string) string {
	const random, longest = 5, 63
	if len(base) > longest-random {
		base = base[:longest-random]
	}
	return base + utilrand.String(random)
}

func (c *Core) tryCreate(ctx context.Context, t Target, obj client.Object, opts *metav1.CreateOptions, dry bool) (*Object, error) {
	s := t.Resource.stored
	c.fillSystemFields(obj)
	s.prepareCreate(ctx, obj)
	if err := s.validateCreate(ctx, obj); err != nil {
		return nil, err
	}
	if err := s.validateVersion(ctx, t.Resource, obj, nil); err != nil {
		return nil, err
	}
	if s.kind.Warnings != nil {
		addWarnings(ctx, s.kind.Warnings(ctx, obj, nil))
	}
	if err := c.validateAdmission(ctx, c.attributes(ctx, t, obj, nil, obj.GetName(), admission.Create, opts, dry)); err != nil {
		return nil, err
	}
	t.Name = obj.GetName()
	key, err := t.key()
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		o, err := c.commitCreate(ctx, t, key, obj, dry)
		if err == nil || !c.lostClaim(err) {
			return o, err
		}
		if attempt == claimAttempts {
			return nil, claimConflict(t)
		}
	}
}

// commitCreate is a creation from Kind.Begin on.
func (c *Core) commitCreate(ctx context.Context, t Target, key string, obj client.Object, dry bool) (*Object, error) {
	s := t.Resource.stored
	done, err := c.begin(ctx, s, obj, nil, dry)
	if err != nil {
		return nil, err
	}
	if dry {
		defer done(false)
		if err := c.Sync(ctx); err != nil {
			return nil, err
		}
		if old := s.cache.Get(key); old != nil {
			return nil, alreadyExists(t, old)
		}
		obj.SetResourceVersion("")
		return objectcache.Transient(obj), nil
	}
	claims, err := c.claimOps(ctx, s, key, obj, nil)
	if err != nil {
		done(false)
		return nil, err
	}
	o, err := c.put(ctx, s, key, obj, store.Absent(), claims...)
	done(err == nil)
	var lost *store.ConflictError
	if errors.As(err, &lost) && !c.lostClaim(err) {
		return nil, c.alreadyExistsIn(ctx, t, key)
	}
	return o, err
}

func (c *Core) alreadyExistsIn(ctx context.Context, t Target, key string) error {
	if err := c.Sync(ctx); err != nil {
		return err
	}
	return alreadyExists(t, t.Resource.stored.cache.Get(key))
}

func alreadyExists(t Target, old *Object) error {
	err := apierrors.NewAlreadyExists(t.Resource.GVR.GroupResource(), t.Name)
	if old != nil && old.Object().GetDeletionTimestamp() != nil {
		err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
	}
	return err
}

// begin calls Kind.Begin; the result is to be called exactly once.
func (c *Core) begin(ctx context.Context, s *stored, obj, old client.Object, dry bool) (func(bool), error) {
	if s.kind.Begin == nil {
		return func(bool) {}, nil
	}
	done, err := s.kind.Begin(kind.WithAccess(ctx, c.access), obj, old, dry)
	if err != nil {
		return nil, err
	}
	if done == nil {
		done = func(bool) {}
	}
	return done, nil
}

// put encodes and commits. A lost race is a *store.ConflictError, everything else an error of the API.
func (c *Core) put(ctx context.Context, s *stored, key string, obj client.Object, cond store.Condition, claims ...store.Op) (*Object, error) {
	value, err := s.codec.encode(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return c.putEncoded(ctx, s, key, value, cond, claims...)
}

func (c *Core) putEncoded(ctx context.Context, s *stored, key string, value []byte, cond store.Condition, claims ...store.Op) (*Object, error) {
	w, err := c.write(s, key, value, cond, claims)
	if err != nil {
		return nil, err
	}
	o, err := c.cache.Put(ctx, w)
	return o, commitError(err)
}

// write is what is committed for a value.
func (c *Core) write(s *stored, key string, value []byte, cond store.Condition, claims []store.Op) (w objectcache.Write, err error) {
	if len(value) > c.opts.MaxObjectBytes {
		return w, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", c.opts.MaxObjectBytes))
	}
	// What is shared is what a reader of the store would see: whole seconds, no empty lists.
	shared, err := s.codec.Decode(value)
	if err != nil {
		return w, apierrors.NewInternalError(err)
	}
	return objectcache.Write{Resource: s.cache, Key: key, Object: shared, Value: value, If: cond, Extra: claims}, nil
}

// commitError leaves a lost race as it is and makes everything else an error of the API.
func commitError(err error) error {
	var lost *store.ConflictError
	if err == nil || errors.As(err, &lost) {
		return err
	}
	return storeError(err)
}

// managerOf names the field manager of a request.
func (c *Core) managerOf(ctx context.Context, name string) string {
	if name != "" {
		return name
	}
	ua, _ := ctx.Value(userAgentKey{}).(string)
	ua, _, _ = strings.Cut(ua, "/")
	var b strings.Builder
	for _, r := range ua {
		if !unicode.IsPrint(r) {
			continue
		}
		if b.Len()+utf8.RuneLen(r) > validation.FieldManagerMaxLength {
			break
		}
		b.WriteRune(r)
	}
	if b.Len() == 0 {
		return "unknown"
	}
	return b.String()
}

// createVirtual answers a creation that stores nothing itself.
func (c *Core) createVirtual(ctx context.Context, t Target, obj client.Object, opts metav1.CreateOptions) (*Object, error) {
	if t.Subresource != "" {
		if err := c.Sync(ctx); err != nil {
			return nil, err
		}
	}
	v, err := c.admitVirtual(ctx, t, obj, &opts)
	if err != nil {
		return nil, err
	}
	out, err := v.Create(kind.WithAccess(ctx, c.access), t.Namespace, t.Name, obj, isDryRun(opts.DryRun))
	if err != nil {
		return nil, err
	}
	if gvk := out.GetObjectKind().GroupVersionKind(); gvk.Empty() {
		if gvks, _, err := c.scheme.ObjectKinds(out); err == nil && len(gvks) > 0 {
			out.GetObjectKind().SetGroupVersionKind(gvks[0])
		}
	}
	if st, ok := out.(*metav1.Status); ok {
		st.GetObjectKind().SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("Status"))
		st.APIVersion = "v1"
	}
	return objectcache.Transient(out), nil
}

// admitVirtual finds what answers a creation, and readies the object for it.
func (c *Core) admitVirtual(ctx context.Context, t Target, obj client.Object, opts *metav1.CreateOptions) (*kind.Virtual, error) {
	v := t.Resource.Virtual
	if t.Subresource != "" {
		s, ok := t.Resource.Subresource(t.Subresource)
		if !ok || s.Virtual == nil {
			return nil, errNotFoundPath()
		}
		v = s.Virtual
		key, err := t.key()
		if err != nil {
			return nil, err
		}
		if t.Resource.stored.cache.Get(key) == nil {
			return nil, notFound(t)
		}
	}
	obj.GetObjectKind().SetGroupVersionKind(v.GVK)
	if v.Namespaced || t.Subresource != "" {
		if err := matchNamespace(t, obj); err != nil {
			return nil, err
		}
	}
	if v.Default != nil {
		v.Default(obj)
	}
	a := c.attributes(ctx, t, obj, nil, t.Name, admission.Create, opts, isDryRun(opts.DryRun))
	if err := c.admit(ctx, a); err != nil {
		return nil, err
	}
	if err := c.validateAdmission(ctx, a); err != nil {
		return nil, err
	}
	return v, nil
}
