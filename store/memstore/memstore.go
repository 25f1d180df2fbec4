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

	mu      sync.Mutex // serializes writers
	closed  atomic.Bool
	ownTail bool // the last chunk of the log is not shared with another store
}

// view is one revision of the store; it is immutable.
type view struct {
	rev, floor int64
	tree       tree
	log        history
}

type tree = cowtree.Tree[*store.KV]

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
	return newStore(opts, &view{rev: 1, floor: 1}), nil
}

func newStore(opts Options, v *view) *Store {
	s := &Store{opts: opts}
	s.view.Store(v)
	s.hub = watchhub.New(source{s})
	return s
}

// Fork returns a store that starts as this one is now, history included, and then diverges.
// It takes O(1) time and memory, may be called at any time, even after Close, and the two do not
// affect each other; each is closed on its own. Watchers stay with the store they came from.
func (s *Store) Fork() *Store {
	v := *s.view.Load()
	v.log = slices.Clip(v.log)
	return newStore(s.opts, &v)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string, rev int64) (store.GetResult, error) {
	if key == "" || rev < 0 {
		return store.GetResult{}, fmt.Errorf("%w: get of %q at revision %d", store.ErrInvalid, key, rev)
	}
	t, rev, err := s.at(ctx, rev)
	if err != nil {
		return store.GetResult{}, err
	}
	kv, _ := t.Get(key)
	return store.GetResult{KV: kv, Revision: rev}, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, opts store.ListOptions) (store.ListResult, error) {
	if err := opts.Check(); err != nil {
		return store.ListResult{}, err
	}
	t, rev, err := s.at(ctx, opts.Revision)
	if err != nil {
		return store.ListResult{}, err
	}
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
	res := store.ListResult{Revision: rev, More: n < total, Remaining: int64(total - n)}
	if n == 0 {
		return res, nil
	}
	res.KVs = make([]store.KV, 0, n)
	t.Ascend(from, func(_ string, kv *store.KV) bool {
		res.KVs = append(res.KVs, *kv)
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
func (s *Store) at(ctx context.Context, rev int64) (tree, int64, error) {
	if s.closed.Load() {
		return tree{}, 0, store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return tree{}, 0, err
	}
	v := s.view.Load()
	switch {
	case rev == 0 || rev == v.rev:
		return v.tree, v.rev, nil
	case rev < v.floor:
		return tree{}, 0, fmt.Errorf("%w: revision %d, the oldest is %d", store.ErrCompacted, rev, v.floor)
	case rev > v.rev:
		return tree{}, 0, fmt.Errorf("%w: revision %d, the newest is %d", store.ErrFutureRevision, rev, v.rev)
	}
	if o := s.old.Load(); o != nil && o.rev == rev {
		return o.tree, rev, nil
	}
	t := v.log.treeAt(rev)
	s.old.Store(&oldTree{rev: rev, tree: t})
	return t, rev, nil
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
	rev := v.rev + 1
	events := make([]store.Event, 0, len(ops))
	e := v.tree.Edit()
	for i := range ops {
		op := &ops[i]
		prev, _ := e.Get(op.Key)
		mod := int64(0)
		if prev != nil {
			mod = prev.ModRevision
		}
		if !op.If.Holds(mod) {
			return 0, &store.ConflictError{Key: op.Key, If: op.If, Current: prev, Revision: v.rev}
		}
		switch {
		case op.Kind == store.OpPut:
			kv := &store.KV{Key: op.Key, Value: op.Value, CreateRevision: rev, ModRevision: rev}
			if prev != nil {
				kv.CreateRevision = prev.CreateRevision
				kv.Key = prev.Key // versions of a key share one string
			}
			events = append(events, store.Event{KV: *kv, Prev: prev})
			e.Set(kv.Key, kv)
		case op.Kind == store.OpDelete && prev != nil:
			events = append(events, store.Event{KV: store.KV{Key: prev.Key, ModRevision: rev}, Deleted: true, Prev: prev})
			e.Delete(prev.Key)
		}
	}
	if len(events) == 0 {
		return v.rev, nil
	}
	if len(events) > 1 {
		slices.SortFunc(events, func(a, b store.Event) int { return strings.Compare(a.KV.Key, b.KV.Key) })
	}
	next := &view{rev: rev, floor: v.floor, tree: e.Tree()}
	var sealed bool
	next.log, sealed = v.log.append(rev, v.tree, events, s.ownTail)
	s.ownTail = true
	if sealed {
		s.trim(next)
	}
	s.view.Store(next)
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

// trim raises the floor of the view to be published to what the options allow.
func (s *Store) trim(next *view) {
	floor := max(next.floor, next.rev-1-s.opts.History)
	bytes := int64(0)
	for i := len(next.log) - 2; i >= 0; i-- {
		if bytes += next.log[i].bytes.Load(); bytes > s.opts.HistoryBytes {
			floor = max(floor, next.log[i+1].first-1)
			break
		}
	}
	// Waiters are told of what goes, but for that a writer waits only if they are far behind.
	if held := s.hub.Retain(floor); held < floor {
		if next.rev-held < 2*s.opts.History {
			floor = held
		} else {
			s.hub.Scan()
		}
	}
	if floor > next.floor {
		next.floor = floor
		next.log = next.log.trim(floor)
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
	s.hub.Progress(v.rev)
	return v.rev, v.floor, nil
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
	v := *s.view.Load()
	if rev > v.rev {
		return fmt.Errorf("%w: compaction to revision %d, the newest is %d", store.ErrFutureRevision, rev, v.rev)
	}
	if rev <= v.floor {
		return nil
	}
	s.hub.Scan()
	v.floor = rev
	v.log = v.log.trim(rev)
	s.view.Store(&v)
	s.old.Store(nil)
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
	rev = max(rev, v.rev)
	s.view.Store(&view{rev: rev, floor: rev, tree: v.tree})
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
