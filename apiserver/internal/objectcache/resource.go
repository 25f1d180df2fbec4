package objectcache

import (
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/google/btree"
	"k8s.io/apimachinery/pkg/runtime"
)

// Codec decodes stored values of a resource. The result has no resourceVersion and belongs to the caller.
type Codec interface {
	Decode(value []byte) (runtime.Object, error)
}

// Index names a string of every object by which lists and watches are fast; objects with an empty one are not in it.
type Index struct {
	Name string
	Get  func(obj runtime.Object) string
}

// Resource is the cached part of one resource: the keys below one prefix.
type Resource struct {
	prefix string // of full keys, with a trailing slash
	codec  Codec
	cache  *Cache

	mu      sync.RWMutex
	tree    *btree.BTreeG[*Object]
	rev     int64 // of the last event
	log     eventLog
	indexes []*index
	snaps   []*Snapshot // recently used, newest last; guarded by mu
	current *Snapshot   // of tree as it is now, nil if it changed since
	bytes   int64       // of stored values
}

type index struct {
	Index
	buckets map[string]*bucket
}

// bucket holds the objects of one index value, and a log of its own once somebody watches it.
type bucket struct {
	objs    map[string]*Object
	log     *eventLog
	watches int
}

const (
	treeDegree = 32
	maxSnaps   = 8
)

func newTree() *btree.BTreeG[*Object] {
	return btree.NewG(treeDegree, func(a, b *Object) bool { return a.key < b.key })
}

// Snapshot is the state of a resource at a revision; immutable.
type Snapshot struct {
	Revision int64
	tree     *btree.BTreeG[*Object]
}

// Len is the number of objects.
func (s *Snapshot) Len() int { return s.tree.Len() }

// Get returns the object of key, or nil.
func (s *Snapshot) Get(key string) *Object {
	o, _ := s.tree.Get(&Object{key: key})
	return o
}

// Ascend calls yield for the objects whose key starts with prefix and is not less than from, in key order, until it returns false.
func (s *Snapshot) Ascend(prefix, from string, yield func(*Object) bool) {
	if from < prefix {
		from = prefix
	}
	s.tree.AscendGreaterOrEqual(&Object{key: from}, func(o *Object) bool {
		return strings.HasPrefix(o.key, prefix) && yield(o)
	})
}

// Get returns the newest cached state of key, or nil.
func (r *Resource) Get(key string) *Object {
	r.mu.RLock()
	o, _ := r.tree.Get(&Object{key: key})
	r.mu.RUnlock()
	return o
}

// Len is the number of objects.
func (r *Resource) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.tree.Len()
}

// Bytes is the sum of the sizes of the stored values.
func (r *Resource) Bytes() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.bytes
}

// Snapshot returns the newest cached state.
func (r *Resource) Snapshot() *Snapshot {
	rev := r.cache.Revision()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.snapshotLocked(max(rev, r.rev))
}

func (r *Resource) snapshotLocked(rev int64) *Snapshot {
	if r.current == nil {
		r.current = &Snapshot{Revision: rev, tree: r.tree.Clone()}
	} else if r.current.Revision < rev {
		r.current = &Snapshot{Revision: rev, tree: r.current.tree}
	}
	return r.current
}

// Keep retains a snapshot for a while, so that SnapshotAt finds it.
func (r *Resource) Keep(s *Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.IndexFunc(r.snaps, func(x *Snapshot) bool { return x.Revision == s.Revision }); i >= 0 {
		r.snaps = append(slices.Delete(r.snaps, i, i+1), s)
		return
	}
	if len(r.snaps) == maxSnaps {
		r.snaps = slices.Delete(r.snaps, 0, 1)
	}
	r.snaps = append(r.snaps, s)
}

