package objectcache

import (
	"sort"
	"sync/atomic"
)

// Event is one change of one object. Prev is nil for a creation; for a deletion Object is the last
// state with the revision of the deletion.
type Event struct {
	Revision int64
	Object   *Object
	Prev     *Object
	Deleted  bool

	gone atomic.Pointer[Object]
}

// Gone is what a watch reports whose selection the object has left: the state before, with the revision of the event.
func (e *Event) Gone() *Object {
	if e.Deleted {
		return e.Object
	}
	if o := e.gone.Load(); o != nil {
		return o
	}
	o := e.Prev.at(e.Revision)
	if e.gone.CompareAndSwap(nil, o) {
		return o
	}
	return e.gone.Load()
}

const maxChunk = 256

// chunk is a piece of a log. Events are written behind the length that readers have seen, never again after.
type chunk struct {
	first  uint64 // sequence number of events[0]
	events []Event
	n      int // guarded by the resource's lock
	next   *chunk
}

// eventLog is append-only. It forgets its oldest events, by whole chunks, beyond what is to be retained; cursors that
// are pinned hold their chunk and thereby all later ones. Guarded by the resource's lock.
type eventLog struct {
	chunks    []*chunk
	end       uint64 // sequence number of the next event
	dropped   int64  // events up to this revision may be missing
	size      int64  // bytes of superseded objects
	maxEvents int
	maxBytes  int64
	wake      chan struct{} // closed by the next append; nil if nobody waits
}

func (l *eventLog) start() uint64 {
	if len(l.chunks) == 0 {
		return l.end
	}
	return l.chunks[0].first
}

func (l *eventLog) append(c *change) {
	tail := l.tail()
	slot := &tail.events[tail.n]
	slot.Revision, slot.Object, slot.Prev, slot.Deleted = c.rev, c.obj, c.prev, c.deleted
	tail.n++
	l.end++
	l.size += slot.weight()
	l.trim()
}

// tail returns a last chunk with room.
func (l *eventLog) tail() *chunk {
	size := 8
	var last *chunk
	if n := len(l.chunks); n > 0 {
		if last = l.chunks[n-1]; last.n < len(last.events) {
			return last
		}
		size = min(2*len(last.events), maxChunk)
	}
	c := &chunk{first: l.end, events: make([]Event, size)}
	if last != nil {
		last.next = c
	}
	l.chunks = append(l.chunks, c)
	return c
}

func (e *Event) weight() int64 {
	if e.Prev == nil {
		return 0
	}
	return int64(len(e.Prev.value))
}

// trim drops the oldest chunks; the two newest always stay.
func (l *eventLog) trim() {
	for len(l.chunks) > 2 && (int(l.end-l.chunks[1].first) >= l.maxEvents || l.size > l.maxBytes) {
		old := l.chunks[0]
		for i := range old.events {
			l.size -= old.events[i].weight()
		}
		l.dropped = max(l.dropped, old.events[len(old.events)-1].Revision)
		l.chunks[0] = nil
		l.chunks = l.chunks[1:]
	}
}

func (l *eventLog) notify() {
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

func (l *eventLog) waitChan() chan struct{} {
	if l.wake == nil {
		l.wake = make(chan struct{})
	}
	return l.wake
}

// chunkOf returns the chunk that holds seq, which is retained and less than end.
func (l *eventLog) chunkOf(seq uint64) *chunk {
	i := sort.Search(len(l.chunks), func(i int) bool { return l.chunks[i].first > seq })
	return l.chunks[i-1]
}

// seqAfter returns the sequence number of the first event after rev, which is not less than dropped.
func (l *eventLog) seqAfter(rev int64) uint64 {
	i := sort.Search(len(l.chunks), func(i int) bool {
		c := l.chunks[i]
		return c.n > 0 && c.events[c.n-1].Revision > rev
	})
	if i == len(l.chunks) {
		return l.end
	}
	c := l.chunks[i]
	j := sort.Search(c.n, func(j int) bool { return c.events[j].Revision > rev })
	return c.first + uint64(j)
}
