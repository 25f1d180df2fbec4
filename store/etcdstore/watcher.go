package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/internal/watchhub"
)

// errIncomplete is returned for an event whose previous value was compacted away: it is after
// a revision that can no longer be watched from.
var errIncomplete = fmt.Errorf("%w: the previous value of an event", store.ErrCompacted)

// watcher reads the feed's log, or etcd when it needs what is older.
type watcher struct {
	s      *Store
	prefix string
	done   chan struct{} // closed by Close

	mu     sync.Mutex
	closed bool
	cancel context.CancelFunc // of the upstream watch
	cursor *watchhub.Watcher  // on the feed, nil while it catches up

	pos      int64 // everything up to here was reported, or is known to the caller
	reported int64
	stream   context.Context // of the upstream watch; it names its gRPC stream
	upstream clientv3.WatchChan
	err      error
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
	if opts.After < 0 {
		return nil, fmt.Errorf("%w: watch after revision %d", store.ErrInvalid, opts.After)
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	res, err := s.client.Get(ctx, s.opts.Prefix+"\x00", clientv3.WithRev(opts.After), clientv3.WithCountOnly())
	if err != nil {
		return nil, s.readError(ctx, err, fmt.Sprintf("watch after revision %d", opts.After))
	}
	s.feed.run(res.Header.Revision)
	w := &watcher{s: s, prefix: opts.Prefix, done: make(chan struct{}), pos: opts.After, reported: opts.After}
	if opts.After == 0 {
		w.pos = res.Header.Revision
	}
	w.attach()
	s.feed.ask()
	return w, nil
}

// attach makes the watcher read the feed if that has what the watcher needs.
func (w *watcher) attach() {
	_, floor := w.s.feed.Bounds()
	if w.pos < floor {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		w.cancel()
		w.cancel, w.upstream = nil, nil
	}
	if !w.closed {
		w.cursor = w.s.feed.hub.WatchFrom(w.prefix, w.pos, w.reported)
	}
}

// Next implements store.Watcher.
func (w *watcher) Next(ctx context.Context) (store.Batch, error) {
	for {
		w.mu.Lock()
		closed, cursor := w.closed, w.cursor
		w.mu.Unlock()
		if closed || w.s.isClosed() {
			return store.Batch{}, store.ErrClosed
		}
		if w.err != nil {
			return store.Batch{}, w.err
		}
		if err := ctx.Err(); err != nil {
			return store.Batch{}, err
		}
		if cursor == nil {
			b, err := w.catchUp(ctx)
			if err != nil || len(b.Events) > 0 {
				return b, err
			}
			continue
		}
		b, err := cursor.Next(ctx)
		switch {
		case err == nil:
			w.pos, w.reported = b.Revision, b.Revision
			return b, nil
		case errors.Is(err, errIncomplete):
			w.err = err
		case errors.Is(err, store.ErrCompacted):
			// The feed has forgotten it; etcd may not have.
			w.mu.Lock()
			w.pos = max(w.pos, cursor.Position())
			w.cursor = nil
			w.mu.Unlock()
			cursor.Close()
		default:
			return store.Batch{}, err
		}
	}
}

// catchUp reads one answer of an upstream watch of its own. It returns an empty batch when it
// has got nothing, or has caught up with the feed.
func (w *watcher) catchUp(ctx context.Context) (store.Batch, error) {
	if w.upstream == nil {
		// A stream of its own, which etcd tells of progress as soon as this watch is up to date.
		name := fmt.Sprint("catch-up ", w.s.streams.Add(1))
		up, cancel := context.WithCancel(metadata.AppendToOutgoingContext(
			clientv3.WithRequireLeader(context.Background()), "keelson-watch", name))
		w.mu.Lock()
		if w.closed {
			w.mu.Unlock()
			cancel()
			return store.Batch{}, store.ErrClosed
		}
		w.cancel = cancel
		w.mu.Unlock()
		// The whole of the store is watched, so as to know how far it has come.
		key, end := w.s.bounds("", "")
		w.stream = up
		w.upstream = w.s.client.Watch(up, key, clientv3.WithRange(end), clientv3.WithRev(w.pos+1), clientv3.WithPrevKV())
	}
	timer := time.NewTimer(retryAfter)
	defer timer.Stop()
	select {
	case res, ok := <-w.upstream:
		switch {
		case res.CompactRevision > 0:
			w.s.raiseCompacted(res.CompactRevision)
			w.err = fmt.Errorf("%w: watch after revision %d", store.ErrCompacted, w.pos)
			return store.Batch{}, w.err
		case !ok || res.Err() != nil:
			w.drop()
			return store.Batch{}, w.pause(ctx)
		case res.IsProgressNotify():
			w.pos = max(w.pos, res.Header.Revision)
			w.attach()
			return store.Batch{}, nil
		}
		var b store.Batch
		for _, r := range w.s.revisions(res.Events) {
			for i := range r.events {
				if !strings.HasPrefix(r.events[i].KV.Key, w.prefix) {
					continue
				}
				if r.events[i].incomplete {
					w.err = errIncomplete
					break
				}
				b.Events = append(b.Events, r.events[i].Event)
			}
			if w.err != nil {
				// Of the revision that cannot be reported, nothing is.
				n := len(b.Events)
				for n > 0 && b.Events[n-1].KV.ModRevision == r.rev {
					n--
				}
				b.Events = b.Events[:n]
				break
			}
			w.pos = r.rev
		}
		if len(b.Events) > 0 {
			b.Revision = w.pos
			w.reported = w.pos
		}
		if w.err == nil {
			w.attach()
		} else if len(b.Events) == 0 {
			return store.Batch{}, w.err
		}
		return b, nil
	case <-timer.C:
		return store.Batch{}, w.askProgress()
	case <-ctx.Done():
		return store.Batch{}, ctx.Err()
	case <-w.done:
		return store.Batch{}, store.ErrClosed
	case <-w.s.done:
		w.drop()
		return store.Batch{}, store.ErrClosed
	}
}

// askProgress asks how far the upstream watch has come; there may be nothing it could tell of.
func (w *watcher) askProgress() error {
	ctx, cancel := context.WithTimeout(w.stream, retryAfter)
	defer cancel()
	if err := w.s.client.RequestProgress(ctx); err != nil {
		w.s.opts.Logger.V(1).Info("Request for progress failed", "error", err)
	}
	return nil
}

// drop ends the upstream watch.
func (w *watcher) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		w.cancel()
		w.cancel = nil
	}
	w.upstream = nil
}

// pause waits a moment before an interrupted watch is tried again.
func (w *watcher) pause(ctx context.Context) error {
	timer := time.NewTimer(retryAfter)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-w.done:
		return store.ErrClosed
	case <-w.s.done:
		return store.ErrClosed
	}
}

// Close implements store.Watcher.
func (w *watcher) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	close(w.done)
	if w.cancel != nil {
		w.cancel()
	}
	if w.cursor != nil {
		w.cursor.Close()
	}
}
