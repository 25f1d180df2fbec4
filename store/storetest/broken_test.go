package storetest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/memstore"
	"github.com/keelson/keelson/store/storetest"
)

// broken is a memstore with what a test replaces.
type broken struct {
	*memstore.Store
	get    func(*memstore.Store, context.Context, string, int64) (store.GetResult, error)
	list   func(*memstore.Store, context.Context, store.ListOptions) (store.ListResult, error)
	commit func(*memstore.Store, context.Context, []store.Op) (int64, error)
	watch  func(*memstore.Store, context.Context, store.WatchOptions) (store.Watcher, error)
	rev    func(*memstore.Store, context.Context) (int64, int64, error)
	each   func(*memstore.Store, context.Context, [][]store.Op) []store.CommitResult
}

func (b *broken) CommitEach(ctx context.Context, commits [][]store.Op) []store.CommitResult {
	if b.each == nil {
		return b.Store.CommitEach(ctx, commits)
	}
	return b.each(b.Store, ctx, commits)
}

func (b *broken) Get(ctx context.Context, key string, rev int64) (store.GetResult, error) {
	if b.get == nil {
		return b.Store.Get(ctx, key, rev)
	}
	return b.get(b.Store, ctx, key, rev)
}

func (b *broken) List(ctx context.Context, opts store.ListOptions) (store.ListResult, error) {
	if b.list == nil {
		return b.Store.List(ctx, opts)
	}
	return b.list(b.Store, ctx, opts)
}

func (b *broken) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	if b.commit == nil {
		return b.Store.Commit(ctx, ops...)
	}
	return b.commit(b.Store, ctx, ops)
}

func (b *broken) Watch(ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
	if b.watch == nil {
		return b.Store.Watch(ctx, opts)
	}
	return b.watch(b.Store, ctx, opts)
}

func (b *broken) Revision(ctx context.Context) (int64, int64, error) {
	if b.rev == nil {
		return b.Store.Revision(ctx)
	}
	return b.rev(b.Store, ctx)
}

// batches breaks a store by changing what its watchers return.
func batches(change func(store.Batch) store.Batch) func() *broken {
	return func() *broken {
		return &broken{watch: func(s *memstore.Store, ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
			w, err := s.Watch(ctx, opts)
			if err != nil {
				return nil, err
			}
			return changedWatcher{w, change}, nil
		}}
	}
}

type changedWatcher struct {
	store.Watcher
	change func(store.Batch) store.Batch
}

func (w changedWatcher) Next(ctx context.Context) (store.Batch, error) {
	b, err := w.Watcher.Next(ctx)
	if err != nil {
		return b, err
	}
	b.Events = slices.Clone(b.Events)
	return w.change(b), nil
}

// skippingWatcher goes on from the compacted revision when it is behind that.
type skippingWatcher struct {
	store.Watcher
	s    *memstore.Store
	opts store.WatchOptions // After is how far it has come
}

func (w *skippingWatcher) Next(ctx context.Context) (store.Batch, error) {
	if _, compacted, err := w.s.Revision(ctx); err == nil && compacted > w.opts.After {
		w.Watcher.Close()
		w.opts.After = compacted
		if w.Watcher, err = w.s.Watch(ctx, w.opts); err != nil {
			return store.Batch{}, err
		}
	}
	b, err := w.Watcher.Next(ctx)
	if err == nil {
		w.opts.After = b.Revision
	}
	return b, err
}

