package watchhub

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson/keelson/store"
)

const (
	// wakeCost is several times what waking one waiter costs, its own reading included. Waking goes at this
	// pace, so that however many waiters there are, they and the hub take a bounded share of a core.
	wakeCost = 8 * time.Microsecond
	// groupLen is how many waiters are woken at once; those that run are not queued behind more than these.
	groupLen = 128
	// restMin is the least that is worth sleeping.
	restMin = time.Millisecond
)

// Hub wakes waiting watchers. Make one with New.
type Hub struct {
	src Source

	watchers atomic.Int64
	waiting  atomic.Int64 // watchers that wait
	progress atomic.Int64 // what every watcher has to report
	scanned  atomic.Int64 // what has been published up to here is known; written with mu held
	held     atomic.Int64 // what waiters have not been woken for begins behind this; written with mu held
	running  atomic.Bool  // there is a goroutine in run, or there never will be one again
	kicked   chan struct{}
	ended    chan struct{} // a goroutine has left run
	done     chan struct{}
	stop     sync.Once

	mu       sync.Mutex
	told     int64    // the progress that waiters have been told of
	due      []*group // in the order in which they are to be woken
	prefixes map[string]*prefixState
	lengths  map[int]int // how many prefixes there are of a length

	paid time.Time // when waking the next group may begin; for the goroutine in run
}

// prefixState is shared by the watchers of one prefix.
type prefixState struct {
	prefix   string
	watchers atomic.Int64 // written with the hub's mu held
	changed  int64        // the last change that a scan has seen
	fresh    []*group     // those that wait and for which nothing has happened
	turns    *group       // the last of those that wait for their turn
}

// crowded reports whether its watchers have to take turns, even if there is something new for them.
func (p *prefixState) crowded() bool { return p.watchers.Load() > 2*groupLen }

// group is a set of waiters that is woken at once.
type group struct {
	wake  chan struct{}
	n     int
	isDue bool
	woken bool
	turns bool // made by those that wait for their turn, else by those that wait for something to happen
	// resume is what the members need not read again: nothing of theirs happened up to there. For
	// turns it is the lowest of their positions.
	resume int64

	// What one of the members has read, for those that are where it was.
	mu             sync.Mutex
	after, through int64
	events         []store.Event
}

// read is Source.Read for the members of a group that has been woken, most of which want the same.
func (g *group) read(src Source, after int64, prefix string) (events []store.Event, through int64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.after <= after && after < g.through {
		if _, floor := src.Bounds(); after >= floor {
			from, _ := slices.BinarySearchFunc(g.events, after+1, func(e store.Event, rev int64) int { return cmp.Compare(e.KV.ModRevision, rev) })
			return g.events[from:], g.through, nil
		}
	}
	events, through, err = src.Read(after, prefix, batchLimit)
	if err == nil && g.through == 0 {
		g.after, g.through, g.events = after, through, slices.Clip(events)
	}
	return events, through, err
}

// New returns a hub over src; it starts no goroutine until there is somebody to wake.
func New(src Source) *Hub {
	current, _ := src.Bounds()
	h := &Hub{
		src: src, kicked: make(chan struct{}, 1), ended: make(chan struct{}, 1), done: make(chan struct{}),
		prefixes: map[string]*prefixState{}, lengths: map[int]int{},
	}
	h.scanned.Store(current)
	h.held.Store(current)
	return h
}

// Waiting returns how many watchers wait for something to happen.
func (h *Hub) Waiting() int64 { return h.waiting.Load() }

// Watched reports whether there are watchers.
func (h *Hub) Watched() bool { return h.watchers.Load() > 0 }

// Published tells the hub that the source has new revisions. It takes no lock.
func (h *Hub) Published() {
	if h.waiting.Load() > 0 {
		h.kick()
	}
}

// Progress makes every watcher report a revision that is at least rev.
func (h *Hub) Progress(rev int64) {
	for {
		old := h.progress.Load()
		if old >= rev {
			return
		}
		if h.progress.CompareAndSwap(old, rev) {
			break
		}
	}
	h.Published()
}

// Retain returns the highest floor, at most floor, that the source may rise to without a waiter missing
// anything. It takes no lock, other than Scan.
func (h *Hub) Retain(floor int64) int64 {
	if h.waiting.Load() == 0 {
		return floor
	}
	return min(floor, h.held.Load())
}

// Scan tells the waiters of all that has been published. A source calls it before it forgets
// revisions, so that a watcher that has been waiting has not missed anything.
func (h *Hub) Scan() {
	if h.waiting.Load() == 0 {
		return
	}
	h.mu.Lock()
	h.scan()
	h.hold()
	h.mu.Unlock()
	h.kick()
}

// Close ends all watchers and waits for the hub's goroutine.
func (h *Hub) Close() {
	h.stop.Do(func() {
		close(h.done)
		for !h.running.CompareAndSwap(false, true) {
			<-h.ended
		}
	})
}

func (h *Hub) kick() {
	if len(h.kicked) == 0 {
		select {
		case h.kicked <- struct{}{}:
		default:
		}
	}
	if h.running.CompareAndSwap(false, true) {
		go h.run()
	}
}

