package memstore

import (
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/internal/cowtree"
	"github.com/keelson/keelson/store/internal/watchhub"
)

const (
	// chunkLen is how many revisions a chunk holds, and so how many are at most replayed to read
	// an old one. The first ones of a store hold fewer, so that a fork is small.
	chunkLen      = 256
	firstChunkLen = 8

	// eventOverhead is about what an event takes beside its key and values, in bytes.
	eventOverhead = 200

	// graceBytes is how much more than history there is for watchers that have been there when it was compacted: one
	// that has not had its turn yet is not slow.
	graceBytes = 1 << 20
)

// chunk is a piece of the log. An entry is written once, by the store that owns the chunk and
// before what has its revision is published.
type chunk struct {
	first int64        // revision of the first entry
	base  tree         // the state before it
	bytes atomic.Int64 // what the entries hold of former values; a fork reads it too
	n     int          // for the owner
	one   []store.Event
	many  [][]store.Event // instead, where a revision has several
}

func newChunk(first int64, base tree, n int) *chunk {
	return &chunk{first: first, base: base, one: make([]store.Event, n), many: make([][]store.Event, n)}
}

func (c *chunk) full() bool { return c.n == len(c.one) }

// add returns the next entry's event.
func (c *chunk) add() *store.Event {
	c.n++
	return &c.one[c.n-1]
}

// setMany makes events those of the newest entry.
func (c *chunk) setMany(events []store.Event) { c.many[c.n-1] = events }

// events returns those of a revision.
func (c *chunk) events(rev int64) []store.Event {
	i := rev - c.first
	if m := c.many[i]; m != nil {
		return m
	}
	return c.one[i : i+1 : i+1]
}

// history is the log as chunks in order. The slice of a view is never written to; only the
// spare capacity behind it is, by the store that owns it.
type history []*chunk

// trim drops the chunks that are not needed to read at floor, nor among the last that have grace bytes.
func (h history) trim(floor, grace int64) history {
	i := h.chunk(floor + 1)
	for ; i > 0 && grace > 0; i-- {
		if grace -= h[i-1].bytes.Load(); grace < 0 {
			break
		}
	}
	if i <= 0 {
		return h
	}
	return slices.Clone(h[i:]) // so that the dropped ones are not held by the array
}

// start returns the revision after which there are events.
func (h history) start(rev int64) int64 {
	if len(h) == 0 {
		return rev
	}
	return h[0].first - 1
}

// chunk returns the index of the last chunk that begins at or before rev.
func (h history) chunk(rev int64) int {
	return sort.Search(len(h), func(i int) bool { return h[i].first > rev }) - 1
}

// entry returns the events of a revision in the log. A fork's log goes on in a chunk of its own
// while the one before it may be growing in the other store, hence the search by revision.
func (h history) entry(rev int64) []store.Event {
	return h[h.chunk(rev)].events(rev)
}

// treeAt returns the tree of a revision that is retained and older than the newest. Values in it may be newer.
func (h history) treeAt(rev int64) tree {
	c := h[h.chunk(rev+1)]
	e := c.base.EditShared(loadValue)
	for r := c.first; r <= rev; r++ {
		apply(e, c.events(r))
	}
	return e.Tree()
}

// apply makes the changes of one revision.
func apply(e *cowtree.Editor[*store.KV], events []store.Event) {
	for i := range events {
		if events[i].Deleted {
			e.Delete(events[i].KV.Key)
		} else {
			kv := events[i].KV
			e.Set(kv.Key, &kv)
		}
	}
}

// source is the log as the hub reads it.
type source struct{ s *Store }

var _ watchhub.Source = source{}

func (src source) Bounds() (current, floor int64) {
	v := src.s.view.Load()
	return v.rev.Load(), v.floor
}

func (src source) Read(after int64, prefix string, limit int) ([]store.Event, int64, error) {
	v := src.s.view.Load()
	newest := v.rev.Load()
	if after < v.log.start(newest) {
		return nil, 0, store.ErrCompacted
	}
	var out []store.Event // of its own: an entry would hold its whole chunk
	for rev := after + 1; rev <= newest; rev++ {
		entry := v.log.entry(rev)
		lo := sort.Search(len(entry), func(i int) bool { return entry[i].KV.Key >= prefix })
		hi := lo
		for hi < len(entry) && strings.HasPrefix(entry[hi].KV.Key, prefix) {
			hi++
		}
		if out = append(out, entry[lo:hi]...); len(out) >= limit {
			return out, rev, nil
		}
	}
	return out, newest, nil
}

func (src source) Changes(after, through int64, visit func(rev int64, key string)) error {
	v := src.s.view.Load()
	if after < v.log.start(through) {
		return store.ErrCompacted
	}
	for rev := after + 1; rev <= through; rev++ {
		for i, entry := 0, v.log.entry(rev); i < len(entry); i++ {
			visit(rev, entry[i].KV.Key)
		}
	}
	return nil
}
