package memstore

import (
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/internal/cowtree"
)

// tree has the values of keys. A commit that only gives keys other values changes them in the tree that there is, where no
// other store has it: copying a path for each would cost several times as much. A reader that finds a value newer
// than what it reads goes back from there in the log.
type tree = cowtree.Tree[*store.KV]

func loadValue(p **store.KV) *store.KV {
	return (*store.KV)(atomic.LoadPointer((*unsafe.Pointer)(unsafe.Pointer(p))))
}

func storeValue(p **store.KV, kv *store.KV) {
	atomic.StorePointer((*unsafe.Pointer)(unsafe.Pointer(p)), unsafe.Pointer(kv))
}

// view is the store over the revisions from one change of its keys to the next. All but rev is immutable.
type view struct {
	rev   atomic.Int64 // the newest of them; while it is the newest view, it rises
	floor int64
	tree  tree // has the keys of these revisions, and values of rev or newer
	log   history
	end   *link // where the log ended when the view was made
}

// link is one of the chunks of a store's log, which readers of a view go along to what has come after it. So what
// such a reader needs is held by it, whatever is compacted meanwhile.
type link struct {
	first int64 // revision with which it begins
	chunk *chunk
	next  atomic.Pointer[link]
}

func newView(rev, floor int64, t tree, log history) *view {
	v := &view{floor: floor, tree: t, log: log, end: &link{first: rev + 1}}
	v.rev.Store(rev)
	return v
}

// next returns a view to be published after v.
func (v *view) next() *view {
	n := &view{floor: v.floor, tree: v.tree, log: v.log, end: v.end}
	n.rev.Store(v.rev.Load())
	return n
}

// grow adds a chunk to the log of a view that is to be published, for what comes from rev on.
func (v *view) grow(rev int64, last *chunk) *chunk {
	n := firstChunkLen
	if last != nil {
		n = min(2*len(last.one), chunkLen)
	}
	c := newChunk(rev, v.tree, n)
	l := &link{first: rev, chunk: c}
	v.end.next.Store(l)
	v.log, v.end = append(v.log, c), l
	return c
}

// events returns those of a revision after the view's floor, which may be newer than the view.
func (v *view) events(rev int64) []store.Event {
	l := v.end
	if rev < l.first {
		return v.log.entry(rev)
	}
	for next := l.next.Load(); next != nil && next.first <= rev; next = l.next.Load() {
		l = next
	}
	return l.chunk.events(rev)
}

// snapshot is the state at one revision.
type snapshot struct {
	rev  int64
	tree tree
	view *view
}

// value returns what the key at p of the tree has.
func (s *snapshot) value(p **store.KV) *store.KV {
	kv := loadValue(p)
	for kv.ModRevision > s.rev {
		kv = before(s.view.events(kv.ModRevision), kv.Key)
	}
	return kv
}

// before returns what the key had before the events, in which it is.
func before(events []store.Event, key string) *store.KV {
	i, _ := slices.BinarySearchFunc(events, key, func(ev store.Event, key string) int { return strings.Compare(ev.KV.Key, key) })
	return events[i].Prev
}
