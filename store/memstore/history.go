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

// chunkLen is how many revisions a chunk holds, and so how many are at most replayed to read
// an old one.
const chunkLen = 256

// eventOverhead is about what an event takes beside its key and values, in bytes.
const eventOverhead = 200

// chunk is a piece of the log. An entry is written once, by the store that owns the chunk and
// before the view that includes it is published.
type chunk struct {
	first   int64        // revision of entries[0]
	base    tree         // the state before it
	bytes   atomic.Int64 // what the entries hold of former values; a fork reads it too
	n       int          // for the owner
	entries [chunkLen][]store.Event
}

// history is the log as chunks in order. The slice of a view is never written to; only the
// spare capacity behind it is, by the store that owns it.
type history []*chunk

// append adds the events of rev and reports whether it began a new chunk.
func (h history) append(rev int64, before tree, events []store.Event, ownTail bool) (history, bool) {
	began := false
	if n := len(h); n == 0 || !ownTail || h[n-1].n == chunkLen {
		h = append(h, &chunk{first: rev, base: before})
		began = true
	}
	c := h[len(h)-1]
	c.entries[c.n] = events
	c.n++
	bytes := 0
	for i := range events {
		bytes += len(events[i].KV.Key) + eventOverhead
		if p := events[i].Prev; p != nil {
			bytes += len(p.Value)
		}
	}
	c.bytes.Add(int64(bytes))
	return h, began
}

// trim drops the chunks that are not needed to read at floor.
func (h history) trim(floor int64) history {
	i := h.chunk(floor + 1)
	if i <= 0 {
		return h
	}
	return slices.Clone(h[i:]) // so that the dropped ones are not held by the array
}

// chunk returns the index of the last chunk that begins at or before rev.
func (h history) chunk(rev int64) int {
	return sort.Search(len(h), func(i int) bool { return h[i].first > rev }) - 1
}

// entry returns the events of a revision in the log. A fork's log goes on in a chunk of its own
// while the one before it may be growing in the other store, hence the search by revision.
func (h history) entry(rev int64) []store.Event {
	c := h[h.chunk(rev)]
	return c.entries[rev-c.first]
}

// treeAt returns the state at a revision that is retained and older than the newest.
func (h history) treeAt(rev int64) tree {
	c := h[h.chunk(rev+1)]
	e := c.base.Edit()
	for r := c.first; r <= rev; r++ {
		apply(e, c.entries[r-c.first])
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
	return v.rev, v.floor
}

func (src source) Read(after int64, prefix string, limit int) ([]store.Event, int64, error) {
	v := src.s.view.Load()
	if after < v.floor {
		return nil, 0, store.ErrCompacted
	}
	var out []store.Event
	shared := false // out is an entry of the log
	for rev := after + 1; rev <= v.rev; rev++ {
		entry := v.log.entry(rev)
		lo := sort.Search(len(entry), func(i int) bool { return entry[i].KV.Key >= prefix })
		hi := lo
		for hi < len(entry) && strings.HasPrefix(entry[hi].KV.Key, prefix) {
			hi++
		}
		switch {
		case lo == hi:
			continue
		case out == nil:
			out, shared = entry[lo:hi:hi], true
		default:
			if shared {
				out, shared = append(make([]store.Event, 0, 2*(len(out)+hi-lo)), out...), false
			}
			out = append(out, entry[lo:hi]...)
		}
		if len(out) >= limit {
			return out, rev, nil
		}
	}
	return out, v.rev, nil
}

func (src source) Changes(after, through int64, visit func(rev int64, key string)) error {
	v := src.s.view.Load()
	if after < v.floor {
		return store.ErrCompacted
	}
	for rev := after + 1; rev <= through; rev++ {
		for i, entry := 0, v.log.entry(rev); i < len(entry); i++ {
			visit(rev, entry[i].KV.Key)
		}
	}
	return nil
}
