package core

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/store"
)

// ListOptions are metav1.ListOptions with parsed selectors. The zero value selects everything,
// at the newest revision.
type ListOptions struct {
	LabelSelector        labels.Selector // nil selects everything
	FieldSelector        fields.Selector // nil selects everything
	ResourceVersion      string
	ResourceVersionMatch metav1.ResourceVersionMatch
	Limit                int64
	Continue             string
	// The rest is for watches.
	AllowWatchBookmarks bool
	SendInitialEvents   *bool
}

// List is a list at one revision.
type List struct {
	Items    []*Object // shared objects; the slice is the caller's
	Revision int64     // the resourceVersion of the list
	Continue string
	// RemainingItemCount is nil if there are no more or it is not known.
	RemainingItemCount *int64
}

// Get returns an object, or its subresource (status: the object itself; scale: a Scale). Only ResourceVersion of opts
// is read.
func (c *Core) Get(ctx context.Context, t Target, opts metav1.GetOptions) (*Object, error) {
	if err := c.authorize(ctx, t, "get", nil); err != nil {
		return nil, err
	}
	if err := t.serves("get"); err != nil {
		return nil, err
	}
	key, err := t.key()
	if err != nil {
		return nil, err
	}
	rv, err := parseVersion(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	if err := c.freshness(ctx, opts.ResourceVersion, rv); err != nil {
		return nil, err
	}
	o := t.Resource.stored.cache.Get(key)
	if o == nil {
		return nil, apierrors.NewNotFound(t.Resource.GVR.GroupResource(), t.Name)
	}
	if t.Subresource == "scale" {
		return scaleOf(t.Resource, o)
	}
	return o, nil
}

// parseVersion accepts what Kubernetes accepts as resourceVersion of a read.
func parseVersion(rv string) (int64, error) {
	n, err := parseUint(rv)
	if err != nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: resourceVersion: Invalid value: %q: %v", rv, err))
	}
	return n, nil
}

// freshness waits until the cache is as new as a read with this resourceVersion requires.
func (c *Core) freshness(ctx context.Context, text string, rv int64) error {
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	switch {
	case text == "":
		return c.Sync(ctx)
	case rv == 0:
		return nil
	default:
		return c.waitFor(ctx, rv)
	}
}

// Sync waits until the Core has everything that was committed before the call, by whomever.
func (c *Core) Sync(ctx context.Context) error {
	if err := c.cache.Sync(ctx); err != nil {
		return storeError(err)
	}
	return nil
}

// waitFor waits a little for a revision that the client has seen elsewhere.
func (c *Core) waitFor(ctx context.Context, rv int64) error {
	if c.cache.Revision() >= rv {
		return nil
	}
	if err := c.Sync(ctx); err != nil {
		return err
	}
	if c.cache.Revision() >= rv {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := c.cache.Wait(wait, rv)
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return tooLargeVersion(rv, c.cache.Revision())
	}
	return storeError(err)
}

func tooLargeVersion(rv, current int64) error {
	e := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", rv, current), 1)
	e.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return e
}

// List returns objects in key order. t.Name, if set, narrows the list to one.
func (c *Core) List(ctx context.Context, t Target, opts ListOptions) (*List, error) {
	if err := c.authorize(ctx, t, "list", &opts); err != nil {
		return nil, err
	}
	return c.list(ctx, t, opts)
}

func (c *Core) list(ctx context.Context, t Target, opts ListOptions) (*List, error) {
	if err := t.serves("list"); err != nil {
		return nil, err
	}
	p, err := newPredicate(&t, opts)
	if err != nil {
		return nil, err
	}
	rv, err := checkListVersion(opts)
	if err != nil {
		return nil, err
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, err
	}
	cache := t.Resource.stored.cache
	var snap *objectcache.Snapshot
	from := ""
	switch {
	case opts.Continue != "":
		tok, err := decodeContinue(opts.Continue)
		if err != nil {
			return nil, err
		}
		from = p.prefix + tok.StartKey
		if tok.Revision < 0 {
			if err := c.Sync(ctx); err != nil {
				return nil, err
			}
			snap = cache.Snapshot()
			break
		}
		if snap, err = c.snapshotAt(ctx, t.Resource, tok.Revision); isExpired(err) {
			return nil, continueExpired(tok)
		} else if err != nil {
			return nil, err
		}
	case opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact, opts.ResourceVersionMatch == "" && opts.Limit > 0 && rv > 0:
		if err := c.waitFor(ctx, rv); err != nil {
			return nil, err
		}
		if snap, err = c.snapshotAt(ctx, t.Resource, rv); err != nil {
			return nil, err
		}
	default:
		if err := c.freshness(ctx, opts.ResourceVersion, rv); err != nil {
			return nil, err
		}
		if l := c.listIndexed(t, p, opts); l != nil {
			return l, nil
		}
		snap = cache.Snapshot()
	}
	return p.collect(cache, snap, from, opts.Limit), nil
}

