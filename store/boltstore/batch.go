package boltstore

import (
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/keelson/keelson/store"
)

// batch is requests that one frame of the log answers, evaluated on top of what is published or of a batch that is
// just being written.
type batch struct {
	e    editor
	base int64       // the revision that it is evaluated on
	rev  int64       // the one that it leads to
	recs [][]encoded // by revision from base+1
	reqs []*request

	bytes    int   // of keys and values
	logged   int64 // what the log has before its frame; relaxed commits between that and base are in the frame too
	floor    int64
	reserved int64
	changed  bool // the frame is needed even without records
	relaxed  bool // some requests are relaxed

	made  *view // once nothing joins it any more
	frame frame
	data  []byte // of the frame, as frame.begin has begun it
	slab  *slab  // that data is of

	// How writing it went.
	maybe bool
	err   error
}

// newBatch returns an empty batch on top of one that is being written, nil for none.
func (s *Store) newBatch(on *batch) *batch {
	if on == nil {
		v := s.view.Load()
		return &batch{e: v.tree.Edit(), base: v.rev, rev: v.rev, logged: s.logged, floor: v.floor, reserved: s.reserved}
	}
	v := on.view()
	return &batch{e: v.tree.Edit(), base: v.rev, rev: v.rev, logged: v.rev, floor: v.floor, reserved: on.reserved}
}

// view is the state that the batch leads to. Nothing may join it any more.
func (b *batch) view() *view {
	if b.made == nil {
		b.made = &view{rev: b.rev, floor: b.floor, tree: b.e.Tree()}
	}
	return b.made
}

// raise has the batch compact to a revision.
func (b *batch) raise(floor int64) {
	if floor > b.floor {
		b.floor, b.changed = floor, true
	}
}

// join evaluates a commit or compaction.
func (b *batch) join(r *request) {
	b.reqs = append(b.reqs, r)
	b.bytes += r.bytes
	b.relaxed = b.relaxed || r.relaxed
	switch {
	case r.ops != nil || r.compactTo == 0:
		b.evaluate(r)
	case r.compactTo <= b.base:
		b.raise(r.compactTo)
	}
}

// room is about what the frame takes, and not less, but for relaxed commits before it.
func (b *batch) room() int {
	n := frameHead + b.bytes
	for _, recs := range b.recs {
		n += len(recs) * recordMax
	}
	return n
}

// encode makes the frame. No request may join the batch any more.
func (b *batch) encode(memory *frames, o *overlay) {
	b.frame = frame{base: b.logged, last: b.rev, floor: b.floor, reserved: b.reserved}
	n := frameHead + frameTail + sectorLen
	parts := [2][][]encoded{o.revisions(b.logged, b.base), b.recs}
	for _, part := range parts {
		for _, recs := range part {
			for i := range recs {
				n += recordMax + len(recs[i].key) + len(recs[i].val)
			}
		}
	}
	b.data, b.slab = memory.buffer(n)
	b.data = b.frame.begin(b.data)
	for _, part := range parts {
		for _, recs := range part {
			for i := range recs {
				b.data = appendLogged(b.data, &recs[i])
			}
		}
	}
}

// answer tells the requests how it went; unknownErr is for those whose change may survive.
func (b *batch) answer(err, unknownErr error) {
	for _, r := range b.reqs {
		res := result{rev: r.rev, err: err}
		switch {
		case unknownErr != nil && (len(r.recs) > 0 || r.compactTo > 0):
			res = result{err: unknownErr}
		case err != nil:
			res = result{err: err}
		case r.compactTo > b.base:
			res.err = fmt.Errorf("%w: compaction to revision %d, the newest is %d", store.ErrFutureRevision, r.compactTo, b.base)
		case r.unread != nil:
			res = result{err: r.unread}
		case r.conflict != nil:
			res = result{err: r.conflict}
		}
		r.done <- res
	}
}

// evaluate looks whether the conditions of r hold and applies its ops to the batch.
func (b *batch) evaluate(r *request) {
	rev := b.rev + 1
	recs := make([]encoded, 0, len(r.ops))
	for i := range r.ops {
		op := &r.ops[i]
		have, ok := b.e.Get(op.Key)
		if !op.If.Holds(have.mod) {
			r.conflict = &store.ConflictError{Key: op.Key, If: op.If, Revision: b.rev}
			r.current = have
			return
		}
		if op.Kind == store.OpCheck || op.Kind == store.OpDelete && !ok {
			continue
		}
		e := encoded{key: op.Key}
		e.rev, e.create = rev, rev
		if ok {
			e.create, e.prev, e.prevIndex = have.create, have.mod, have.index
		}
		if op.Kind == store.OpDelete {
			e.deleted = true
		} else {
			e.val = op.Value
		}
		recs = append(recs, e)
	}
	r.rev = b.rev
	if len(recs) == 0 {
		return
	}
	if len(recs) > 1 {
		slices.SortFunc(recs, func(x, y encoded) int { return strings.Compare(x.key, y.key) })
	}
	for i := range recs {
		e := &recs[i]
		e.index, e.count = uint32(i), uint32(len(recs))
		if e.deleted {
			b.e.Delete(e.key)
		} else {
			b.e.Set(e.key, e.ref())
		}
	}
	b.rev = rev
	b.recs = append(b.recs, recs)
	r.rev, r.recs = rev, recs
}

// value returns the value that r refers to, in the batch or before it. What is before it has been published.
func (b *batch) value(s *Store, bucket *bbolt.Bucket, r ref) ([]byte, error) {
	if r.mod > b.base {
		return b.recs[r.mod-b.base-1][r.index].val, nil
	}
	return s.value(bucket, r)
}

// events returns what the batch changes.
func (b *batch) events(s *Store, bucket *bbolt.Bucket) ([][]store.Event, error) {
	out := make([][]store.Event, len(b.recs))
	for i, recs := range b.recs {
		out[i] = make([]store.Event, len(recs))
		for j := range recs {
			r, ev := &recs[j], &out[i][j]
			ev.KV = store.KV{Key: r.key, Value: r.val, CreateRevision: r.create, ModRevision: r.rev}
			if r.deleted {
				ev.Deleted, ev.KV.CreateRevision = true, 0
			}
			if prev, ok := r.prevRef(); ok {
				val, err := b.value(s, bucket, prev)
				if err != nil {
					return nil, err
				}
				ev.Prev = &store.KV{Key: r.key, Value: val, CreateRevision: prev.create, ModRevision: prev.mod}
			}
		}
	}
	return out, nil
}

// conflicts fills in what the keys of conflicts have.
func (b *batch) conflicts(s *Store) {
	for _, r := range b.reqs {
		if r.conflict == nil || r.current.mod == 0 {
			continue
		}
		r.unread = s.read(func(bucket *bbolt.Bucket) error {
			val, err := b.value(s, bucket, r.current)
			r.conflict.Current = &store.KV{Key: r.conflict.Key, Value: val, CreateRevision: r.current.create, ModRevision: r.current.mod}
			return err
		})
	}
}
