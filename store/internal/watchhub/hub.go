package watchhub

import (
	"sync"
	"sync/atomic"
	"time"
)

// wakeCost is several times what waking one waiter costs; a group is left alone for its number
// of waiters times this after each waking, so that waking takes a bounded share of a core.
const (
	wakeCost    = 5 * time.Microsecond
	maxWakeRest = 50 * time.Millisecond
)

// Hub wakes waiting watchers. Make one with New.
type Hub struct {
	src Source

	watchers atomic.Int64
	waiting  atomic.Int64 // watchers that wait
	progress atomic.Int64 // what every watcher has to report
	running  atomic.Bool  // there is a goroutine in run
	kicked   chan struct{}
	done     chan struct{}
	wg       sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	members  int   // of all groups
	scanned  int64 // every waiter has been told of everything up to here
	told     int64 // the progress that waiters have been told of
	prefixes map[string]*prefixState
	lengths  map[int]int // how many prefixes there are of a length
}

// prefixState is shared by the watchers of one prefix.
type prefixState struct {
	prefix   string
	watchers int
	group    *group // those that wait, nil if there are none
	rest     time.Time
}

// group is a set of waiters that is woken at once.
type group struct {
	wake chan struct{}
	n    int
	due  bool
	// resume is what the members need not read again: nothing of theirs happened up to there.
	resume int64
}

// New returns a hub over src; it starts no goroutine until there is somebody to wake.
func New(src Source) *Hub {
	current, _ := src.Bounds()
	return &Hub{
		src: src, kicked: make(chan struct{}, 1), done: make(chan struct{}), scanned: current,
		prefixes: map[string]*prefixState{}, lengths: map[int]int{},
	}
}

// Waiting returns how many watchers wait for something to happen.
func (h *Hub) Waiting() int64 { return h.waiting.Load() }

// Watched reports whether there are watchers.
func (h *Hub) Watched() bool { return h.watchers.Load() > 0 }

// Published tells the hub that the source has new revisions. It is cheap when nobody waits.
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

// Scan tells the waiters of all that has been published. A source calls it before it forgets
// revisions, so that a watcher that has been waiting has not missed anything.
func (h *Hub) Scan() {
	if h.waiting.Load() == 0 {
		return
	}
	h.mu.Lock()
	h.scan()
	h.mu.Unlock()
	h.kick()
}

// Close ends all watchers and waits for the hub's goroutine.
func (h *Hub) Close() {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.done)
	}
	h.mu.Unlock()
	h.wg.Wait()
}

func (h *Hub) kick() {
	select {
	case h.kicked <- struct{}{}:
	default:
	}
	if !h.running.CompareAndSwap(false, true) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		h.running.Store(false)
		return
	}
	h.wg.Add(1)
	go h.run()
}

// run wakes waiters until there is nothing left to tell them.
func (h *Hub) run() {
	defer h.wg.Done()
	for {
		select {
		case <-h.kicked:
		default:
		}
		h.mu.Lock()
		h.scan()
		rest := h.wake(time.Now())
		h.mu.Unlock()
		if rest > 0 {
			timer := time.NewTimer(rest)
			select {
			case <-h.kicked:
			case <-timer.C:
			case <-h.done:
				timer.Stop()
				return
			}
			timer.Stop()
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

// scan marks the groups for which something has happened.
func (h *Hub) scan() {
	current, floor := h.src.Bounds()
	progress := min(h.progress.Load(), current) // what has not arrived yet is told when it does
	if current == h.scanned && progress <= h.told {
		return
	}
	from := h.scanned
	if current > from && h.waiting.Load() > 0 {
		if from < floor || h.src.Changes(from, current, h.mark) != nil {
			// What happened is not known any more: everybody has to look.
			for _, p := range h.prefixes {
				p.due(0)
			}
		}
	}
	h.scanned = current
	if progress > h.told {
		h.told = progress
		for _, p := range h.prefixes {
			p.due(current)
		}
	}
}

// mark makes due the groups whose prefix key has.
func (h *Hub) mark(rev int64, key string) {
	if len(h.prefixes) <= len(h.lengths)*2 {
		for _, p := range h.prefixes {
			if len(key) >= len(p.prefix) && key[:len(p.prefix)] == p.prefix {
				p.due(rev - 1)
			}
		}
		return
	}
	for n := range h.lengths {
		if n <= len(key) {
			if p := h.prefixes[key[:n]]; p != nil {
				p.due(rev - 1)
			}
		}
	}
}

func (p *prefixState) due(resume int64) {
	if p.group != nil && !p.group.due {
		p.group.due, p.group.resume = true, resume
	}
}

// wake wakes the groups that are due and returns how long the next one has to wait.
func (h *Hub) wake(now time.Time) (rest time.Duration) {
	for _, p := range h.prefixes {
		if p.group == nil || !p.group.due {
			continue
		}
		if d := p.rest.Sub(now); d > 0 {
			if rest == 0 || d < rest {
				rest = d
			}
			continue
		}
		p.rest = now.Add(min(time.Duration(p.group.n)*wakeCost, maxWakeRest))
		h.members -= p.group.n
		close(p.group.wake)
		p.group = nil
	}
	return rest
}

// join adds a waiter that has seen everything up to pos and reported up to reported. It
// returns nil if there already is something new.
func (h *Hub) join(p *prefixState, pos, reported int64) *group {
	h.waiting.Add(1) // before looking: from here on a writer that publishes kicks
	h.mu.Lock()
	defer h.mu.Unlock()
	if current, _ := h.src.Bounds(); current > pos || min(h.progress.Load(), current) > reported {
		h.waiting.Add(-1)
		return nil
	}
	if p.group == nil {
		p.group = &group{wake: make(chan struct{})}
	}
	if h.members == 0 {
		h.scanned = max(h.scanned, pos) // nobody else needs what is older
	}
	h.members++
	p.group.n++
	return p.group
}

// leave removes a waiter.
func (h *Hub) leave(p *prefixState, g *group) {
	h.waiting.Add(-1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.group != g {
		return
	}
	h.members--
	if g.n--; g.n == 0 {
		p.group = nil
	}
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
	p.watchers++
	return p
}

func (h *Hub) release(p *prefixState) {
	h.watchers.Add(-1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.watchers--; p.watchers > 0 {
		return
	}
	delete(h.prefixes, p.prefix)
	n := len(p.prefix)
	if h.lengths[n]--; h.lengths[n] == 0 {
		delete(h.lengths, n)
	}
}
