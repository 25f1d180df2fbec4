package watchhub

import (
	"context"
	"sync"

	"github.com/keelson/keelson/store"
)

// batchLimit is how many events a batch has before it ends with the revision it is in.
const batchLimit = 1000

// Source is the log that a hub's watchers read.
type Source interface {
	// Bounds returns the newest published revision, and the one after which events are retained.
	Bounds() (current, floor int64)
	// Read returns the events under prefix of the revisions after after, whole revisions up
	// to about limit events, and the revision up to which it has looked, after if that is
	// beyond the newest. It returns store.ErrCompacted if after is below the floor.
	Read(after int64, prefix string, limit int) (events []store.Event, through int64, err error)
	// Changes calls visit for every key changed by the revisions in (after, through].
	Changes(after, through int64, visit func(rev int64, key string)) error
}

// Watcher is a cursor over the source's log.
type Watcher struct {
	hub    *Hub
	prefix *prefixState
	done   chan struct{}
	once   sync.Once

	pos      int64 // everything up to here has been looked at
	reported int64 // the caller knows that
	served   bool  // it has had something
	err      error
}

var _ store.Watcher = (*Watcher)(nil)

// Watch returns a watcher; its errors are those of store.Store.Watch.
func (h *Hub) Watch(opts store.WatchOptions) (*Watcher, error) {
	current, floor := h.src.Bounds()
	w := &Watcher{hub: h, done: make(chan struct{}), pos: opts.After, reported: opts.After}
	switch {
	case opts.After < 0:
		return nil, store.ErrInvalid
	case opts.After == 0:
		w.pos = current
	case opts.After < floor:
		return nil, store.ErrCompacted
	case opts.After > current:
		return nil, store.ErrFutureRevision
	}
	w.prefix = h.acquire(opts.Prefix)
	return w, nil
}

// WatchFrom returns a watcher of what comes after a revision that the source may not have come
// to yet, whose caller knows everything up to reported.
func (h *Hub) WatchFrom(prefix string, after, reported int64) *Watcher {
	return &Watcher{hub: h, done: make(chan struct{}), pos: after, reported: reported, prefix: h.acquire(prefix)}
}

// Position returns the revision up to which the log has been looked at. It is for the
// goroutine that calls Next.
func (w *Watcher) Position() int64 { return w.pos }

// Next implements store.Watcher.
func (w *Watcher) Next(ctx context.Context) (store.Batch, error) {
	var woken *group
	for again := w.served && w.prefix.crowded(); ; again = false {
		select {
		case <-w.done:
			return store.Batch{}, store.ErrClosed
		case <-w.hub.done:
			return store.Batch{}, store.ErrClosed
		default:
		}
		if w.err != nil {
			return store.Batch{}, w.err
		}
		if err := ctx.Err(); err != nil {
			return store.Batch{}, err
		}
		var events []store.Event
		var through int64
		var err error
		if again {
			if woken, err = w.wait(ctx, true); err != nil {
				return store.Batch{}, err
			}
		}
		if woken != nil {
			events, through, err = woken.read(w.hub.src, w.pos, w.prefix.prefix)
		} else {
			events, through, err = w.hub.src.Read(w.pos, w.prefix.prefix, batchLimit)
		}
		if err != nil {
			w.err = err
			return store.Batch{}, err
		}
		w.pos = through
		if len(events) > 0 || min(w.hub.progress.Load(), through) > w.reported {
			w.reported, w.served = through, true
			return store.Batch{Events: events, Revision: through}, nil
		}
		if woken, err = w.wait(ctx, false); err != nil {
			return store.Batch{}, err
		}
	}
}

// wait blocks until there is something new, and perhaps for the watcher's turn, and returns the group that
// has been woken for it, if any.
func (w *Watcher) wait(ctx context.Context, turns bool) (*group, error) {
	g := w.hub.join(w.prefix, w.pos, w.reported, turns)
	if g == nil {
		return nil, nil
	}
	defer func() { w.pos = w.hub.leave(w.prefix, g, w.pos) }()
	select {
	case <-g.wake:
		return g, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-w.done:
		return nil, store.ErrClosed
	case <-w.hub.done:
		return nil, store.ErrClosed
	}
}

// Close implements store.Watcher.
func (w *Watcher) Close() {
	w.once.Do(func() {
		close(w.done)
		w.hub.release(w.prefix)
	})
}
