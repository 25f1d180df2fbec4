package boltstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/internal/cowtree"
	"github.com/keelson/keelson/store/internal/watchhub"
)

// ErrInUse reports a file that another process, or another Store of this one, has open.
var ErrInUse = errors.New("boltstore: in use by another process")

// DamageError reports a file that is not what this package has written.
type DamageError struct {
	Path string
	// Where is the page or record that is wrong.
	Where string
	// What is wrong there.
	What string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("boltstore: %s is damaged or not a Keelson store: %s: %s", e.Path, e.Where, e.What)
}

// Store is a store.Store in a file and, while it is open, its log.
type Store struct {
	opts Options
	path string
	db   *bbolt.DB
	hub  *watchhub.Hub

	view    atomic.Pointer[view]
	tail    tail
	old     oldTrees
	overlay overlay // commits that are not in the file
	frames  frames  // those of them that are in the log, as they are there

	mu      sync.Mutex
	closed  bool
	queue   []*request
	running bool // there is a goroutine in run
	kicked  chan struct{}
	calls   sync.WaitGroup // reads and commits; Close waits for them
	writer  sync.WaitGroup // the goroutines in run and fly, and that of upkeep

	pipeline pipeline

	recordBytes atomic.Int64 // about what all records take

	hurry atomic.Bool // the goroutine in run waits for upkeep
	file  *boltFile   // belongs to upkeep while that goes on, else to the goroutine in run

	// What follows belongs to the goroutine in run.
	log            *wal      // nil until the first commit; fly has it while a batch is in flight
	epoch          int64     // of the log, 0 before there is one
	logged         int64     // the newest revision in the log; later ones are of relaxed commits
	needed         int64     // the first segment that is needed beside the file
	unsettled      *batch    // what a frame of unknown outcome leads to
	unflushedBytes int       // of relaxed commits that are not in the log
	flushAt        time.Time // when they have to be
	reserved       int64     // relaxed commits may use revisions up to here
	sizes          sizes     // bytes of records by revision
	garbage        int64     // bytes of records that are no longer history and perhaps not swept
	upkeep         *upkeep   // what goes on with the file, if anything
	choresAt       time.Time // when to bring the file up to date if nothing else comes
	fileRev        int64     // as s.file has them when no upkeep goes on
	fileSwept      int64
	broken         error // why nothing can be written any more
}

// view is one published revision of the store; it is immutable.
type view struct {
	rev, floor int64
	tree       tree
}

type tree = cowtree.Tree[ref]

var (
	_ store.Store         = (*Store)(nil)
	_ store.Advancer      = (*Store)(nil)
	_ store.EachCommitter = (*Store)(nil)
)

// errMissing says that a record is not there, because it was compacted or the file is damaged.
var errMissing = errors.New("record is missing")

// begin registers a call; the caller calls s.calls.Done when it succeeds.
func (s *Store) begin(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.calls.Add(1)
	return nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string, rev int64) (store.GetResult, error) {
	if key == "" || rev < 0 {
		return store.GetResult{}, fmt.Errorf("%w: get of %q at revision %d", store.ErrInvalid, key, rev)
	}
	if err := s.begin(ctx); err != nil {
		return store.GetResult{}, err
	}
	defer s.calls.Done()
	for {
		t, at, err := s.at(rev)
		if err != nil {
			return store.GetResult{}, err
		}
		r, ok := t.Get(key)
		if !ok {
			return store.GetResult{Revision: at}, nil
		}
		kv := store.KV{Key: key, CreateRevision: r.create, ModRevision: r.mod}
		if kv.Value, ok = s.overlay.get(r); ok {
			return store.GetResult{KV: &kv, Revision: at}, nil
		}
		err = s.read(func(b *bbolt.Bucket) error {
			kv.Value, err = s.value(b, r)
			return err
		})
		if err == nil {
			return store.GetResult{KV: &kv, Revision: at}, nil
		}
		if err := s.retry(err, at, r); err != nil {
			return store.GetResult{}, err
		}
	}
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, opts store.ListOptions) (store.ListResult, error) {
	if err := opts.Check(); err != nil {
		return store.ListResult{}, err
	}
	if err := s.begin(ctx); err != nil {
		return store.ListResult{}, err
	}
	defer s.calls.Done()
	for {
		t, at, err := s.at(opts.Revision)
		if err != nil {
			return store.ListResult{}, err
		}
		res, refs := listTree(t, opts)
		res.Revision = at
		if res.More && opts.Revision == 0 {
			s.old.keep(at, t) // for the pages to come
		}
		if opts.KeysOnly {
			return res, nil
		}
		var bad ref
		err = s.values(ctx, res.KVs, refs, &bad)
		if err == nil {
			return res, nil
		}
		if err := s.retry(err, at, bad); err != nil {
			return store.ListResult{}, err
		}
	}
}

