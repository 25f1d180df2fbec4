package memstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/internal/cowtree"
	"github.com/keelson/keelson/store/internal/watchhub"
)

// Options of New; the zero value is the default.
type Options struct {
	// History is how many revisions before the newest can be read and watched from; 0 means
	// 16384. Somewhat more may be kept.
	History int64
	// HistoryBytes bounds what history may hold in keys and values that are no longer
	// current, whatever History says; 0 means 64 MiB.
	HistoryBytes int64
}

func (o Options) withDefaults() Options {
	if o.History == 0 {
		o.History = 16384
	}
	if o.HistoryBytes == 0 {
		o.HistoryBytes = 64 << 20
	}
	return o
}

func (o Options) validate() error {
	if o.History < 0 {
		return fmt.Errorf("memstore: Options.History is %d, want at least 0", o.History)
	}
	if o.HistoryBytes < 0 {
		return fmt.Errorf("memstore: Options.HistoryBytes is %d, want at least 0", o.HistoryBytes)
	}
	return nil
}

// Store is an in-memory store.Store with O(1) forks.
type Store struct {
	opts Options
	view atomic.Pointer[view]
	hub  *watchhub.Hub
	old  atomic.Pointer[oldTree]

	mu     sync.Mutex // serializes writers
	closed atomic.Bool
	maker  *cowtree.Maker // of the nodes that no other store has
	tail   *chunk         // where the log goes on, nil if that is in a new chunk
}

// oldTree remembers the last tree made for an old revision, for the next page of a list.
type oldTree struct {
	rev  int64
	tree tree
}

var (
	_ store.Store         = (*Store)(nil)
	_ store.Advancer      = (*Store)(nil)
	_ store.EachCommitter = (*Store)(nil)
)

// New returns an empty store at revision 1.
func New(opts Options) (*Store, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	return newStore(opts, newView(1, 1, tree{}, nil)), nil
}

func newStore(opts Options, v *view) *Store {
	s := &Store{opts: opts, maker: new(cowtree.Maker)}
	s.view.Store(v)
	s.hub = watchhub.New(source{s})
	return s
}

// Fork returns a store that starts as this one is now, history included, and then diverges.
// It takes O(1) time and memory, may be called at any time, even after Close, and the two do not
// affect each other; each is closed on its own. Watchers stay with the store they came from.
func (s *Store) Fork() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maker = new(cowtree.Maker) // the nodes that there are belong to nobody from here on
	v := s.view.Load()
	return newStore(s.opts, newView(v.rev.Load(), v.floor, v.tree, slices.Clip(v.log)))
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string, rev int64) (store.GetResult, error) {
	if key == "" || rev < 0 {
		return store.GetResult{}, fmt.Errorf("%w: get of %q at revision %d", store.ErrInvalid, key, rev)
	}
	at, err := s.at(ctx, rev)
	if err != nil {
		return store.GetResult{}, err
	}
	res := store.GetResult{Revision: at.rev}
	if p, _ := at.tree.Find(key); p != nil {
		res.KV = at.value(p)
	}
	return res, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, opts store.ListOptions) (store.ListResult, error) {
	if err := opts.Check(); err != nil {
		return store.ListResult{}, err
	}
	at, err := s.at(ctx, opts.Revision)
	if err != nil {
		return store.ListResult{}, err
	}
	t := at.tree
	from := opts.Prefix
	if opts.After >= from && opts.After != "" {
		from = opts.After + "\x00"
	}
	end := t.Len()
	if last, ok := store.PrefixEnd(opts.Prefix); ok {
		end = t.Rank(last)
	}
	total := max(0, end-t.Rank(from))
	n := total
	if opts.Limit > 0 && opts.Limit < n {
		n = opts.Limit
	}
	res := store.ListResult{Revision: at.rev, More: n < total, Remaining: int64(total - n)}
	if n == 0 {
		return res, nil
	}
	res.KVs = make([]store.KV, 0, n)
	t.Ascend(from, func(_ string, p **store.KV) bool {
		res.KVs = append(res.KVs, *at.value(p))
		return len(res.KVs) < n
	})
	if opts.KeysOnly {
		for i := range res.KVs {
			res.KVs[i].Value = nil
		}
	}
	return res, nil
}