// SnapshotAt returns the state at an older revision: kept, or computed from the log. ok is false if it is not retained.
func (r *Resource) SnapshotAt(rev int64) (s *Snapshot, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.snaps {
		if s.Revision == rev {
			return s, true
		}
	}
	if rev >= r.rev {
		s := r.snapshotLocked(max(r.cache.Revision(), r.rev))
		return &Snapshot{Revision: rev, tree: s.tree}, true
	}
	if rev < r.log.dropped {
		return nil, false
	}
	tree := r.tree.Clone()
	r.current = nil
	seq := r.log.seqAfter(rev)
	for i := len(r.log.chunks) - 1; i >= 0; i-- {
		c := r.log.chunks[i]
		for j := c.n - 1; j >= 0 && c.first+uint64(j) >= seq; j-- {
			if e := &c.events[j]; e.Prev != nil {
				tree.ReplaceOrInsert(e.Prev)
			} else {
				tree.Delete(e.Object)
			}
		}
	}
	return &Snapshot{Revision: rev, tree: tree}, true
}

// HasIndex reports whether the resource has that index.
func (r *Resource) HasIndex(name string) bool {
	return slices.ContainsFunc(r.indexes, func(x *index) bool { return x.Name == name })
}

// ByIndex returns the objects of an index value in key order, and the revision at which they are so.
func (r *Resource) ByIndex(name, value string) ([]*Object, int64) {
	rev := r.cache.Revision()
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byIndexLocked(name, value), max(rev, r.rev)
}

func (r *Resource) byIndexLocked(name, value string) []*Object {
	var out []*Object
	for _, x := range r.indexes {
		if x.Name == name {
			if b := x.buckets[value]; b != nil {
				out = make([]*Object, 0, len(b.objs))
				for _, o := range b.objs {
					out = append(out, o)
				}
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].key < out[j].key })
	return out
}

// apply records changes of one or several revisions, in order. For a deletion o is the key only. It returns without
// effect for deletions of what is not there.
func (r *Resource) apply(changes []change) {
	r.mu.Lock()
	for i := range changes {
		r.applyOne(&changes[i])
	}
	r.log.notify()
	for _, x := range r.indexes {
		for i := range changes {
			x.notify(changes[i].obj)
			x.notify(changes[i].prev)
		}
	}
	r.mu.Unlock()
}

func (r *Resource) applyOne(c *change) {
	if c.deleted {
		prev, ok := r.tree.Delete(&Object{key: c.key})
		if !ok {
			return
		}
		c.obj, c.prev = prev.at(c.reported), prev
		r.bytes -= int64(len(prev.value))
	} else {
		c.prev, _ = r.tree.ReplaceOrInsert(c.obj)
		r.bytes += int64(len(c.obj.value))
		if c.prev != nil {
			r.bytes -= int64(len(c.prev.value))
		}
	}
	r.current = nil
	r.rev = c.rev
	r.log.append(c)
	for _, x := range r.indexes {
		x.apply(c)
	}
}

func (x *index) value(o *Object) string {
	if o == nil {
		return ""
	}
	return x.Get(o.obj)
}

func (x *index) bucket(v string) *bucket {
	b := x.buckets[v]
	if b == nil {
		b = &bucket{objs: map[string]*Object{}}
		x.buckets[v] = b
	}
	return b
}

func (x *index) release(v string, b *bucket) {
	if len(b.objs) == 0 && b.watches == 0 {
		delete(x.buckets, v)
	}
}

func (x *index) apply(c *change) {
	before, now := x.value(c.prev), x.value(c.obj)
	if c.deleted {
		now = ""
	}
	if before != "" {
		b := x.bucket(before)
		if before != now {
			delete(b.objs, c.key)
			if b.log != nil {
				b.log.append(c)
			}
			x.release(before, b)
		}
	}
	if now != "" {
		b := x.bucket(now)
		b.objs[c.key] = c.obj
		if b.log != nil {
			b.log.append(c)
		}
	}
}

func (x *index) notify(o *Object) {
	if v := x.value(o); v != "" {
		if b := x.buckets[v]; b != nil && b.log != nil {
			b.log.notify()
		}
	}
}

// load fills the resource before anything is served.
func (r *Resource) load(objs []*Object, rev int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range objs {
		r.tree.ReplaceOrInsert(o)
		r.bytes += int64(len(o.value))
		for _, x := range r.indexes {
			if v := x.value(o); v != "" {
				x.bucket(v).objs[o.key] = o
			}
		}
	}
	r.log.dropped = rev
}
