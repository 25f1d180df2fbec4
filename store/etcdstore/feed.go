package etcdstore

import (
	"context"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/internal/watchhub"
)

const (
	// maxFeedBytes bounds the log in memory, whatever Options.WatchLog says.
	maxFeedBytes = 32 << 20
	// retryAfter is how long a broken feed waits before it tries again, and a request for
	// progress before it is repeated.
	retryAfter = 100 * time.Millisecond
)

// feed is the one upstream watch of everything under the store's prefix, and the log in memory
// that it fills.
type feed struct {
	s   *Store
	hub *watchhub.Hub

	start  sync.Mutex // serializes starting
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wanted atomic.Int64 // progress asked for
	asking atomic.Bool  // there is a goroutine that asks etcd for it

	mu      sync.RWMutex
	started bool
	current int64 // everything up to here is known
	floor   int64 // and in the log from here on
	log     []revision
	events  int
	bytes   int
}

type revision struct {
	rev    int64
	events []event
}

// event is an event whose previous value may have been compacted away before it was sent.
type event struct {
	store.Event
	incomplete bool
}

func newFeed(s *Store) *feed {
	f := &feed{s: s}
	f.hub = watchhub.New(f)
	// The metadata gives the feed a stream of its own: etcd tells of progress when everything on
	// a stream is up to date. A member without a leader ends the watch, so that another is tried.
	ctx := metadata.AppendToOutgoingContext(context.Background(), "keelson-watch", "feed")
	f.ctx, f.cancel = context.WithCancel(clientv3.WithRequireLeader(ctx))
	return f
}

func (f *feed) close() {
	f.start.Lock() // nothing is started after this
	f.cancel()
	f.start.Unlock()
	f.wg.Wait()
	f.hub.Close()
}

// run starts the feed after revision rev, which is etcd's newest or was a moment ago.
func (f *feed) run(rev int64) {
	f.start.Lock()
	defer f.start.Unlock()
	if f.started || f.ctx.Err() != nil {
		return
	}
	f.mu.Lock()
	f.started, f.current, f.floor = true, rev, rev
	f.mu.Unlock()
	f.wg.Go(func() {
		for f.ctx.Err() == nil {
			err := f.follow()
			if f.ctx.Err() != nil {
				return
			}
			f.s.opts.Logger.V(1).Info("Watch was interrupted", "error", err)
			f.sleep()
		}
	})
}

func (f *feed) sleep() {
	timer := time.NewTimer(retryAfter)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.ctx.Done():
	}
}

// follow watches until something breaks. After a compaction of what it has not seen it starts
// a new log; those who needed the old one find out from etcd.
func (f *feed) follow() error {
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	_, current, _ := f.bounds()
	key, end := f.s.bounds("", "")
	ch := f.s.client.Watch(ctx, key, clientv3.WithRange(end), clientv3.WithRev(current+1), clientv3.WithPrevKV())
	for res := range ch {
		if res.CompactRevision > 0 {
			f.s.raiseCompacted(res.CompactRevision)
			rev, err := f.s.newest(ctx)
			if err != nil {
				return err
			}
			f.hub.Scan()
			f.mu.Lock()
			f.current, f.floor, f.log, f.events, f.bytes = rev, rev, nil, 0, 0
			f.mu.Unlock()
			f.hub.Published()
			return store.ErrCompacted
		}
		if err := res.Err(); err != nil {
			return err
		}
		revs := f.s.revisions(res.Events)
		switch {
		case len(revs) > 0:
			f.add(revs)
		case res.IsProgressNotify():
			f.advance(res.Header.Revision)
		}
	}
	return ctx.Err()
}

func (f *feed) bounds() (started bool, current, floor int64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.started, f.current, f.floor
}

// revisions groups etcd's events by revision and puts them into the order of keys.
func (s *Store) revisions(in []*clientv3.Event) []revision {
	var out []revision
	for _, e := range in {
		ev := event{Event: store.Event{KV: s.kv(e.Kv), Deleted: e.Type == clientv3.EventTypeDelete}}
		if ev.Deleted {
			ev.KV.Value, ev.KV.CreateRevision = nil, 0
		}
		if e.PrevKv != nil {
			prev := s.kv(e.PrevKv)
			ev.Prev = &prev
		} else {
			ev.incomplete = ev.Deleted || !e.IsCreate()
		}
		rev := e.Kv.ModRevision
		if len(out) == 0 || out[len(out)-1].rev != rev {
			out = append(out, revision{rev: rev})
		}
		last := &out[len(out)-1]
		last.events = append(last.events, ev)
	}
	for _, r := range out {
		slices.SortFunc(r.events, func(a, b event) int { return strings.Compare(a.KV.Key, b.KV.Key) })
	}
	return out
}

