package inproc

import (
	"context"
	"time"

	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/objectcache"
)

// registration is one handler of an informer. It reads the event log at its own pace, so a slow one holds up nobody; what it has not
// read is kept in memory for it.
type registration struct {
	informer *informer
	handler  toolscache.ResourceEventHandler
	resync   time.Duration
	synced   chan struct{}
	// flush gets channels to close once the handler has been called for everything that there was.
	flush  chan chan<- struct{}
	ctx    context.Context
	cancel context.CancelFunc
}

var _ toolscache.ResourceEventHandlerRegistration = (*registration)(nil)

// HasSynced implements toolscache.ResourceEventHandlerRegistration.
func (r *registration) HasSynced() bool { return isClosed(r.synced) }

// HasSyncedChecker implements toolscache.ResourceEventHandlerRegistration.
func (r *registration) HasSyncedChecker() toolscache.DoneChecker {
	return checker{"handler of " + r.informer.res.GVR.String(), r.synced}
}

const eventBatch = 256

func (r *registration) run(ctx context.Context) {
	i := r.informer
	select {
	case <-i.synced:
	case <-ctx.Done():
		return
	}
	cursor, seen := r.initial(ctx)
	defer cursor.Close()
	if ctx.Err() != nil {
		return
	}
	close(r.synced)

	var timer clock.Timer
	var due <-chan time.Time
	if r.resync > 0 {
		timer = i.cache.opts.Clock.NewTimer(r.resync)
		defer timer.Stop()
		due = timer.C()
	}
	var flushing []chan<- struct{}
	for {
		events, rev, wake, err := cursor.Poll(eventBatch)
		if err != nil {
			i.cache.opts.Logger.Error(err, "an informer's handler lost its place", "resource", i.res.GVR.String())
			return
		}
		for _, e := range events {
			if ctx.Err() != nil {
				return
			}
			r.event(e)
			seen = e.Revision
		}
		if len(events) > 0 {
			continue
		}
		seen = max(seen, rev)
		for _, done := range flushing {
			close(done)
		}
		flushing = nil
		select {
		case <-wake:
		case done := <-r.flush:
			flushing = append(flushing, done)
		case <-due:
			timer.Reset(r.resync)
			r.again(ctx, seen)
		case <-ctx.Done():
			return
		case <-i.cache.core.Stopped():
			return
		}
	}
}

// initial adds what there is, and returns a cursor behind it.
func (r *registration) initial(ctx context.Context) (*objectcache.Cursor, int64) {
	i := r.informer
	add := func(o *core.Object) bool {
		if i.has(o) {
			r.add(o, true)
		}
		return ctx.Err() == nil
	}
	if i.sel != nil {
		if name, value := i.sel.Index(); name != "" {
			objs, rev, cursor := i.cached.IndexSnapshotAndCursor(name, value, true)
			for _, o := range objs {
				if !add(o) {
					break
				}
			}
			return cursor, rev
		}
	}
	snap, cursor := i.cached.SnapshotAndCursor(true)
	snap.Ascend("", "", add)
	return cursor, snap.Revision
}

func (r *registration) event(e *objectcache.Event) {
	if i := r.informer; i.sel != nil {
		before, now := e.Prev != nil && i.has(e.Prev), !e.Deleted && i.has(e.Object)
		switch {
		case !before && !now:
			return
		case !before:
			r.add(e.Object, false)
			return
		case !now && !e.Deleted:
			if obj, err := i.object(e.Gone()); err == nil {
				r.handler.OnDelete(obj)
			}
			return
		}
	}
	switch {
	case e.Deleted:
		if obj, err := r.informer.object(e.Object); err == nil {
			r.handler.OnDelete(obj)
		}
	case e.Prev == nil:
		r.add(e.Object, false)
	default:
		old, err := r.informer.object(e.Prev)
		if err != nil {
			r.failed(e.Prev, err)
			return
		}
		obj, err := r.informer.object(e.Object)
		if err != nil {
			r.failed(e.Object, err)
			return
		}
		r.handler.OnUpdate(old, obj)
	}
}

func (r *registration) add(o *core.Object, initial bool) {
	obj, err := r.informer.object(o)
	if err != nil {
		r.failed(o, err)
		return
	}
	r.handler.OnAdd(obj, initial)
}

// again is a resync: an update of everything to what it is.
func (r *registration) again(ctx context.Context, rev int64) {
	snap, ok := r.informer.cached.SnapshotAt(rev)
	if !ok {
		return
	}
	snap.Ascend("", "", func(o *core.Object) bool {
		if !r.informer.has(o) {
			return true
		}
		if obj, err := r.informer.object(o); err == nil {
			r.handler.OnUpdate(obj, obj)
		}
		return ctx.Err() == nil
	})
}

func (r *registration) failed(o *core.Object, err error) {
	r.informer.cache.opts.Logger.Error(err, "an object cannot be converted", "resource", r.informer.res.GVR.String(), "key", o.Key())
}
