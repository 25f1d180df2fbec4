package core

import (
	"bytes"
	"reflect"
	"sort"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/keelson/keelson/apiserver/internal/core/fieldset"
)

// maxUpdateManagers is beyond what number of update entries apimachinery merges the oldest ones.
const maxUpdateManagers = 10

// fastTrack does what a FieldManager does for an update, for typed objects in the hub version whose managed fields are as this server
// makes them. Everything else it leaves to the FieldManager.
type fastTrack struct {
	mu    sync.RWMutex
	plans map[managerKey]*fieldset.Plan // nil: there can be none

	setsMu sync.RWMutex
	sets   map[string]*fieldpath.Set // decoded FieldsV1, which are the same for many objects
}

const maxDecodedSets = 4096

func newFastTrack() *fastTrack {
	return &fastTrack{plans: map[managerKey]*fieldset.Plan{}, sets: map[string]*fieldpath.Set{}}
}

func (f *fieldManagers) plan(r *Resource, sub string) *fieldset.Plan {
	key := managerKey{r, sub}
	t := f.fast
	t.mu.RLock()
	p, ok := t.plans[key]
	t.mu.RUnlock()
	if ok {
		return p
	}
	if r.Version == nil && !r.isUnstructured() {
		p = f.compile(r, sub)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.plans[key] = p
	return p
}

func (f *fieldManagers) compile(r *Resource, sub string) *fieldset.Plan {
	obj, err := newObject(r.scheme, r.GVK)
	if err != nil {
		return nil
	}
	tv, err := f.types().ObjectToTyped(obj)
	if err != nil {
		return nil
	}
	var skip []string
	switch {
	case sub == "status":
		skip = []string{"spec", "metadata"}
	case sub == "" && r.Kind.Status != nil:
		skip = []string{"status"}
	}
	p, err := fieldset.New(reflect.TypeOf(obj).Elem(), tv.Schema(), tv.TypeRef(), skip...)
	if err != nil {
		f.core.opts.Logger.V(1).Info("managed fields take the slow way", "kind", r.GVK.String(), "reason", err.Error())
		return nil
	}
	return p
}

// track sets obj's managed fields; it reports false, and has done nothing, if it cannot.
func (f *fieldManagers) track(r *Resource, sub string, old, obj client.Object, manager string) bool {
	plan := f.plan(r, sub)
	if plan == nil || reflect.TypeOf(old) != reflect.TypeOf(obj) {
		return false
	}
	mine := metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: r.GVK.GroupVersion().String(),
		FieldsType: "FieldsV1", Subresource: sub,
	}
	if old.GetUID() == "" {
		return f.trackNew(plan, obj, mine)
	}
	entries, asked := old.GetManagedFields(), obj.GetManagedFields()
	if sub == "" && asked != nil && !sameEntries(asked, entries, true) {
		return false
	}
	if len(entries) == 0 {
		obj.SetManagedFields(nil)
		return true
	}
	for i := range entries {
		if e := &entries[i]; e.APIVersion != mine.APIVersion || e.FieldsType != "FieldsV1" || e.FieldsV1 == nil {
			return false
		}
	}
	diff, ok := plan.Compare(old, obj)
	if !ok {
		return false
	}
	if diff.Set == nil && diff.Removed == nil {
		obj.SetManagedFields(append([]metav1.ManagedFieldsEntry(nil), entries...))
		return true
	}
	now := f.core.now()
	out, ok := f.fast.moved(entries, mine, diff, &now)
	if !ok {
		return false
	}
	obj.SetManagedFields(out)
	return true
}

func (f *fieldManagers) trackNew(plan *fieldset.Plan, obj client.Object, mine metav1.ManagedFieldsEntry) bool {
	if obj.GetManagedFields() != nil {
		return false
	}
	fields, ok := plan.Created(obj)
	if !ok {
		return false
	}
	if fields != nil {
		now := f.core.now()
		mine.Time, mine.FieldsV1 = &now, metav1.NewFieldsV1(string(fields))
		obj.SetManagedFields([]metav1.ManagedFieldsEntry{mine})
	}
	return true
}