func (e *event) size() int {
	n := 250 + len(e.KV.Key) + len(e.KV.Value)
	if e.Prev != nil {
		n += len(e.Prev.Value)
	}
	return n
}

func (f *feed) add(revs []revision) {
	f.mu.Lock()
	for _, r := range revs {
		if r.rev <= f.current {
			continue
		}
		f.log = append(f.log, r)
		f.current = r.rev
		f.events += len(r.events)
		for i := range r.events {
			f.bytes += r.events[i].size()
		}
	}
	full := f.events > f.s.opts.WatchLog+f.s.opts.WatchLog/4 || f.bytes > maxFeedBytes
	f.mu.Unlock()
	if full {
		f.hub.Scan() // before anything is forgotten
		f.trim()
	}
	f.hub.Published()
}

// trim forgets the oldest events.
func (f *feed) trim() {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(f.log)-1 && (f.events > f.s.opts.WatchLog || f.bytes > maxFeedBytes*3/4) {
		r := &f.log[n]
		f.events -= len(r.events)
		for i := range r.events {
			f.bytes -= r.events[i].size()
		}
		f.floor = r.rev
		n++
	}
	f.log = slices.Clone(f.log[n:])
}

func (f *feed) advance(rev int64) {
	f.mu.Lock()
	f.current = max(f.current, rev)
	f.mu.Unlock()
	f.hub.Published()
}

// progress makes every watcher report rev, for which the feed has to come to it.
func (f *feed) progress(rev int64) {
	f.hub.Progress(rev)
	for {
		old := f.wanted.Load()
		if old >= rev || f.wanted.CompareAndSwap(old, rev) {
			break
		}
	}
	f.ask()
}

// ask asks etcd for progress until the feed is as far as is wanted.
func (f *feed) ask() {
	if started, current, _ := f.bounds(); !started || current >= f.wanted.Load() || !f.hub.Watched() {
		return
	}
	if !f.asking.CompareAndSwap(false, true) {
		return
	}
	f.start.Lock()
	defer f.start.Unlock()
	if f.ctx.Err() != nil {
		return
	}
	f.wg.Go(func() {
		for {
			for f.ctx.Err() == nil {
				if _, current, _ := f.bounds(); current >= f.wanted.Load() {
					break
				}
				// It may come before the watch is there, or be left unanswered; hence again.
				if err := f.s.client.RequestProgress(f.ctx); err != nil {
					f.s.opts.Logger.V(1).Info("Request for progress failed", "error", err)
				}
				f.sleepUntil(f.wanted.Load())
			}
			f.asking.Store(false)
			// More may have been wanted since the last look, by one who saw asking.
			if _, current, _ := f.bounds(); f.ctx.Err() != nil || current >= f.wanted.Load() || !f.asking.CompareAndSwap(false, true) {
				return
			}
		}
	})
}

// sleepUntil waits until the feed has come to rev, for a while.
func (f *feed) sleepUntil(rev int64) {
	deadline := time.Now().Add(retryAfter)
	for wait := 500 * time.Microsecond; f.ctx.Err() == nil && time.Now().Before(deadline); wait *= 2 {
		if _, current, _ := f.bounds(); current >= rev {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-f.ctx.Done():
			timer.Stop()
		}
	}
}

var _ watchhub.Source = (*feed)(nil)

// Bounds implements watchhub.Source.
func (f *feed) Bounds() (current, floor int64) {
	_, current, floor = f.bounds()
	return current, floor
}

// after returns the part of the log behind a revision.
func (f *feed) after(rev int64) (revs []revision, current, floor int64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	i := sort.Search(len(f.log), func(i int) bool { return f.log[i].rev > rev })
	return f.log[i:len(f.log):len(f.log)], f.current, f.floor
}

// Read implements watchhub.Source.
func (f *feed) Read(after int64, prefix string, limit int) ([]store.Event, int64, error) {
	revs, current, floor := f.after(after)
	if after < floor {
		return nil, 0, store.ErrCompacted
	}
	var out []store.Event
	for _, r := range revs {
		matching := len(out)
		for i := range r.events {
			if !strings.HasPrefix(r.events[i].KV.Key, prefix) {
				continue
			}
			if r.events[i].incomplete {
				if matching > 0 {
					return out[:matching], r.rev - 1, nil // the error comes next time
				}
				return nil, 0, errIncomplete
			}
			out = append(out, r.events[i].Event)
		}
		if len(out) >= limit {
			return out, r.rev, nil
		}
	}
	return out, max(after, current), nil
}

// Changes implements watchhub.Source.
func (f *feed) Changes(after, through int64, visit func(rev int64, key string)) error {
	revs, _, floor := f.after(after)
	if after < floor {
		return store.ErrCompacted
	}
	for _, r := range revs {
		if r.rev > through {
			break
		}
		for i := range r.events {
			visit(r.rev, r.events[i].KV.Key)
		}
	}
	return nil
}
