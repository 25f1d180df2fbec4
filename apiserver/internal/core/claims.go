package core

import (
	"context"
	"errors"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/store"
)

// Claims of objects (Kind.Claims) are keys below root + "claims/" whose value is the holder: its resource's prefix and key. They are written in the
// transaction that writes the holder, so two servers on one store cannot give one thing to two objects. kube-apiserver ignores them.
const (
	claimPrefix   = "claims/"
	claimAttempts = 16
)

// errClaimed says that another object has what this one claims.
var errClaimed = errors.New("core: claimed by another object")

// claimOps returns what a commit of obj (nil: its removal) in place of old (nil: a creation) does to claims. The
// error errClaimed means that a claim is another object's.
func (c *Core) claimOps(ctx context.Context, s *stored, key string, obj, old client.Object) ([]store.Op, error) {
	if s.kind.Claims == nil {
		return nil, nil
	}
	var now, before []string
	if obj != nil {
		now = s.kind.Claims(obj)
	}
	if old != nil {
		before = s.kind.Claims(old)
	}
	holder := s.prefix() + "/" + key
	var ops []store.Op
	for _, claim := range now {
		if slices.Contains(before, claim) {
			continue
		}
		full := c.opts.KeyPrefix + claimPrefix + claim
		cond, err := c.claimable(ctx, s, full, claim, holder)
		if err != nil {
			return nil, err
		}
		ops = append(ops, store.Put(full, []byte(holder), cond))
	}
	for _, claim := range before {
		if slices.Contains(now, claim) {
			continue
		}
		full := c.opts.KeyPrefix + claimPrefix + claim
		res, err := c.opts.Store.Get(ctx, full, 0)
		if err != nil {
			return nil, storeError(err)
		}
		if res.KV != nil && string(res.KV.Value) == holder {
			ops = append(ops, store.Delete(full, store.At(res.KV.ModRevision)))
		}
	}
	return ops, nil
}

// claimable returns the condition under which holder may take a claim: that it is free, or as it was seen when
// whoever had it was gone or had let it go (written by a server that knows no claims).
func (c *Core) claimable(ctx context.Context, s *stored, full, claim, holder string) (store.Condition, error) {
	res, err := c.opts.Store.Get(ctx, full, 0)
	if err != nil {
		return store.Condition{}, storeError(err)
	}
	if res.KV == nil {
		return store.Absent(), nil
	}
	at := store.At(res.KV.ModRevision)
	if string(res.KV.Value) == holder {
		return at, nil
	}
	key, same := strings.CutPrefix(string(res.KV.Value), s.prefix()+"/")
	if !same {
		return store.Condition{}, errClaimed
	}
	if err := c.Sync(ctx); err != nil {
		return store.Condition{}, err
	}
	if o := s.cache.Get(key); o != nil && slices.Contains(s.kind.Claims(o.Object()), claim) {
		return store.Condition{}, errClaimed
	}
	return at, nil
}

// lostClaim reports whether a commit failed for a claim and not for the object itself.
func (c *Core) lostClaim(err error) bool {
	var lost *store.ConflictError
	return errors.Is(err, errClaimed) || errors.As(err, &lost) && strings.HasPrefix(lost.Key, c.opts.KeyPrefix+claimPrefix)
}

// claimConflict is the answer when no try found what it claimed free.
func claimConflict(t Target) error {
	return apierrors.NewConflict(t.Resource.GVR.GroupResource(), t.Name, errors.New("what the object claims for itself alone is another object's; please try again"))
}

// prefix is the part of the kind's keys behind the root.
func (s *stored) prefix() string {
	if s.kind.StorePrefix != "" {
		return s.kind.StorePrefix
	}
	return s.kind.Resource
}