// moved gives what was set to mine, and takes it and what was removed from everybody else.
func (t *fastTrack) moved(entries []metav1.ManagedFieldsEntry, mine metav1.ManagedFieldsEntry, d fieldset.Difference, now *metav1.Time) ([]metav1.ManagedFieldsEntry, bool) {
	out := make([]metav1.ManagedFieldsEntry, 0, len(entries)+1)
	own, updates := d.Set, 0
	for _, e := range entries {
		set, ok := t.decode(e.FieldsV1)
		if !ok {
			return nil, false
		}
		isMine := e.Manager == mine.Manager && e.Operation == mine.Operation && e.Subresource == mine.Subresource
		left := set
		if hasAny(set, d.Removed) {
			left = left.Difference(d.Removed)
		}
		if isMine && d.Set != nil {
			own = left.Union(d.Set)
			if left == set && own.Equals(set) {
				mine.FieldsV1 = e.FieldsV1
			}
			continue
		}
		if hasAny(left, d.Set) {
			left = left.Difference(d.Set)
		}
		if left != set {
			if left.Empty() {
				continue
			}
			if e.FieldsV1, ok = t.encode(left); !ok {
				return nil, false
			}
		}
		if e.Operation == metav1.ManagedFieldsOperationUpdate {
			updates++
		}
		out = append(out, e)
	}
	if own != nil {
		if mine.FieldsV1 == nil {
			var ok bool
			if mine.FieldsV1, ok = t.encode(own); !ok {
				return nil, false
			}
		}
		mine.Time = now
		updates++
		out = append(out, mine)
	}
	sortEntries(out)
	return out, updates <= maxUpdateManagers
}

// hasAny reports whether set has one of the paths of of.
func hasAny(set, of *fieldpath.Set) bool {
	if of == nil {
		return false
	}
	found := false
	of.Iterate(func(p fieldpath.Path) { found = found || set.Has(p) })
	return found
}

func (t *fastTrack) decode(f *metav1.FieldsV1) (*fieldpath.Set, bool) {
	raw := f.GetRawString()
	t.setsMu.RLock()
	s := t.sets[raw]
	t.setsMu.RUnlock()
	if s != nil {
		return s, true
	}
	s = &fieldpath.Set{}
	if err := s.FromJSON(bytes.NewReader([]byte(raw))); err != nil {
		return nil, false
	}
	t.remember(raw, s)
	return s, true
}

func (t *fastTrack) remember(raw string, s *fieldpath.Set) {
	t.setsMu.Lock()
	defer t.setsMu.Unlock()
	if len(t.sets) >= maxDecodedSets {
		clear(t.sets)
	}
	t.sets[raw] = s
}

func (t *fastTrack) encode(s *fieldpath.Set) (*metav1.FieldsV1, bool) {
	data, err := s.ToJSON()
	if err != nil {
		return nil, false
	}
	raw := string(data)
	t.remember(raw, s)
	return metav1.NewFieldsV1(raw), true
}

// sameEntries compares managed fields, their times only if wanted.
func sameEntries(a, b []metav1.ManagedFieldsEntry, times bool) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		p, q := &a[i], &b[i]
		if p.Manager != q.Manager || p.Operation != q.Operation || p.APIVersion != q.APIVersion || p.Subresource != q.Subresource ||
			p.FieldsType != q.FieldsType || times && !p.Time.Equal(q.Time) {
			return false
		}
		if p.FieldsV1 != q.FieldsV1 && (p.FieldsV1 == nil || q.FieldsV1 == nil || !p.FieldsV1.Equal(*q.FieldsV1)) {
			return false
		}
	}
	return true
}

// sortEntries has the order of Kubernetes.
func sortEntries(l []metav1.ManagedFieldsEntry) {
	sort.Slice(l, func(i, j int) bool {
		p, q := &l[i], &l[j]
		switch {
		case p.Operation != q.Operation:
			return p.Operation < q.Operation
		case unix(p.Time) != unix(q.Time):
			return unix(p.Time) < unix(q.Time)
		case p.Manager != q.Manager:
			return p.Manager < q.Manager
		case p.APIVersion != q.APIVersion:
			return p.APIVersion < q.APIVersion
		}
		return p.Subresource < q.Subresource
	})
}

func unix(t *metav1.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}