func TestBrokenStoresFail(t *testing.T) {
	leak := make(chan struct{})
	defer close(leak)
	for _, c := range []struct {
		name   string
		make   func() *broken
		reopen func(*memstore.Store) (*memstore.Store, error)
		fails  []string // all of these must fail
	}{
		{
			name: "drops an event",
			make: batches(func(b store.Batch) store.Batch {
				b.Events = slices.DeleteFunc(b.Events, func(e store.Event) bool { return e.KV.ModRevision%5 == 3 })
				return b
			}),
			fails: []string{"Watch/Events", "Watch/AfterRevision", "Watch/Complete", "Watch/SlowWatcher", "Random/2"},
		},
		{
			name: "makes one commit of several",
			make: func() *broken {
				return &broken{each: func(s *memstore.Store, ctx context.Context, commits [][]store.Op) []store.CommitResult {
					rev, err := s.Commit(ctx, slices.Concat(commits...)...)
					return slices.Repeat([]store.CommitResult{{Revision: rev, Err: err}}, len(commits))
				}}
			},
			fails: []string{"Commit/Each"},
		},
		{
			name: "gives up the commits after one that fails",
			make: func() *broken {
				return &broken{each: func(s *memstore.Store, ctx context.Context, commits [][]store.Op) []store.CommitResult {
					out := make([]store.CommitResult, len(commits))
					for i, ops := range commits {
						if i > 0 && out[i-1].Err != nil {
							out[i].Err = out[i-1].Err
							continue
						}
						out[i].Revision, out[i].Err = s.Commit(ctx, ops...)
					}
					return out
				}}
			},
			fails: []string{"Commit/Each"},
		},
		{
			name: "drops delete events",
			make: batches(func(b store.Batch) store.Batch {
				b.Events = slices.DeleteFunc(b.Events, func(e store.Event) bool { return e.Deleted })
				return b
			}),
			fails: []string{"Watch/Events", "Watch/Complete", "Random/2"},
		},
		{
			name:  "reorders events",
			make:  batches(func(b store.Batch) store.Batch { slices.Reverse(b.Events); return b }),
			fails: []string{"Watch/Events", "Watch/SlowWatcher", "Commit/Atomic"},
		},
		{
			name: "repeats an event",
			make: batches(func(b store.Batch) store.Batch {
				if len(b.Events) > 0 {
					b.Events = append(b.Events, b.Events[len(b.Events)-1])
				}
				return b
			}),
			fails: []string{"Watch/Events", "Watch/FromNow", "Random/1"},
		},
		{
			name: "forgets the previous value",
			make: batches(func(b store.Batch) store.Batch {
				for i := range b.Events {
					b.Events[i].Prev = nil
				}
				return b
			}),
			fails: []string{"Watch/Events", "Watch/Complete"},
		},
		{
			name: "reports revisions it has not reached",
			make: batches(func(b store.Batch) store.Batch {
				if n := len(b.Events); n > 1 {
					b.Events = b.Events[:n-1]
				}
				return b
			}),
			fails: []string{"Watch/Events", "Watch/Complete"},
		},
		{
			name: "reports no progress",
			make: func() *broken {
				return &broken{rev: func(s *memstore.Store, ctx context.Context) (int64, int64, error) {
					res, err := s.List(ctx, store.ListOptions{Limit: 1})
					return res.Revision, 1, err
				}}
			},
			fails: []string{"Watch/Progress"},
		},
		{
			name: "ignores the prefix",
			make: func() *broken {
				return &broken{watch: func(s *memstore.Store, ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
					opts.Prefix = ""
					return s.Watch(ctx, opts)
				}}
			},
			fails: []string{"Watch/Prefix", "Watch/Complete", "Watch/Progress"},
		},
		{
			name: "lets a stale compare-and-set through",
			make: func() *broken {
				return &broken{commit: func(s *memstore.Store, ctx context.Context, ops []store.Op) (int64, error) {
					ops = slices.Clone(ops)
					for i := range ops {
						if rev, ok := ops[i].If.Revision(); ok && rev > 0 {
							ops[i].If = store.Present()
						}
					}
					return s.Commit(ctx, ops...)
				}}
			},
			fails: []string{"Commit/Conditions", "Commit/CompareAndSwap", "Random/0", "Linearizable"},
		},
		{
			name: "commits op by op",
			make: func() *broken {
				return &broken{commit: func(s *memstore.Store, ctx context.Context, ops []store.Op) (rev int64, err error) {
					if err := store.CheckOps(ops); err != nil || len(ops) == 0 {
						return s.Commit(ctx, ops...)
					}
					for _, op := range ops {
						if rev, err = s.Commit(ctx, op); err != nil {
							return 0, err
						}
					}
					return rev, nil
				}}
			},
			fails: []string{"Commit/Atomic", "Random/1"},
		},
		{
			name: "stale read",
			make: func() *broken {
				return &broken{get: func(s *memstore.Store, ctx context.Context, key string, rev int64) (store.GetResult, error) {
					if now, err := s.List(ctx, store.ListOptions{Limit: 1}); rev == 0 && err == nil && now.Revision > 3 {
						rev = now.Revision - 1
					}
					return s.Get(ctx, key, rev)
				}}
			},
			fails: []string{"Commit/PutGet", "Read/Linearizable", "Random/0", "Linearizable"},
		},
		{
			name: "reads the newest for an old revision",
			make: func() *broken {
				return &broken{list: func(s *memstore.Store, ctx context.Context, opts store.ListOptions) (store.ListResult, error) {
					rev := opts.Revision
					opts.Revision = 0
					res, err := s.List(ctx, opts)
					if rev != 0 {
						res.Revision = rev
					}
					return res, err
				}}
			},
			fails: []string{"Read/AtRevision", "Read/ListPages", "Compact/OldRevisions", "Random/2"},
		},
		{
			name: "aliases a returned slice",
			make: func() *broken {
				var mu sync.Mutex
				var buf []store.KV
				return &broken{list: func(s *memstore.Store, ctx context.Context, opts store.ListOptions) (store.ListResult, error) {
					mu.Lock()
					defer mu.Unlock()
					res, err := s.List(ctx, opts)
					buf = append(buf[:0], res.KVs...)
					res.KVs = buf[:len(res.KVs):len(res.KVs)]
					return res, err
				}}
			},
			fails: []string{"Read/ResultsAreStable"},
		},
		{
			name: "aliases a returned value",
			make: func() *broken {
				buf := make([]byte, 1<<21)
				return &broken{get: func(s *memstore.Store, ctx context.Context, key string, rev int64) (store.GetResult, error) {
					res, err := s.Get(ctx, key, rev)
					if res.KV != nil {
						kv := *res.KV
						kv.Value = buf[:copy(buf, kv.Value)]
						res.KV = &kv
					}
					return res, err
				}}
			},
			fails: []string{"Read/ResultsAreStable"},
		},
		{
			name: "replays after compaction",
			make: func() *broken {
				return &broken{watch: func(s *memstore.Store, ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
					w, err := s.Watch(ctx, opts)
					if errors.Is(err, store.ErrCompacted) {
						_, opts.After, _ = s.Revision(ctx)
						return s.Watch(ctx, opts)
					}
					return w, err
				}}
			},
			fails: []string{"Compact/OldRevisions"},
		},
		{
			name: "skips what was compacted",
			make: func() *broken {
				return &broken{watch: func(s *memstore.Store, ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
					w, err := s.Watch(ctx, opts)
					return &skippingWatcher{w, s, opts}, err
				}}
			},
			fails: []string{"Compact/SlowWatcher"},
		},
		{
			name: "leaks a goroutine",
			make: func() *broken {
				return &broken{watch: func(s *memstore.Store, ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
					go func() { <-leak }()
					return s.Watch(ctx, opts)
				}}
			},
			fails: []string{"Watch/Close", "Life/Close"},
		},
		{
			name: "ends a watch with its context",
			make: func() *broken {
				return &broken{watch: func(s *memstore.Store, ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
					w, err := s.Watch(ctx, opts)
					if err == nil {
						context.AfterFunc(ctx, w.Close)
					}
					return w, err
				}}
			},
			fails: []string{"Watch/ContextEnds"},
		},
		{
			name: "forgets a key after reopen",
			reopen: func(s *memstore.Store) (*memstore.Store, error) {
				f := s.Fork()
				_, err := f.Commit(context.Background(), store.Delete("k05", store.Any()))
				return f, err
			},
			fails: []string{"Reopen/Everything"},
		},
		{
			name: "acknowledges before it is durable",
			// The last commit of a counter that every commit moves is not there again.
			reopen: func(s *memstore.Store) (*memstore.Store, error) { return replay(s, 1) },
			fails:  []string{"Reopen/Everything", "Reopen/Revisions", "Reopen/History"},
		},
		{
			name: "reuses revisions after reopen",
			reopen: func(s *memstore.Store) (*memstore.Store, error) {
				f, err := memstore.New(memstore.Options{})
				if err != nil {
					return nil, err
				}
				res, err := s.Fork().List(context.Background(), store.ListOptions{})
				if err != nil {
					return nil, err
				}
				for _, kv := range res.KVs {
					if _, err := f.Commit(context.Background(), store.Put(kv.Key, kv.Value, store.Any())); err != nil {
						return nil, err
					}
				}
				return f, nil
			},
			fails: []string{"Reopen/Revisions", "Reopen/Everything", "Reopen/Compacted"},
		},
		{
			name: "forgets compaction after reopen",
			reopen: func(s *memstore.Store) (*memstore.Store, error) {
				f, err := memstore.New(memstore.Options{})
				for i := 0; err == nil && i < 13; i++ {
					_, err = f.Commit(context.Background(), store.Put("k0", nil, store.Any()))
				}
				return f, err
			},
			fails: []string{"Reopen/Compacted"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := storetest.Factory{
				Timeout: 2 * time.Second,
				New: func(context.Context) (store.Store, error) {
					s, err := memstore.New(memstore.Options{})
					if c.make == nil || err != nil {
						return s, err
					}
					b := c.make()
					b.Store = s
					return b, nil
				},
			}
			if c.reopen != nil {
				f.Reopen = func(_ context.Context, s store.Store) (store.Store, error) { return c.reopen(s.(*memstore.Store)) }
			}
			failed := storetest.Check(t.Context(), f, c.fails...)
			for _, name := range c.fails {
				if failed[name] == nil {
					t.Errorf("%s passes", name)
				} else {
					t.Logf("%s: %v", name, failed[name])
				}
			}
		})
	}
}

// replay returns a store that has been through what s has, but for its last n commits.
func replay(s *memstore.Store, n int) (*memstore.Store, error) {
	ctx := context.Background()
	f, err := memstore.New(memstore.Options{})
	if err != nil {
		return nil, err
	}
	from := s.Fork()
	defer from.Close()
	current, floor, err := from.Revision(ctx)
	if err != nil || floor > 1 {
		return f, err
	}
	w, err := from.Watch(ctx, store.WatchOptions{After: 1})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	byRev := map[int64][]store.Op{}
	for reached := int64(0); reached < current; {
		b, err := w.Next(ctx)
		if err != nil {
			return nil, err
		}
		reached = b.Revision
		for _, e := range b.Events {
			op := store.Put(e.KV.Key, e.KV.Value, store.Any())
			if e.Deleted {
				op = store.Delete(e.KV.Key, store.Any())
			}
			byRev[e.KV.ModRevision] = append(byRev[e.KV.ModRevision], op)
		}
	}
	for rev := int64(2); rev <= current-int64(n); rev++ {
		if _, err := f.Commit(ctx, byRev[rev]...); err != nil {
			return nil, err
		}
	}
	return f, nil
}
