package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/store"
)

// mutation is one request to change an object, from reading it to committing it, as often as others are faster.
type mutation struct {
	t       Target
	key     string
	sub     *kind.Subresource // nil for the object itself and for scale
	options *metav1.UpdateOptions
	dry     bool
	// build returns the wanted state, which the caller may modify, in the hub version and with managed fields. An
	// empty resourceVersion means whatever there is.
	build func(ctx context.Context, cur *Object) (client.Object, error)
	// create returns the state to create if there is none; nil is NotFound.
	create func(ctx context.Context) (client.Object, error)
	// unconditional says that build's result may have no resourceVersion.
	unconditional bool
	// once says that build must not be called again after its result was used.
	once bool
	// raw leaves out preparation, validation and admission: a change by the server itself.
	raw bool
	// claimed counts the tries that failed because another object had what this one claims.
	claimed int
}

// Update replaces the object, or the part of it that t.Subresource may write; obj belongs to the Core from then on. created reports that
// there was none and the kind allows creation.
func (c *Core) Update(ctx context.Context, t Target, obj runtime.Object, opts metav1.UpdateOptions) (res *Object, created bool, err error) {
	if err := c.authorize(ctx, t, "update", nil); err != nil {
		return nil, false, err
	}
	if err := t.serves("update"); err != nil {
		return nil, false, err
	}
	if errs := validation.ValidateUpdateOptions(&opts); len(errs) > 0 {
		return nil, false, invalidOptions("UpdateOptions", errs)
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, false, err
	}
	o, ok := obj.(client.Object)
	if !ok {
		return nil, false, apierrors.NewBadRequest(fmt.Sprintf("%T is not an object with metadata", obj))
	}
	if t.Subresource == "scale" {
		res, err := c.updateScale(ctx, t, o, opts)
		return res, false, err
	}
	m, err := c.newMutation(t, &opts)
	if err != nil {
		return nil, false, err
	}
	s := t.Resource.stored
	o.GetObjectKind().SetGroupVersionKind(t.Resource.GVK)
	hub, err := t.Resource.toHub(o)
	if err != nil {
		return nil, false, apierrors.NewBadRequest(err.Error())
	}
	if s.kind.Default != nil {
		s.kind.Default(hub)
	}
	if err := matchName(t, hub); err != nil {
		return nil, false, err
	}
	dedupOwners(ctx, hub, duplicateOwners)
	if rv, err := parseUint(hub.GetResourceVersion()); err != nil {
		return nil, false, err // as kube-apiserver: a plain message and the code 500
	} else if rv == 0 {
		hub.SetResourceVersion("")
	}
	uid, rv := hub.GetUID(), hub.GetResourceVersion()
	manager := c.managerOf(ctx, opts.FieldManager)
	m.once = rv != ""
	m.unconditional = s.kind.AllowUnconditionalUpdate
	m.build = func(ctx context.Context, cur *Object) (client.Object, error) {
		if uid != "" && uid != cur.Object().GetUID() {
			return nil, apierrors.NewConflict(t.Resource.GVR.GroupResource(), t.Name, fmt.Errorf(
				"Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, cur.Object().GetUID()))
		}
		if rv != "" && rv != cur.ResourceVersion() {
			return nil, conflict(t.Resource, t.Name)
		}
		out := hub
		if !m.once {
			out = hub.DeepCopyObject().(client.Object)
		}
		c.managed.updated(t.Resource, t.Subresource, cur, out, manager)
		return out, nil
	}
	if s.kind.AllowCreateOnUpdate && t.Subresource == "" {
		m.create = func(ctx context.Context) (client.Object, error) {
			if uid != "" {
				return nil, apierrors.NewConflict(t.Resource.GVR.GroupResource(), t.Name, fmt.Errorf(
					"Precondition failed: UID in precondition: %v, UID in object meta: ", uid))
			}
			out := hub.DeepCopyObject().(client.Object)
			out.SetResourceVersion("")
			c.managed.created(t.Resource, out, manager)
			return out, nil
		}
	}
	return c.mutate(ctx, m)
}

func (c *Core) newMutation(t Target, opts *metav1.UpdateOptions) (*mutation, error) {
	key, err := t.key()
	if err != nil {
		return nil, err
	}
	m := &mutation{t: t, key: key, options: opts, dry: isDryRun(opts.DryRun)}
	switch k := t.Resource.Kind; t.Subresource {
	case "", "scale":
	case "status":
		m.sub = k.Status
	default:
		m.sub = k.Subresources[t.Subresource]
	}
	return m, nil
}

var errTryAgain = errors.New("core: somebody else was faster")

// mutate tries until nobody else was faster. The first try trusts the cache without asking the store
// whether it is up to date; a failure counts only if it is.
func (c *Core) mutate(ctx context.Context, m *mutation) (*Object, bool, error) {
	cur := m.t.Resource.stored.cache.Get(m.key)
	res, created, err := c.try(ctx, m, cur)
	if err != nil {
		return c.retry(ctx, m, cur, err)
	}
	return res, created, nil
}

// retry goes on after a first try, from cur, that failed.
func (c *Core) retry(ctx context.Context, m *mutation, cur *Object, err error) (*Object, bool, error) {
	s := m.t.Resource.stored
	for fresh := false; ; fresh = true {
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		again := errors.Is(err, errTryAgain)
		if fresh && !again {
			return nil, false, err
		}
		if serr := c.Sync(ctx); serr != nil {
			return nil, false, serr
		}
		now := s.cache.Get(m.key)
		if !again && now == cur {
			return nil, false, err
		}
		cur = now
		var res *Object
		var created bool
		if res, created, err = c.try(ctx, m, cur); err == nil {
			return res, created, nil
		}
	}
}

// staged is a mutation that has only to be committed.
type staged struct {
	value  []byte
	claims []store.Op
	done   func(committed bool)
}

func (c *Core) try(ctx context.Context, m *mutation, cur *Object) (*Object, bool, error) {
	if cur == nil {
		return c.tryCreateOnUpdate(ctx, m)
	}
	st, res, err := c.stage(ctx, m, cur)
	if st == nil {
		return res, false, err
	}
	res, err = c.putEncoded(ctx, m.t.Resource.stored, m.key, st.value, store.At(cur.Revision()), st.claims...)
	err = c.committed(ctx, m, st, err)
	return res, false, err
}

// stage prepares the change of cur. Without something to commit it returns what there is instead, or an error.
func (c *Core) stage(ctx context.Context, m *mutation, cur *Object) (*staged, *Object, error) {
	s := m.t.Resource.stored
	old := cur.Object()
	obj, err := m.build(ctx, cur)
	if err != nil {
		return nil, nil, err
	}
	switch rv := obj.GetResourceVersion(); {
	case rv == "" && !m.unconditional:
		return nil, nil, apierrors.NewInvalid(schema.GroupKind{Group: m.t.Resource.GVR.Group, Kind: m.t.Resource.GVR.Resource}, m.t.Name,
			field.ErrorList{field.Invalid(field.NewPath("metadata", "resourceVersion"), uint64(0), "must be specified for an update")})
	case rv != "" && rv != cur.ResourceVersion():
		return nil, nil, conflict(m.t.Resource, m.t.Name)
	}
	obj.SetResourceVersion(cur.ResourceVersion())
	if !m.raw {
		if err := c.prepareAndValidate(ctx, m, obj, old); err != nil {
			return nil, nil, err
		}
	} else {
		keepSystemFields(obj, old)
	}

	value, same, err := c.encodeUpdate(s, obj, cur)
	if err != nil {
		return nil, nil, err
	}
	if !m.raw {
		a := c.attributes(ctx, m.t, obj, old, m.t.Name, admission.Update, m.options, m.dry)
		if err := c.validateAdmission(ctx, a); err != nil {
			return nil, nil, err
		}
	}
	if goneByUpdate(s, obj, old) {
		gone, err := c.removeByUpdate(ctx, m, cur, obj)
		return nil, gone, err
	}
	if same {
		return nil, cur, nil
	}
	done, err := c.begin(ctx, s, obj, old, m.dry)
	if err != nil {
		return nil, nil, err
	}
	if m.dry {
		done(false)
		obj.SetResourceVersion(cur.ResourceVersion())
		return nil, objectcache.Transient(obj), nil
	}
	if s.kind.Begin != nil { // it may have changed obj
		if value, err = s.codec.encode(obj); err != nil {
			done(false)
			return nil, nil, apierrors.NewInternalError(err)
		}
	}
	claims, err := c.claimOps(ctx, s, m.key, obj, old)
	if err != nil {
		done(false)
		return nil, nil, c.claimedIn(m, err)
	}
	return &staged{value, claims, done}, nil, nil
}

// committed makes of a commit's answer that of the try.
func (c *Core) committed(ctx context.Context, m *mutation, st *staged, err error) error {
	st.done(err == nil)
	if c.lostClaim(err) {
		return c.claimedIn(m, err)
	}
	var lost *store.ConflictError
	if errors.As(err, &lost) {
		if m.once {
			return c.lostRace(ctx, m)
		}
		return errTryAgain
	}
	return err
}

// claimedIn starts an update again for which a claim was not free, a bounded number of times.
func (c *Core) claimedIn(m *mutation, err error) error {
	if !c.lostClaim(err) {
		return err
	}
	if m.claimed++; m.once || m.claimed == claimAttempts {
		return claimConflict(m.t)
	}
	return errTryAgain
}

// lostRace is the answer to a conditional update that came second.
func (c *Core) lostRace(ctx context.Context, m *mutation) error {
	if err := c.Sync(ctx); err != nil {
		return err
	}
	if m.t.Resource.stored.cache.Get(m.key) == nil {
		return notFound(m.t)
	}
	return conflict(m.t.Resource, m.t.Name)
}

func (c *Core) prepareAndValidate(ctx context.Context, m *mutation, obj, old client.Object) error {
	s := m.t.Resource.stored
	if err := c.admit(ctx, c.attributes(ctx, m.t, obj, old, m.t.Name, admission.Update, m.options, m.dry)); err != nil {
		return err
	}
	dedupOwners(ctx, obj, duplicateOwnersAdmitted)
	if err := matchNamespace(m.t, obj); err != nil {
		return err
	}
	obj.SetGeneration(old.GetGeneration())
	if m.t.Subresource == "" || m.t.Subresource == "scale" {
		s.prepareUpdate(ctx, obj, old)
	} else {
		s.prepareSubresource(ctx, m.t.Subresource, m.sub, obj, old)
	}
	keepSystemFields(obj, old)
	if err := s.validateUpdate(ctx, m.sub, obj, old); err != nil {
		return err
	}
	if m.sub == nil {
		if err := s.validateVersion(ctx, m.t.Resource, obj, old); err != nil {
			return err
		}
	}
	warn := s.kind.Warnings
	if m.sub != nil {
		warn = m.sub.Warnings
	}
	if warn != nil {
		addWarnings(ctx, warn(ctx, obj, old))
	}
	return nil
}

func (c *Core) tryCreateOnUpdate(ctx context.Context, m *mutation) (*Object, bool, error) {
	if m.create == nil {
		return nil, false, notFound(m.t)
	}
	// The cache may be behind, and a creation that fails is not worth its admission.
	if err := c.Sync(ctx); err != nil {
		return nil, false, err
	}
	if m.t.Resource.stored.cache.Get(m.key) != nil {
		return nil, false, errTryAgain
	}
	if err := c.authorize(ctx, m.t, "create", nil); err != nil {
		return nil, false, err
	}
	obj, err := m.create(ctx)
	if err != nil {
		return nil, false, err
	}
	if err := matchName(m.t, obj); err != nil {
		return nil, false, err
	}
	wipeSystemFields(obj)
	opts := &metav1.CreateOptions{DryRun: m.options.DryRun, FieldManager: m.options.FieldManager, FieldValidation: m.options.FieldValidation}
	res, err := c.finishCreate(ctx, m.t, obj, opts)
	if apierrors.IsAlreadyExists(err) {
		return nil, false, errTryAgain
	}
	return res, err == nil, err
}

// encodeUpdate returns what is to be stored, and whether that is what is stored already: managed fields whose
// times alone have changed don't count.
func (c *Core) encodeUpdate(s *stored, obj client.Object, cur *Object) (value []byte, same bool, err error) {
	rv := obj.GetResourceVersion()
	defer obj.SetResourceVersion(rv)
	mf, oldMF := obj.GetManagedFields(), cur.Object().GetManagedFields()
	if timesAlone(mf, oldMF) {
		obj.SetManagedFields(oldMF)
		if value, err = s.codec.encode(obj); err == nil && bytes.Equal(value, cur.Value()) {
			return value, true, nil
		}
		obj.SetManagedFields(mf)
	}
	if value, err = s.codec.encode(obj); err != nil {
		return nil, false, apierrors.NewInternalError(err)
	}
	return value, bytes.Equal(value, cur.Value()), nil
}

// timesAlone reports whether managed fields differ, but in nothing than times.
func timesAlone(a, b []metav1.ManagedFieldsEntry) bool {
	return len(a) > 0 && sameEntries(a, b, false) && !sameEntries(a, b, true)
}

// goneByUpdate reports whether an update took away what kept an object that is being deleted.
func goneByUpdate(s *stored, obj, old client.Object) bool {
	if len(obj.GetFinalizers()) > 0 || old.GetDeletionTimestamp() == nil {
		return false
	}
	if g := old.GetDeletionGracePeriodSeconds(); g != nil && *g != 0 {
		return false
	}
	return s.kind.HoldsRemoval == nil || !s.kind.HoldsRemoval(obj)
}

// removeByUpdate removes the object; the answer is what the update asked for.
func (c *Core) removeByUpdate(ctx context.Context, m *mutation, cur *Object, obj client.Object) (*Object, error) {
	s := m.t.Resource.stored
	obj.SetResourceVersion(cur.ResourceVersion())
	if m.dry {
		return objectcache.Transient(obj), nil
	}
	if _, err := c.remove(ctx, s, cur); err != nil {
		var lost *store.ConflictError
		if errors.As(err, &lost) {
			return nil, errTryAgain
		}
		return nil, err
	}
	return objectcache.Transient(obj), nil
}

// remove deletes cur's key if it still is as cur says. A lost race is a *store.ConflictError.
func (c *Core) remove(ctx context.Context, s *stored, cur *Object) (*Object, error) {
	done, err := c.begin(ctx, s, nil, cur.Object(), false)
	if err != nil {
		return nil, err
	}
	claims, err := c.claimOps(ctx, s, cur.Key(), nil, cur.Object())
	if err != nil {
		done(false)
		return nil, err
	}
	gone, err := c.cache.Delete(ctx, objectcache.Deletion{Resource: s.cache, Object: cur, Extra: claims})
	done(err == nil)
	if err != nil {
		var lost *store.ConflictError
		if errors.As(err, &lost) {
			return nil, err
		}
		return nil, storeError(err)
	}
	return gone[0], nil
}
