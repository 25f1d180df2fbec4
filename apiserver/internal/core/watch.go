package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
)

// bookmarkEvery is how often an idle watch that allows it reports how far it is.
const bookmarkEvery = time.Minute

// Event is one event of a watch.
type Event struct {
	Type watch.EventType
	// Object is the new state; of a DELETED event the last one, with the revision of the deletion. Nil for a BOOKMARK.
	Object *Object
	// Revision is the resourceVersion of Object, or of the bookmark.
	Revision int64
	// InitialEventsEnd marks the bookmark that carries the annotation k8s.io/initial-events-end.
	InitialEventsEnd bool
}

// Watch is a cursor over the events of a resource. It is used by one goroutine at a time.
type Watch struct {
	cursor    *objectcache.Cursor
	predicate *predicate
	initial   []*Object // still to be sent as ADDED
	endAt     int64     // revision of the bookmark that ends the initial events; 0 if there is none
	after     int64     // events up to it were not asked for, though they may be yet to come
	bookmarks bool
	timer     clock.Timer
	clock     clock.WithTicker
	stopped   <-chan struct{}
}

// Watch returns a cursor over the events after opts.ResourceVersion, or after sending what there is. The
// caller closes it.
func (c *Core) Watch(ctx context.Context, t Target, opts ListOptions) (*Watch, error) {
	if err := c.authorize(ctx, t, "watch", &opts); err != nil {
		return nil, err
	}
	if err := t.serves("watch"); err != nil {
		return nil, err
	}
	if errs := validateListOptions(opts, true); len(errs) > 0 {
		return nil, invalidOptions("ListOptions", errs)
	}
	p, err := newPredicate(&t, opts)
	if err != nil {
		return nil, err
	}
	rv, err := parseUint(opts.ResourceVersion)
	if err != nil { // as kube-apiserver: a plain message and the code 500
		return nil, field.Invalid(field.NewPath("resourceVersion"), opts.ResourceVersion, err.Error())
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, err
	}
	w := &Watch{predicate: p, bookmarks: opts.AllowWatchBookmarks, clock: c.opts.Clock, stopped: c.cache.Stopped()}
	cache := t.Resource.stored.cache

	// Without resourceVersion, and with "0", a watch begins with what there is, unless it says that it doesn't want that.
	initial := rv == 0
	if opts.SendInitialEvents != nil {
		initial = *opts.SendInitialEvents
	}
	switch {
	case initial:
		if err := c.freshness(ctx, opts.ResourceVersion, rv); err != nil {
			return nil, err
		}
		snap := cache.Snapshot()
		l := p.collect(cache, snap, "", 0)
		w.initial = l.Items
		if opts.SendInitialEvents != nil && opts.AllowWatchBookmarks {
			w.endAt = snap.Revision
		}
		rv = snap.Revision
	case rv == 0:
		if err := c.freshness(ctx, opts.ResourceVersion, rv); err != nil {
			return nil, err
		}
		rv = cache.Snapshot().Revision
	}
	w.after = rv
	if p.index != "" {
		w.cursor, err = cache.IndexCursor(rv, p.index, p.indexValue)
	} else {
		w.cursor, err = cache.Cursor(rv, false)
	}
	if err != nil {
		return nil, watchExpired(rv, cache.Oldest())
	}
	return w, nil
}

func watchExpired(rv, oldest int64) error {
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", rv, oldest))
}

// Next appends to buf the events there are, at least one, not more than buf's capacity leaves room for (but at least one), blocking
// until there is one. Errors: the context's; 410 Expired when the next event is no longer retained; 503 when the Core stops.
func (w *Watch) Next(ctx context.Context, buf []Event) ([]Event, error) {
	room := max(cap(buf)-len(buf), 1)
	if len(w.initial) > 0 {
		n := min(room, len(w.initial))
		for _, o := range w.initial[:n] {
			buf = append(buf, Event{Type: watch.Added, Object: o, Revision: o.Revision()})
		}
		w.initial = w.initial[n:]
		return buf, nil
	}
	if w.endAt != 0 {
		buf = append(buf, Event{Type: watch.Bookmark, Revision: w.endAt, InitialEventsEnd: true})
		w.endAt = 0
		return buf, nil
	}
	if w.bookmarks && w.timer == nil {
		w.timer = w.clock.NewTimer(bookmarkEvery)
	}
	var due <-chan time.Time
	if w.timer != nil {
		due = w.timer.C()
	}
	before := len(buf)
	for {
		events, rev, wake, err := w.cursor.Poll(room)
		if err != nil {
			return buf, apierrors.NewResourceExpired("too old resource version: the watch is too slow, its next event is no longer retained")
		}
		for _, e := range events {
			if e.Revision > w.after {
				buf = w.predicate.appendEvent(buf, e)
			}
		}
		if len(buf) > before {
			return buf, nil
		}
		if len(events) > 0 {
			if ctx.Err() != nil {
				return buf, ctx.Err()
			}
			continue
		}
		select {
		case <-wake:
		case <-due:
			w.timer.Reset(bookmarkEvery)
			return append(buf, Event{Type: watch.Bookmark, Revision: rev}), nil
		case <-ctx.Done():
			return buf, ctx.Err()
		case <-w.stopped:
			return buf, storeError(objectcache.ErrStopped)
		}
	}
}

// Close releases the watch; idempotent.
func (w *Watch) Close() {
	w.cursor.Close()
	if w.timer != nil {
		w.timer.Stop()
	}
}

// appendEvent appends what e is to the selection: an object that enters it is ADDED, one that leaves it DELETED.
func (p *predicate) appendEvent(buf []Event, e *objectcache.Event) []Event {
	if !p.inScope(e.Object) {
		return buf
	}
	before := e.Prev != nil && p.matches(e.Prev)
	now := !e.Deleted && p.matches(e.Object)
	ev := Event{Object: e.Object, Revision: e.Object.Revision()}
	switch {
	case now && before:
		ev.Type = watch.Modified
	case now:
		ev.Type = watch.Added
	case before:
		ev.Type = watch.Deleted
		ev.Object = e.Gone()
		ev.Revision = ev.Object.Revision()
	default:
		return buf
	}
	return append(buf, ev)
}

// IsExpired reports whether a watch or list ended because its revision is no longer retained.
func IsExpired(err error) bool {
	var s apierrors.APIStatus
	return errors.As(err, &s) && apierrors.IsResourceExpired(err)
}