// listTree returns the page without its values, and where they are.
func listTree(t tree, opts store.ListOptions) (store.ListResult, []ref) {
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
	res := store.ListResult{More: n < total, Remaining: int64(total - n)}
	if n == 0 {
		return res, nil
	}
	res.KVs = make([]store.KV, 0, n)
	refs := make([]ref, 0, n)
	t.Ascend(from, func(key string, r *ref) bool {
		res.KVs = append(res.KVs, store.KV{Key: key, CreateRevision: r.create, ModRevision: r.mod})
		refs = append(refs, *r)
		return len(refs) < n
	})
	return res, refs
}

// values fills in the values of kvs, in transactions short enough not to keep pages from being
// used again for long.
func (s *Store) values(ctx context.Context, kvs []store.KV, refs []ref, bad *ref) error {
	const chunk = 512
	for from := 0; from < len(kvs); from += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		to := min(from+chunk, len(kvs))
		err := s.read(func(b *bbolt.Bucket) error {
			for i := from; i < to; i++ {
				v, err := s.value(b, refs[i])
				if err != nil {
					*bad = refs[i]
					return err
				}
				kvs[i].Value = v
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// retry returns nil if err only says that a record was compacted away since the state at
// revision at was looked up, and the error to return otherwise.
func (s *Store) retry(err error, at int64, r ref) error {
	if !errors.Is(err, errMissing) || s.view.Load().floor > at {
		if errors.Is(err, errMissing) {
			return nil
		}
		return err
	}
	return s.damaged(r, "the record is missing")
}

func (s *Store) damaged(r ref, what string) error { return damagedRecord(s.path, r, what) }

func damagedRecord(path string, r ref, what string) error {
	return &DamageError{Path: path, Where: fmt.Sprintf("revision %d, record %d", r.mod, r.index), What: what}
}

// at returns the state at rev.
func (s *Store) at(rev int64) (tree, int64, error) {
	v := s.view.Load()
	switch {
	case rev == 0 || rev == v.rev:
		return v.tree, v.rev, nil
	case rev < v.floor:
		return tree{}, 0, fmt.Errorf("%w: revision %d, the oldest is %d", store.ErrCompacted, rev, v.floor)
	case rev > v.rev:
		return tree{}, 0, fmt.Errorf("%w: revision %d, the newest is %d", store.ErrFutureRevision, rev, v.rev)
	}
	if t, ok := s.old.get(rev); ok {
		return t, rev, nil
	}
	t, err := s.undo(v, rev)
	if err != nil {
		if errors.Is(err, errMissing) && s.view.Load().floor > rev {
			return tree{}, 0, fmt.Errorf("%w: revision %d", store.ErrCompacted, rev)
		}
		return tree{}, 0, err
	}
	s.old.keep(rev, t)
	return t, rev, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	w, err := s.hub.Watch(opts)
	if err != nil {
		return nil, fmt.Errorf("%w: watch after revision %d", err, opts.After)
	}
	return w, nil
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (current, compacted int64, err error) {
	if err := s.begin(ctx); err != nil {
		return 0, 0, err
	}
	defer s.calls.Done()
	v := s.view.Load()
	s.hub.Progress(v.rev)
	return v.rev, v.floor, nil
}

// Close implements store.Store. Relaxed commits are on disk when it returns nil.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.writer.Wait()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.hurry.Store(true)
	s.kick()
	s.hub.Close()
	s.calls.Wait()
	s.writer.Wait()
	err := s.finish()
	if cerr := s.db.Close(); err == nil {
		err = cerr
	}
	return err
}
