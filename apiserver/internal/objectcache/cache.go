package objectcache

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/store"
)

// Options configures a Cache.
type Options struct {
	// Prefix is the root of all keys, with a trailing slash; required.
	Prefix string
	// HistoryEvents and HistoryBytes bound the events kept per resource; required.
	HistoryEvents int
	HistoryBytes  int64
	Clock         clock.Clock
	Logger        logr.Logger
}

// Cache is the decoded state of a store below one prefix.
type Cache struct {
	opts      Options
	store     store.Store
	resources map[string]*Resource // by prefix without root and trailing slash
	ordered   []*Resource

	revision atomic.Int64
	// applyMu orders changes: the watch's and those committed here.
	applyMu sync.Mutex
	early   map[int64][]change // committed here, but not all before them is known yet

	waitMu  sync.Mutex
	waiters []waiter

	pendMu  sync.Mutex
	pending map[string][]*pending // by key

	ready   chan struct{}
	stopped chan struct{}
	ran     atomic.Bool
}

type waiter struct {
	rev int64
	ch  chan struct{}
}

// change is one event before it is applied.
type change struct {
	res      *Resource
	rev      int64
	reported int64 // resourceVersion of a deleted object
	deleted  bool
	key      string
	obj      *Object // the new state; of a deletion, once applied, the last one
	prev     *Object // once applied
}

// pending is a value on its way to the store and what it decodes to.
type pending struct {
	obj   runtime.Object
	value []byte
	made  *Object // guarded by Cache.pendMu
}

// New returns an empty cache of s. Resources are added before Run.
func New(s store.Store, o Options) *Cache {
	return &Cache{
		opts: o, store: s,
		resources: map[string]*Resource{},
		early:     map[int64][]change{},
		pending:   map[string][]*pending{},
		ready:     make(chan struct{}),
		stopped:   make(chan struct{}),
	}
}

// Add adds the resource whose keys are root + prefix + "/" + key.
func (c *Cache) Add(prefix string, codec Codec, indexes []Index) (*Resource, error) {
	if _, ok := c.resources[prefix]; ok {
		return nil, fmt.Errorf("objectcache: prefix %q is used twice", prefix)
	}
	if prefix == "" || strings.Count(prefix, "/") > 1 {
		return nil, fmt.Errorf("objectcache: prefix is %q, want one or two path segments", prefix)
	}
	r := &Resource{
		prefix: c.opts.Prefix + prefix + "/", codec: codec, cache: c, tree: newTree(),
		log: eventLog{maxEvents: c.opts.HistoryEvents, maxBytes: c.opts.HistoryBytes},
	}
	for _, x := range indexes {
		r.indexes = append(r.indexes, &index{Index: x, buckets: map[string]*bucket{}})
	}
	c.resources[prefix] = r
	c.ordered = append(c.ordered, r)
	return r, nil
}

// resourceOf finds the resource of a full key.
func (c *Cache) resourceOf(key string) *Resource {
	rest := strings.TrimPrefix(key, c.opts.Prefix)
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		return nil
	}
	if r := c.resources[rest[:i]]; r != nil {
		return r
	}
	if j := strings.IndexByte(rest[i+1:], '/'); j >= 0 {
		return c.resources[rest[:i+1+j]]
	}
	return nil
}

// Revision is the store revision up to which everything is in the cache.
func (c *Cache) Revision() int64 { return c.revision.Load() }

// Ready is closed when the store has been loaded.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// Stopped is closed when Run has ended.
func (c *Cache) Stopped() <-chan struct{} { return c.stopped }

// Wait blocks until the cache has reached rev. Errors: the context's, ErrStopped.
func (c *Cache) Wait(ctx context.Context, rev int64) error {
	if c.revision.Load() >= rev {
		return nil
	}
	c.waitMu.Lock()
	if c.revision.Load() >= rev {
		c.waitMu.Unlock()
		return nil
	}
	ch := make(chan struct{})
	c.waiters = append(c.waiters, waiter{rev, ch})
	c.waitMu.Unlock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.stopped:
		return ErrStopped
	}
}

// Sync blocks until the cache has everything that was committed before the call, by whomever. Errors: those of
// Wait and of the store.
func (c *Cache) Sync(ctx context.Context) error {
	rev, _, err := c.store.Revision(ctx)
	if err != nil {
		return err
	}
	return c.Wait(ctx, rev)
}