// at returns the state at rev.
func (s *Store) at(ctx context.Context, rev int64) (snapshot, error) {
	if s.closed.Load() {
		return snapshot{}, store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return snapshot{}, err
	}
	v := s.view.Load()
	newest := v.rev.Load()
	switch {
	case rev == 0 || rev == newest:
		return snapshot{rev: newest, tree: v.tree, view: v}, nil
	case rev < v.floor:
		return snapshot{}, fmt.Errorf("%w: revision %d, the oldest is %d", store.ErrCompacted, rev, v.floor)
	case rev > newest:
		return snapshot{}, fmt.Errorf("%w: revision %d, the newest is %d", store.ErrFutureRevision, rev, newest)
	}
	o := s.old.Load()
	if o == nil || o.rev != rev {
		o = &oldTree{rev: rev, tree: v.log.treeAt(rev)}
		s.old.Store(o)
	}
	return snapshot{rev: rev, tree: o.tree, view: v}, nil
}

// change is what an op comes to.
type change struct {
	place **store.KV // of the value, nil if the key is absent
	prev  *store.KV
	next  *store.KV // nil if the op changes nothing or deletes
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return 0, store.ErrClosed
	}
	v := s.view.Load()
	rev := v.rev.Load() + 1
	var room [4]change
	changes := room[:0]
	if len(ops) > len(room) {
		changes = make([]change, 0, len(ops))
	}
	effects := 0
	inPlace := true // only values change, in nodes of this store's own
	for i := range ops {
		op := &ops[i]
		var c change
		p, maker := v.tree.Find(op.Key)
		mod := int64(0)
		if p != nil {
			c.place, c.prev = p, *p
			mod = c.prev.ModRevision
		}
		if !op.If.Holds(mod) {
			return 0, &store.ConflictError{Key: op.Key, If: op.If, Current: c.prev, Revision: rev - 1}
		}
		switch {
		case op.Kind == store.OpPut:
			c.next = &store.KV{Key: op.Key, Value: op.Value, CreateRevision: rev, ModRevision: rev}
			if c.prev != nil {
				c.next.CreateRevision = c.prev.CreateRevision
				c.next.Key = c.prev.Key // versions of a key share one string
			}
			inPlace = inPlace && maker == s.maker
			effects++
		case op.Kind == store.OpDelete && c.prev != nil:
			inPlace = false
			effects++
		}
		changes = append(changes, c)
	}
	if effects == 0 {
		return rev - 1, nil
	}
	// Whoever finds a new value finds what was before it in the log.
	next := s.record(v, rev, ops, changes, effects)
	if inPlace {
		for i := range changes {
			if c := &changes[i]; c.next != nil {
				storeValue(c.place, c.next)
			}
		}
	} else {
		if next == nil {
			next = v.next()
		}
		next.tree = s.edit(v.tree, ops, changes)
	}
	if next == nil {
		v.rev.Store(rev)
	} else {
		next.rev.Store(rev)
		s.view.Store(next)
	}
	s.hub.Published()
	return rev, nil
}

// CommitEach implements store.EachCommitter.
func (s *Store) CommitEach(ctx context.Context, commits [][]store.Op) []store.CommitResult {
	out := make([]store.CommitResult, len(commits))
	for i, ops := range commits {
		out[i].Revision, out[i].Err = s.Commit(ctx, ops...)
	}
	return out
}

// edit returns t with the changes.
func (s *Store) edit(t tree, ops []store.Op, changes []change) tree {
	e := t.EditAs(s.maker)
	for i := range changes {
		switch c := &changes[i]; {
		case c.next != nil:
			e.Set(c.next.Key, c.next)
		case ops[i].Kind == store.OpDelete && c.prev != nil:
			e.Delete(c.prev.Key)
		}
	}
	return e.Tree()
}

