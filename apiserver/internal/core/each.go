package core

import (
	"cmp"
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/store"
)

// Creation is one of CreateEach.
type Creation struct {
	Namespace, Name string
	Object          client.Object // belongs to the Core
}

// CreateEach creates several of one virtual resource or subresource of r, in this order, with an error or nil for each: each is authorized,
// admitted and validated as a Create by itself, and is nothing to the others.
func (c *Core) CreateEach(ctx context.Context, r *Resource, subresource string, creations []Creation, opts metav1.CreateOptions) []error {
	errs := make([]error, len(creations))
	fail := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	if errs := validation.ValidateCreateOptions(&opts); len(errs) > 0 {
		return fail(invalidOptions("CreateOptions", errs))
	}
	if err := c.WaitReady(ctx); err != nil {
		return fail(err)
	}
	if err := c.Sync(ctx); err != nil {
		return fail(err)
	}
	var v *kind.Virtual
	each := make([]kind.Creation, 0, len(creations))
	of := make([]int, 0, len(creations)) // of each, which creation
	for i, cr := range creations {
		t := Target{Resource: r, Subresource: subresource, Namespace: cr.Namespace, Name: cr.Name}
		// A rule may allow single names, an authorizer decide by whatever it likes: each is asked for.
		if errs[i] = c.authorize(ctx, t, "create", nil); errs[i] != nil {
			continue
		}
		if errs[i] = t.serves("create"); errs[i] != nil {
			continue
		}
		admitted, err := c.admitVirtual(ctx, t, cr.Object, &opts)
		if err == nil && admitted.CreateEach == nil {
			err = apierrors.NewMethodNotSupported(r.GVR.GroupResource(), "create several of")
		}
		if errs[i] = err; err != nil {
			continue
		}
		v = admitted
		each, of = append(each, kind.Creation(cr)), append(of, i)
	}
	if len(each) > 0 {
		for i, err := range v.CreateEach(kind.WithAccess(ctx, c.access), each, isDryRun(opts.DryRun)) {
			errs[of[i]] = err
		}
	}
	return errs
}

// mutateEach makes mutations, in order and each by itself, that have no error yet. The first try of all is committed together; those for which it isn't
// enough go on alone.
func (c *Core) mutateEach(ctx context.Context, ms []*mutation, errs []error) {
	type try struct {
		i   int
		cur *Object
		st  *staged
	}
	var tries, failed []try
	var writes []objectcache.Write
	seen := map[string]bool{}
	for i, m := range ms {
		if errs[i] != nil {
			continue
		}
		s := m.t.Resource.stored
		cur := s.cache.Get(m.key)
		if cur == nil || seen[m.key] {
			failed = append(failed, try{i: i, cur: cur})
			errs[i] = errTryAgain
			continue
		}
		seen[m.key] = true
		st, _, err := c.stage(ctx, m, cur)
		var w objectcache.Write
		if st != nil {
			if w, err = c.write(s, m.key, st.value, store.At(cur.Revision()), st.claims); err != nil {
				st.done(false)
			}
		}
		switch errs[i] = err; {
		case err != nil:
			failed = append(failed, try{i: i, cur: cur})
		case st != nil:
			tries = append(tries, try{i, cur, st})
			writes = append(writes, w)
		}
	}
	if len(writes) > 0 {
		_, answers := c.cache.PutEach(ctx, writes)
		for n, t := range tries {
			if errs[t.i] = c.committed(ctx, ms[t.i], t.st, commitError(answers[n])); errs[t.i] != nil {
				failed = append(failed, t)
			}
		}
	}
	slices.SortFunc(failed, func(a, b try) int { return cmp.Compare(a.i, b.i) })
	for _, t := range failed {
		_, _, errs[t.i] = c.retry(ctx, ms[t.i], t.cur, errs[t.i])
	}
}