// advance publishes that everything up to rev is applied. Called with applyMu held.
func (c *Cache) advance(rev int64) {
	c.revision.Store(rev)
	c.waitMu.Lock()
	if len(c.waiters) > 0 {
		keep := c.waiters[:0]
		for _, w := range c.waiters {
			if w.rev <= rev {
				close(w.ch)
			} else {
				keep = append(keep, w)
			}
		}
		clear(c.waiters[len(keep):])
		c.waiters = keep
	}
	c.waitMu.Unlock()
}

// Run loads the store and follows its watch until ctx ends (nil is never returned). Once only.
func (c *Cache) Run(ctx context.Context) error {
	if !c.ran.CompareAndSwap(false, true) {
		return errors.New("objectcache: Run called twice")
	}
	defer close(c.stopped)
	rev, err := c.load(ctx)
	if err != nil {
		return err
	}
	for {
		w, err := c.store.Watch(ctx, store.WatchOptions{Prefix: c.opts.Prefix, After: rev})
		if err == nil {
			err = c.follow(ctx, w)
			w.Close()
		}
		rev = c.Revision()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, store.ErrClosed):
			return err
		case errors.Is(err, store.ErrCompacted), errors.Is(err, store.ErrFutureRevision):
			if err := c.reload(ctx); err != nil {
				return err
			}
			rev = c.Revision()
		default:
			c.opts.Logger.Error(err, "watching the store failed, trying again")
			select {
			case <-c.opts.Clock.After(time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

const loadPage = 5000

// load reads everything there is.
func (c *Cache) load(ctx context.Context) (int64, error) {
	all, rev, err := c.listAll(ctx)
	if err != nil {
		return 0, fmt.Errorf("objectcache: loading the store: %w", err)
	}
	c.applyMu.Lock()
	defer c.applyMu.Unlock()
	for _, r := range c.ordered {
		r.load(all[r], rev)
	}
	c.advance(rev)
	close(c.ready)
	return rev, nil
}

func (c *Cache) listAll(ctx context.Context) (map[*Resource][]*Object, int64, error) {
	all := map[*Resource][]*Object{}
	opts := store.ListOptions{Prefix: c.opts.Prefix, Limit: loadPage}
	for {
		page, err := c.store.List(ctx, opts)
		if err != nil {
			return nil, 0, err
		}
		for i, o := range c.decodeAll(page.KVs) {
			if o != nil {
				r := c.resourceOf(page.KVs[i].Key)
				all[r] = append(all[r], o)
			}
		}
		opts.Revision = page.Revision
		if !page.More || len(page.KVs) == 0 {
			return all, page.Revision, nil
		}
		opts.After = page.KVs[len(page.KVs)-1].Key
	}
}

// decodeAll decodes what belongs to a resource, on all processors if there is much; others are nil.
func (c *Cache) decodeAll(kvs []store.KV) []*Object {
	out := make([]*Object, len(kvs))
	one := func(i int) {
		if r := c.resourceOf(kvs[i].Key); r != nil {
			out[i] = c.decode(r, &kvs[i])
		}
	}
	const part = 256
	var wg sync.WaitGroup
	for from := 0; from < len(kvs); from += part {
		to := min(from+part, len(kvs))
		if to == len(kvs) {
			for i := from; i < to; i++ {
				one(i)
			}
			break
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := from; i < to; i++ {
				one(i)
			}
		}()
	}
	wg.Wait()
	return out
}

func (c *Cache) decode(r *Resource, kv *store.KV) *Object {
	obj, err := r.codec.Decode(kv.Value)
	if err != nil {
		c.opts.Logger.Error(err, "stored object cannot be decoded and is not served", "key", kv.Key)
		return nil
	}
	return newObject(strings.Clone(kv.Key[len(r.prefix):]), obj, kv.Value, kv.ModRevision)
}

func newObject(key string, obj runtime.Object, value []byte, rev int64) *Object {
	setRevision(obj, rev)
	return &Object{key: key, rev: rev, obj: obj, value: value, raw: rawMessage(value)}
}

// follow applies the watcher's batches.
func (c *Cache) follow(ctx context.Context, w store.Watcher) error {
	for {
		b, err := w.Next(ctx)
		if err != nil {
			return err
		}
		if b.Revision <= c.Revision() {
			continue
		}
		// Decoding is outside of the lock; most of it is not needed, being committed here.
		changes := make([]change, 0, len(b.Events))
		done := c.Revision()
		for i := range b.Events {
			e := &b.Events[i]
			if e.KV.ModRevision <= done {
				continue
			}
			r := c.resourceOf(e.KV.Key)
			if r == nil {
				continue
			}
			ch := change{res: r, rev: e.KV.ModRevision, reported: e.KV.ModRevision, deleted: e.Deleted, key: e.KV.Key[len(r.prefix):]}
			if e.Deleted {
				// A client that resumes behind one of several deletions of one revision must not miss the others.
				if i+1 < len(b.Events) && b.Events[i+1].KV.ModRevision == ch.rev {
					ch.reported--
				}
			} else if ch.obj = c.claim(&e.KV); ch.obj == nil {
				if e.KV.ModRevision <= c.Revision() {
					continue // its writer has applied it meanwhile, and forgotten it
				}
				if ch.obj = c.decode(r, &e.KV); ch.obj == nil {
					continue
				}
			}
			changes = append(changes, ch)
		}
		c.applyMu.Lock()
		now := c.Revision()
		for len(changes) > 0 && changes[0].rev <= now {
			changes = changes[1:]
		}
		if b.Revision > now {
			applyGrouped(changes)
			c.advance(b.Revision)
			c.drainEarly()
		}
		c.applyMu.Unlock()
	}
}

// applyGrouped applies changes in order, consecutive ones of a resource under one lock.
func applyGrouped(changes []change) {
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && changes[n].res == changes[0].res {
			n++
		}
		changes[0].res.apply(changes[:n])
		changes = changes[n:]
	}
}

// commit is what one revision changed that was committed here.
type commit struct {
	rev     int64
	changes []change
}

// committed applies commits, which are in order: at once those before which all is known, the others when that is.
func (c *Cache) committed(commits ...commit) {
	c.applyMu.Lock()
	defer c.applyMu.Unlock()
	for len(commits) > 0 {
		now, n := c.Revision(), 0
		var changes []change
		for n < len(commits) && commits[n].rev == now+1+int64(n) {
			changes = append(changes, commits[n].changes...)
			n++
		}
		if n > 0 {
			applyGrouped(changes)
			c.advance(now + int64(n))
			c.drainEarly()
			commits = commits[n:]
			continue
		}
		if commits[0].rev > now {
			c.early[commits[0].rev] = commits[0].changes
		}
		commits = commits[1:]
	}
}

// drainEarly applies what waited for the present revision, and forgets what the watch brought first.
func (c *Cache) drainEarly() {
	if len(c.early) == 0 {
		return
	}
	for {
		now := c.Revision()
		changes, ok := c.early[now+1]
		if !ok {
			break
		}
		delete(c.early, now+1)
		applyGrouped(changes)
		c.advance(now + 1)
	}
	now := c.Revision()
	for rev := range c.early {
		if rev <= now {
			delete(c.early, rev)
		}
	}
}

// reload compares the cache with a store whose history is gone, and applies the differences.
func (c *Cache) reload(ctx context.Context) error {
	all, rev, err := c.listAll(ctx)
	if err != nil {
		return fmt.Errorf("objectcache: reloading the store: %w", err)
	}
	c.applyMu.Lock()
	defer c.applyMu.Unlock()
	if rev <= c.Revision() {
		return nil
	}
	for _, r := range c.ordered {
		var changes []change
		have := map[string]bool{}
		for _, o := range all[r] {
			have[o.key] = true
			if old := r.Get(o.key); old == nil || old.rev != o.rev {
				changes = append(changes, change{res: r, rev: o.rev, key: o.key, obj: o})
			}
		}
		r.Snapshot().Ascend("", "", func(o *Object) bool {
			if !have[o.key] {
				changes = append(changes, change{res: r, rev: rev, reported: rev, deleted: true, key: o.key})
			}
			return true
		})
		sort.SliceStable(changes, func(i, j int) bool { return changes[i].rev < changes[j].rev })
		if len(changes) > 0 {
			r.apply(changes)
		}
	}
	c.advance(rev)
	c.drainEarly()
	return nil
}

// Historic reads the state of a resource at an old revision from the store. Errors are the store's.
func (r *Resource) Historic(ctx context.Context, rev int64) (*Snapshot, error) {
	s := &Snapshot{Revision: rev, tree: newTree()}
	opts := store.ListOptions{Prefix: r.prefix, Limit: loadPage, Revision: rev}
	for {
		page, err := r.cache.store.List(ctx, opts)
		if err != nil {
			return nil, err
		}
		for _, o := range r.cache.decodeAll(page.KVs) {
			if o != nil {
				s.tree.ReplaceOrInsert(o)
			}
		}
		if !page.More || len(page.KVs) == 0 {
			return s, nil
		}
		opts.After = page.KVs[len(page.KVs)-1].Key
	}
}

// Oldest is the oldest revision after which all events are retained.
func (r *Resource) Oldest() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.log.dropped
}
