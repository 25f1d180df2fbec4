package objectcache

import (
	"context"
	"errors"
	"slices"
)

// ErrExpired reports that the next event of a cursor is no longer retained.
var ErrExpired = errors.New("objectcache: expired")

// ErrStopped reports that the cache has stopped.
var ErrStopped = errors.New("objectcache: stopped")

// Cursor reads a resource's events in order. It is used by one goroutine at a time.
type Cursor struct {
	res    *Resource
	log    *eventLog
	seq    uint64
	pin    *chunk // set if pinned and positioned
	pinned bool

	// A cursor on an index value reads the main log up to here first.
	catchUp    uint64
	index      *index
	bucketName string
	bucket     *bucket
	end        uint64 // of the bucket's log when the cursor was made
	pinEnd     *chunk // where that was, if pinned
}

// Cursor returns a cursor behind rev. A pinned one never expires: it holds in memory what it has not read.
// Errors: ErrExpired.
func (r *Resource) Cursor(rev int64, pinned bool) (*Cursor, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rev < r.log.dropped {
		return nil, ErrExpired
	}
	return r.cursorLocked(r.log.seqAfter(rev), pinned), nil
}

func (r *Resource) cursorLocked(seq uint64, pinned bool) *Cursor {
	c := &Cursor{res: r, log: &r.log, seq: seq, pinned: pinned}
	c.fix()
	return c
}

// fix positions a pinned cursor on its chunk.
func (c *Cursor) fix() {
	if !c.pinned || c.pin != nil {
		return
	}
	if c.seq < c.log.end {
		c.pin = c.log.chunkOf(c.seq)
	} else {
		c.pin = c.log.tail()
	}
}

// SnapshotAndCursor returns the newest state and a cursor behind it.
func (r *Resource) SnapshotAndCursor(pinned bool) (*Snapshot, *Cursor) {
	rev := r.cache.Revision()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.snapshotLocked(max(rev, r.rev)), r.cursorLocked(r.log.end, pinned)
}

// IndexCursor returns a cursor that need only see the events of one index value (it may see others). The caller closes it.
func (r *Resource) IndexCursor(rev int64, name, value string) (*Cursor, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rev < r.log.dropped {
		return nil, ErrExpired
	}
	return r.indexCursorLocked(r.log.seqAfter(rev), name, value, false), nil
}

// IndexSnapshotAndCursor returns what SnapshotAndCursor returns, narrowed to one index value.
func (r *Resource) IndexSnapshotAndCursor(name, value string, pinned bool) ([]*Object, int64, *Cursor) {
	rev := r.cache.Revision()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byIndexLocked(name, value), max(rev, r.rev), r.indexCursorLocked(r.log.end, name, value, pinned)
}

func (r *Resource) indexCursorLocked(seq uint64, name, value string, pinned bool) *Cursor {
	i := slices.IndexFunc(r.indexes, func(x *index) bool { return x.Name == name })
	if i < 0 || value == "" {
		return r.cursorLocked(seq, pinned)
	}
	x := r.indexes[i]
	b := x.bucket(value)
	if b.log == nil {
		b.log = &eventLog{maxEvents: r.log.maxEvents, maxBytes: r.log.maxBytes, dropped: r.rev}
	}
	b.watches++
	c := &Cursor{res: r, log: &r.log, seq: seq, pinned: pinned, catchUp: r.log.end, index: x, bucketName: value, bucket: b, end: b.log.end}
	if pinned {
		c.pinEnd = b.log.tail()
	}
	c.fix()
	c.turn()
	return c
}

// turn moves an index cursor that has read the main log to the bucket's.
func (c *Cursor) turn() {
	if c.bucket != nil && c.log == &c.res.log && c.seq >= c.catchUp {
		c.log, c.seq, c.pin = c.bucket.log, c.end, c.pinEnd
	}
}

// Close releases an index cursor; idempotent, harmless for others.
func (c *Cursor) Close() {
	if c.bucket == nil {
		return
	}
	c.res.mu.Lock()
	defer c.res.mu.Unlock()
	if c.bucket == nil {
		return
	}
	if c.bucket.watches--; c.bucket.watches == 0 {
		c.bucket.log = nil
		c.index.release(c.bucketName, c.bucket)
	}
	c.bucket = nil
}

// Poll returns the events at the cursor, at most max, shared and immutable, and moves behind them. If there are none it returns
// the revision up to which everything has been seen, and a channel that is closed when there may be more.
func (c *Cursor) Poll(max int) (events []*Event, rev int64, wake <-chan struct{}, err error) {
	rev = c.res.cache.Revision()
	r := c.res
	r.mu.RLock()
	events, err = c.take(max)
	if err != nil || len(events) > 0 || c.log.wake != nil {
		wake = c.log.wake
		r.mu.RUnlock()
		return events, rev, wake, err
	}
	r.mu.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if events, err = c.take(max); err != nil || len(events) > 0 {
		return events, rev, nil, err
	}
	return nil, rev, c.log.waitChan(), nil
}

func (c *Cursor) take(limit int) ([]*Event, error) {
	if !c.pinned && c.seq < c.log.start() {
		return nil, ErrExpired
	}
	var out []*Event
	for len(out) < limit {
		end := c.log.end
		if c.bucket != nil && c.log == &c.res.log {
			end = c.catchUp
		}
		if c.seq >= end {
			break
		}
		k := c.pin
		if c.pinned {
			for c.seq >= k.first+uint64(len(k.events)) {
				k = k.next
			}
			c.pin = k
		} else {
			k = c.log.chunkOf(c.seq)
		}
		n := min(k.first+uint64(k.n), end, c.seq+uint64(limit-len(out)))
		if out == nil {
			out = make([]*Event, 0, n-c.seq)
		}
		for ; c.seq < n; c.seq++ {
			out = append(out, &k.events[c.seq-k.first])
		}
	}
	c.turn()
	return out, nil
}

// Next blocks until there is an event. It returns at most limit events, all that are there. Errors: the context's, ErrExpired, ErrStopped.
func (c *Cursor) Next(ctx context.Context, limit int) ([]*Event, error) {
	for {
		events, _, wake, err := c.Poll(limit)
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.res.cache.Stopped():
			return nil, ErrStopped
		}
	}
}