// record puts the events of rev into the log. It returns the view to be published, if that is a new one because the
// log has got a new chunk.
func (s *Store) record(v *view, rev int64, ops []store.Op, changes []change, effects int) (next *view) {
	if s.tail == nil || s.tail.full() {
		next = v.next()
		s.tail = next.grow(rev, s.tail)
		defer s.trim(next, rev)
	}
	at := s.tail.add()
	var sorted []store.Event
	if effects > 1 {
		sorted = make([]store.Event, 0, effects)
	}
	bytes := 0
	for i := range changes {
		c := &changes[i]
		ev := at
		switch {
		case c.next == nil && (c.prev == nil || ops[i].Kind != store.OpDelete):
			continue
		case effects > 1:
			sorted = append(sorted, store.Event{})
			ev = &sorted[len(sorted)-1]
		}
		if ev.Prev = c.prev; c.prev != nil {
			bytes += len(c.prev.Value)
		}
		if c.next != nil {
			ev.KV = *c.next
		} else {
			ev.KV, ev.Deleted = store.KV{Key: c.prev.Key, ModRevision: rev}, true
		}
		bytes += len(ev.KV.Key) + eventOverhead
	}
	if effects > 1 {
		slices.SortFunc(sorted, func(a, b store.Event) int { return strings.Compare(a.KV.Key, b.KV.Key) })
		s.tail.setMany(sorted)
	}
	s.tail.bytes.Add(int64(bytes))
	return next
}

// trim raises the floor of the view that is to be published at rev to what the options allow.
func (s *Store) trim(next *view, rev int64) {
	floor := max(next.floor, rev-1-s.opts.History)
	bytes := int64(0)
	for i := len(next.log) - 2; i >= 0; i-- {
		if bytes += next.log[i].bytes.Load(); bytes > s.opts.HistoryBytes {
			floor = max(floor, next.log[i+1].first-1)
			break
		}
	}
	// Waiters are told of what goes, but for that a writer waits only if they are far behind.
	if held := s.hub.Retain(floor); held < floor {
		if rev-held < 2*s.opts.History {
			floor = held
		} else {
			s.hub.Scan()
		}
	}
	if floor > next.floor {
		s.raise(next, floor)
	}
}

// raise makes floor the floor of a view that is to be published.
func (s *Store) raise(next *view, floor int64) {
	next.floor = floor
	grace := int64(0)
	if s.hub.Watched() {
		grace = graceBytes
	}
	next.log = next.log.trim(floor, grace)
	if o := s.old.Load(); o != nil && o.rev < floor {
		s.old.Store(nil)
	}
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
	if s.closed.Load() {
		return nil, store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w, err := s.hub.Watch(opts)
	if err != nil {
		return nil, fmt.Errorf("%w: watch after revision %d", err, opts.After)
	}
	return w, nil
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (current, compacted int64, err error) {
	if s.closed.Load() {
		return 0, 0, store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	v := s.view.Load()
	rev := v.rev.Load()
	s.hub.Progress(rev)
	return rev, v.floor, nil
}

// Compact implements store.Store.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	if rev < 0 {
		return fmt.Errorf("%w: compaction to revision %d", store.ErrInvalid, rev)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return store.ErrClosed
	}
	v := s.view.Load()
	if newest := v.rev.Load(); rev > newest {
		return fmt.Errorf("%w: compaction to revision %d, the newest is %d", store.ErrFutureRevision, rev, newest)
	}
	if rev <= v.floor {
		return nil
	}
	s.hub.Scan()
	next := v.next()
	s.raise(next, rev)
	s.view.Store(next)
	return nil
}

// Advance implements store.Advancer.
func (s *Store) Advance(ctx context.Context, rev int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return store.ErrClosed
	}
	s.hub.Scan()
	v := s.view.Load()
	rev = max(rev, v.rev.Load())
	next := newView(rev, rev, v.tree, nil)
	v.end.next.Store(next.end)
	s.tail = nil
	s.view.Store(next)
	s.old.Store(nil)
	s.hub.Published()
	return nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed.Store(true)
	s.mu.Unlock()
	s.hub.Close()
	return nil
}