// run wakes waiters until there is nothing left to tell them.
func (h *Hub) run() {
	defer func() {
		select {
		case h.ended <- struct{}{}:
		default:
		}
	}()
	for {
		select {
		case <-h.done:
			h.running.Store(false)
			return
		case <-h.kicked:
		default:
		}
		h.mu.Lock()
		h.scan()
		g := h.next()
		h.hold()
		h.mu.Unlock()
		if g != nil {
			close(g.wake)
			if !h.rest(g.n) {
				h.running.Store(false)
				return
			}
			continue
		}
		h.running.Store(false)
		// A kick that found running still true has left its token.
		select {
		case <-h.kicked:
			if !h.running.CompareAndSwap(false, true) {
				return
			}
		default:
			return
		}
	}
}

// rest waits as long as the n waiters that have been woken deserve and returns false if the hub is closed.
func (h *Hub) rest(n int) bool {
	now := time.Now()
	if h.paid.Before(now) {
		h.paid = now
	}
	h.paid = h.paid.Add(time.Duration(n) * wakeCost)
	d := h.paid.Sub(now)
	if d < restMin {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-h.done:
		return false
	}
}

// next takes the group that is to be woken next, nil if there is none.
func (h *Hub) next() *group {
	for len(h.due) > 0 {
		g := h.due[0]
		h.due[0] = nil
		h.due = h.due[1:]
		if g.n > 0 {
			g.woken = true
			return g
		}
	}
	h.due = nil
	return nil
}

// hold works out what the source should retain.
func (h *Hub) hold() {
	held := h.scanned.Load()
	if len(h.due) > 0 {
		held = min(held, h.due[0].resume)
	}
	h.held.Store(held)
}

// scan marks the groups for which something has happened.
func (h *Hub) scan() {
	current, floor := h.src.Bounds()
	progress := min(h.progress.Load(), current) // what has not arrived yet is told when it does
	from := h.scanned.Load()
	if current == from && progress <= h.told {
		return
	}
	if current > from && h.waiting.Load() > 0 {
		if from < floor || h.src.Changes(from, current, h.mark) != nil {
			// What happened is not known any more: everybody has to look.
			for _, p := range h.prefixes {
				p.changed = current
				h.markDue(p, 0)
			}
		}
	}
	h.scanned.Store(max(from, current))
	if progress > h.told {
		h.told = progress
		for _, p := range h.prefixes {
			h.markDue(p, current)
		}
	}
}

// mark makes due the groups whose prefix key has.
func (h *Hub) mark(rev int64, key string) {
	if len(h.prefixes) <= len(h.lengths)*2 {
		for _, p := range h.prefixes {
			if len(key) >= len(p.prefix) && key[:len(p.prefix)] == p.prefix {
				p.changed = rev
				h.markDue(p, rev-1)
			}
		}
		return
	}
	for n := range h.lengths {
		if n <= len(key) {
			if p := h.prefixes[key[:n]]; p != nil {
				p.changed = rev
				h.markDue(p, rev-1)
			}
		}
	}
}

// markDue has those that wait for p be woken.
func (h *Hub) markDue(p *prefixState, resume int64) {
	for _, g := range p.fresh {
		g.isDue, g.resume = true, resume
	}
	h.due = append(h.due, p.fresh...)
	p.fresh = nil
}

// join adds a waiter that has seen everything up to pos and reported up to reported. If there already is
// something new it returns nil, or has the waiter wait for its turn.
func (h *Hub) join(p *prefixState, pos, reported int64, turns bool) *group {
	h.waiting.Add(1) // before looking: from here on a writer that publishes kicks
	h.mu.Lock()
	defer h.mu.Unlock()
	if current, _ := h.src.Bounds(); current > pos || min(h.progress.Load(), current) > reported {
		if !turns {
			h.waiting.Add(-1)
			return nil
		}
		g := p.turns
		if g == nil || g.woken || g.n == 0 || g.n == groupLen {
			g = &group{wake: make(chan struct{}), isDue: true, turns: true, resume: pos}
			p.turns = g
			h.due = append(h.due, g)
			h.kick()
		}
		g.resume = min(g.resume, pos)
		g.n++
		return g
	}
	if h.waiting.Load() == 1 {
		h.scanned.Store(max(h.scanned.Load(), pos)) // nobody else needs what is older
		h.hold()
	}
	var g *group
	if n := len(p.fresh); n > 0 && p.fresh[n-1].n < groupLen {
		g = p.fresh[n-1]
	} else {
		g = &group{wake: make(chan struct{})}
		p.fresh = append(p.fresh, g)
	}
	g.n++
	return g
}

// leave removes a waiter that has seen everything up to pos, and returns up to where there is nothing else for it. What
// comes while it is waiting to run is scanned as what came before.
func (h *Hub) leave(p *prefixState, g *group, pos int64) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !g.turns {
		if g.woken {
			pos = max(pos, g.resume)
		}
		if p.changed <= pos {
			pos = max(pos, h.scanned.Load())
		}
	}
	h.waiting.Add(-1)
	if g.woken {
		return pos
	}
	if g.n--; g.n == 0 && !g.isDue {
		p.fresh = slices.DeleteFunc(p.fresh, func(o *group) bool { return o == g })
	}
	return pos
}

func (h *Hub) acquire(prefix string) *prefixState {
	h.watchers.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.prefixes[prefix]
	if p == nil {
		p = &prefixState{prefix: prefix}
		h.prefixes[prefix] = p
		h.lengths[len(prefix)]++
	}
	p.watchers.Add(1)
	return p
}

func (h *Hub) release(p *prefixState) {
	h.watchers.Add(-1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.watchers.Add(-1) > 0 {
		return
	}
	delete(h.prefixes, p.prefix)
	n := len(p.prefix)
	if h.lengths[n]--; h.lengths[n] == 0 {
		delete(h.lengths, n)
	}
}
