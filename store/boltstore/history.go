package boltstore

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/internal/watchhub"
)

// read calls f with the records as they are in the file now. It calls it again when it misses a
// record: one may have come from the overlay to the file after the transaction began.
func (s *Store) read(f func(b *bbolt.Bucket) error) (err error) {
	for range 3 {
		if err = s.readOnce(f); !errors.Is(err, errMissing) {
			break
		}
	}
	return err
}

// readOnce calls f with the records as they are in the file now. A fault while the mapped file is
// read, as after an I/O error, becomes an error.
func (s *Store) readOnce(f func(b *bbolt.Bucket) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	tx, err := s.db.Begin(false)
	if err != nil {
		if errors.Is(err, berrors.ErrDatabaseNotOpen) {
			return store.ErrClosed
		}
		return fmt.Errorf("boltstore: read %s: %w", s.path, err)
	}
	defer func() {
		if r := recover(); r != nil {
			err = &DamageError{Path: s.path, Where: "reading", What: fmt.Sprint(r)}
		}
		_ = tx.Rollback()
	}()
	return f(tx.Bucket(recordsBucket))
}

// value returns a copy of the value that r refers to.
func (s *Store) value(b *bbolt.Bucket, r ref) ([]byte, error) {
	if v, ok := s.overlay.get(r); ok {
		return v, nil
	}
	rec, err := s.readRecord(b, r)
	if err != nil {
		return nil, err
	}
	return append([]byte{}, rec.value...), nil
}

func (s *Store) readRecord(b *bbolt.Bucket, r ref) (record, error) {
	var key [recordKeyLen]byte
	k := appendRecordKey(key[:0], r.mod, r.index)
	v := b.Get(k)
	if v == nil {
		return record{}, errMissing
	}
	rec, err := decodeRecord(k, v)
	if err != nil {
		return record{}, s.damaged(r, err.Error())
	}
	return rec, nil
}

// undo returns the state at an older revision: that of v with the changes since taken back.
func (s *Store) undo(v *view, rev int64) (tree, error) {
	e := v.tree.Edit()
	// The newest commits are in the overlay.
	from := v.rev
	for ; from > rev; from-- {
		recs := s.overlay.revision(from)
		if recs == nil {
			break
		}
		for _, r := range recs {
			undoRecord(e, &r.record, r.key)
		}
	}
	if from == rev {
		return e.Tree(), nil
	}
	// In steps, so that no transaction lasts long.
	const step = 1024
	for from > rev {
		to := max(rev, from-step)
		err := s.read(func(b *bbolt.Bucket) error {
			c := b.Cursor()
			k, _ := c.Seek(recordKey(from+1, 0))
			var val []byte
			if k == nil {
				k, val = c.Last()
			} else {
				k, val = c.Prev()
			}
			want := from + 1
			for ; k != nil; k, val = c.Prev() {
				r, err := decodeRecord(k, val)
				if err != nil {
					return s.damaged(ref{mod: r.rev, index: r.index}, err.Error())
				}
				if r.rev <= to {
					break
				}
				if r.rev != want && r.rev != want-1 {
					return errMissing
				}
				want = r.rev
				undoRecord(e, &r, string(r.key))
			}
			if want != to+1 {
				return errMissing
			}
			return nil
		})
		if err != nil {
			return tree{}, err
		}
		from = to
	}
	return e.Tree(), nil
}

func undoRecord(e editor, r *record, key string) {
	if prev, ok := r.prevRef(); ok {
		e.Set(key, prev)
	} else {
		e.Delete(key)
	}
}

// oldTrees remembers a few old states, for the pages of lists.
type oldTrees struct {
	mu    sync.Mutex
	trees [8]struct {
		rev  int64
		tree tree
	}
	next int
}

func (o *oldTrees) get(rev int64) (tree, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.trees {
		if t.rev == rev {
			return t.tree, true
		}
	}
	return tree{}, false
}

func (o *oldTrees) keep(rev int64, t tree) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, have := range o.trees {
		if have.rev == rev {
			return
		}
	}
	o.trees[o.next].rev, o.trees[o.next].tree = rev, t
	o.next = (o.next + 1) % len(o.trees)
}

// tail keeps the newest events, for watchers that keep up. It holds nothing while there are no watchers.
type tail struct {
	mu     sync.RWMutex
	first  int64 // revision of events[0]
	events [][]store.Event
	bytes  int
}

const maxTailBytes = 4 << 20

func (t *tail) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.first, t.events, t.bytes = 0, nil, 0
}

// add appends the events of consecutive revisions from first on.
func (t *tail) add(first int64, events [][]store.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first+int64(len(t.events)) != first {
		t.first, t.events, t.bytes = first, nil, 0
	}
	t.events = append(t.events, events...)
	for _, evs := range events {
		t.bytes += eventBytes(evs)
	}
	drop := 0
	for t.bytes > maxTailBytes && drop < len(t.events) {
		t.bytes -= eventBytes(t.events[drop])
		drop++
	}
	if drop > 0 {
		kept := make([][]store.Event, len(t.events)-drop, len(t.events)+64)
		copy(kept, t.events[drop:])
		t.events, t.first = kept, t.first+int64(drop)
	}
}