// listIndexed answers a list of one object, or of one value of an index; nil if it is not one.
func (c *Core) listIndexed(t Target, p *predicate, opts ListOptions) *List {
	cache := t.Resource.stored.cache
	if opts.Limit > 0 {
		return nil
	}
	l := &List{}
	if p.name != "" && (p.namespace != "" || !t.Resource.Namespaced) {
		l.Revision = c.cache.Revision()
		if o := cache.Get(p.prefix + p.name); o != nil {
			l.Revision = max(l.Revision, o.Revision())
			if p.matches(o) {
				l.Items = []*Object{o}
			}
		}
		return l
	}
	if p.index == "" {
		return nil
	}
	var all []*Object
	all, l.Revision = cache.ByIndex(p.index, p.indexValue)
	l.Items = all[:0]
	for _, o := range all {
		if p.matches(o) {
			l.Items = append(l.Items, o)
		}
	}
	return l
}

func (p *predicate) collect(cache *objectcache.Resource, snap *objectcache.Snapshot, from string, limit int64) *List {
	l := &List{Revision: snap.Revision}
	if p.everything() && limit == 0 && p.prefix == "" {
		l.Items = make([]*Object, 0, snap.Len())
	}
	more := false
	snap.Ascend(p.prefix, from, func(o *Object) bool {
		if limit > 0 && int64(len(l.Items)) == limit {
			more = true
			return false
		}
		if p.matches(o) {
			l.Items = append(l.Items, o)
		}
		return true
	})
	if !more {
		return l
	}
	last := l.Items[len(l.Items)-1].Key()
	l.Continue = encodeContinue(last[len(p.prefix):]+"\x00", l.Revision)
	if p.everything() {
		n := int64(0)
		snap.Ascend(p.prefix, last+"\x00", func(*Object) bool { n++; return true })
		l.RemainingItemCount = &n
	}
	cache.Keep(snap)
	return l
}

// snapshotAt returns an old state from the cache, or else from the store.
func (c *Core) snapshotAt(ctx context.Context, r *Resource, rev int64) (*objectcache.Snapshot, error) {
	if s, ok := r.stored.cache.SnapshotAt(rev); ok {
		return s, nil
	}
	s, err := r.stored.cache.Historic(ctx, rev)
	if errors.Is(err, store.ErrCompacted) {
		return nil, apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	}
	if err != nil {
		return nil, storeError(err)
	}
	return s, nil
}

func isExpired(err error) bool { return err != nil && apierrors.IsResourceExpired(err) }

// checkListVersion is the validation of Kubernetes for resourceVersion, resourceVersionMatch and continue of a list.
func checkListVersion(o ListOptions) (int64, error) {
	if errs := validateListOptions(o, false); len(errs) > 0 {
		return 0, invalidOptions("ListOptions", errs)
	}
	rv, err := parseVersion(o.ResourceVersion)
	if err != nil {
		return 0, err
	}
	if o.Continue != "" && rv != 0 {
		return 0, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	}
	return rv, nil
}

// continueToken has the form of kube-apiserver's.
type continueToken struct {
	APIVersion string `json:"v"`
	Revision   int64  `json:"rv"`
	StartKey   string `json:"start"`
}

func encodeContinue(start string, rev int64) string {
	data, _ := json.Marshal(continueToken{APIVersion: "meta.k8s.io/v1", Revision: rev, StartKey: start})
	return base64.RawURLEncoding.EncodeToString(data)
}

func decodeContinue(s string) (continueToken, error) {
	var t continueToken
	bad := func(reason string) (continueToken, error) {
		return t, apierrors.NewBadRequest("invalid continue token: continue key is not valid: " + reason)
	}
	data, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return bad(err.Error())
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return bad(err.Error())
	}
	switch {
	case t.APIVersion != "meta.k8s.io/v1":
		return bad("server does not recognize this encoded version " + t.APIVersion)
	case t.Revision == 0:
		return bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	case t.StartKey == "":
		return bad("encoded start key empty (version meta.k8s.io/v1)")
	}
	if k := "/" + strings.TrimPrefix(t.StartKey, "/"); path.Clean(k) != k {
		return bad(t.StartKey)
	}
	t.StartKey = strings.TrimPrefix(t.StartKey, "/")
	return t, nil
}

// continueExpired offers to go on without consistency.
func continueExpired(t continueToken) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old " +
		"to display a consistent list result. You can start a new list without " +
		"the continue parameter, or use the continue token in this response to " +
		"retrieve the remainder of the results. Continuing with the provided " +
		"token results in an inconsistent list - objects that were created, " +
		"modified, or deleted between the time the first chunk was returned " +
		"and now may show up in the list.")
	err.ErrStatus.ListMeta.Continue = encodeContinue(t.StartKey, -1)
	return err
}