func eventBytes(events []store.Event) int {
	n := 0
	for i := range events {
		n += 200 + len(events[i].KV.Key) + len(events[i].KV.Value)
		if p := events[i].Prev; p != nil {
			n += len(p.Value)
		}
	}
	return n
}

// since returns the events of the revisions in (after, through], false if it has not all of them.
func (t *tail) since(after, through int64) ([][]store.Event, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.first == 0 || after+1 < t.first || through >= t.first+int64(len(t.events)) {
		return nil, false
	}
	lo, hi := after+1-t.first, through+1-t.first
	return t.events[lo:hi:hi], true
}

// source is the log as the hub reads it.
type source struct{ s *Store }

var _ watchhub.Source = source{}

func (src source) Bounds() (current, floor int64) {
	v := src.s.view.Load()
	return v.rev, v.floor
}

func (src source) Read(after int64, prefix string, limit int) ([]store.Event, int64, error) {
	v := src.s.view.Load()
	var out []store.Event
	// What is here is reported even if it has been compacted: a watcher that has not had its turn is not slow.
	if revs, ok := src.s.tail.since(after, v.rev); ok {
		for i, events := range revs {
			for j := range events {
				if strings.HasPrefix(events[j].KV.Key, prefix) {
					out = append(out, events[j])
				}
			}
			if len(out) >= limit {
				return out, after + 1 + int64(i), nil
			}
		}
		return out, v.rev, nil
	}
	if after < v.floor {
		return nil, 0, store.ErrCompacted
	}
	// Old events come from disk; again in steps.
	const step = 512
	for after < v.rev && len(out) < limit {
		to := min(after+step, v.rev)
		events, through, err := src.s.readEvents(after, to, prefix, limit-len(out))
		if err != nil {
			if src.s.view.Load().floor > after {
				err = store.ErrCompacted
			}
			if len(out) > 0 {
				return out, after, nil // the error comes next time
			}
			return nil, 0, err
		}
		out = append(out, events...)
		after = through
	}
	return out, after, nil
}

// readEvents returns the events under prefix of the revisions in (after, to].
func (s *Store) readEvents(after, to int64, prefix string, limit int) (out []store.Event, through int64, err error) {
	err = s.read(func(b *bbolt.Bucket) error {
		out, through = nil, after
		return s.eachRecord(b, after, to, func(r *record) error {
			if r.rev > through+1 && len(out) >= limit {
				through = r.rev - 1
				return errStop
			}
			through = r.rev - 1
			if !strings.HasPrefix(string(r.key), prefix) {
				return nil
			}
			key := string(r.key)
			ev := store.Event{KV: *r.kv(key), Deleted: r.deleted}
			if r.deleted {
				ev.KV.Value, ev.KV.CreateRevision = nil, 0
			}
			if prev, ok := r.prevRef(); ok {
				val, err := s.value(b, prev)
				if err != nil {
					return err
				}
				ev.Prev = &store.KV{Key: key, Value: val, CreateRevision: prev.create, ModRevision: prev.mod}
			}
			out = append(out, ev)
			return nil
		})
	})
	if errors.Is(err, errStop) {
		return out, through, nil
	}
	return out, to, err
}

var errStop = errors.New("stop")

// eachRecord calls visit for the records of the revisions in (after, to], first those on disk
// and then those in the overlay, all of which there must be.
func (s *Store) eachRecord(b *bbolt.Bucket, after, to int64, visit func(*record) error) error {
	next := after + 1
	c := b.Cursor()
	for k, v := c.Seek(recordKey(next, 0)); k != nil; k, v = c.Next() {
		r, err := decodeRecord(k, v)
		if err != nil {
			return s.damaged(ref{mod: r.rev, index: r.index}, err.Error())
		}
		if r.rev > to {
			break
		}
		if r.rev != next && r.rev != next-1 {
			return errMissing
		}
		next = r.rev + 1
		if err := visit(&r); err != nil {
			return err
		}
	}
	for ; next <= to; next++ {
		recs := s.overlay.revision(next)
		if recs == nil {
			return errMissing
		}
		for _, e := range recs {
			r := e.record
			r.key, r.value = []byte(e.key), e.val
			if err := visit(&r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (src source) Changes(after, through int64, visit func(rev int64, key string)) error {
	if revs, ok := src.s.tail.since(after, through); ok {
		for _, events := range revs {
			for i := range events {
				visit(events[i].KV.ModRevision, events[i].KV.Key)
			}
		}
		return nil
	}
	return src.s.read(func(b *bbolt.Bucket) error {
		return src.s.eachRecord(b, after, through, func(r *record) error {
			visit(r.rev, string(r.key))
			return nil
		})
	})
}
