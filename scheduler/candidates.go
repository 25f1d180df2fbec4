package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"unsafe"
)

// candidates are what is known of the nodes on which room could be made for a pod, or for the pods of one signature and priority: then the change log says
// which are to be looked at again. What the victims would be at the least is known of ranges of nodes; it is estimated of single ones, and the victims
// are found, when nothing else can be better.
type candidates struct {
	pos, budgets int
	priority     int32
	compare      func(a, b *Candidate) int
	among        bitset   // nodes that may be candidates
	names        []string // theirs by slot, unless they are known to be the same
	// pages are what became of each node, 64 to a page, which is nil as long as nothing is known; nil if nothing is kept.
	pages   []*[pageSize]kept
	written int   // pages that aren't nil
	own     int32 // the slot for which the pod was nominated that was asked for last, for which other answers hold; -1: none
	refused map[string]int
	heap    candidateHeap
	bounds  *roomBounds // while a pod is asked for
	freed   Resources   // memory for estimates
	// held is what is known of nodes without room, and judged what was said of the pod, if that depends on topology domains.
	held   *heldBack
	judged []judged
}

const pageSize = 64

// kept is what became of a node.
type kept struct {
	known   bool
	refused *Rejection
	version uint32 // counts how often it became unknown
}

// newCandidates begins with all nodes as one range.
func newCandidates(e *Engine, pod *Pod, compare func(a, b *Candidate) int, among *NodeSet) *candidates {
	c := &candidates{priority: pod.Priority, compare: compare, among: among.in, names: among.names, own: -1, refused: map[string]int{}}
	level := 1
	for n := fanOut; n < len(e.nodes); n *= fanOut {
		level++
	}
	c.heap = candidateHeap{{c: c, level: level}}
	return c
}

// keptCandidates returns what is known, brought up to date, for a pod whose fate doesn't depend on other nodes; nil if the decision was made of other nodes.
func (e *Engine) keptCandidates(prof *profile, pod *Pod, failed *Decision, compare func(a, b *Candidate) int) *candidates {
	a := e.answersFor(prof, pod)
	if a.resolvables != failed.Resolvable.n {
		return nil
	}
	if a.candidates == nil || a.candidates.priority != pod.Priority || !a.candidates.sync(e, prof, pod, a) {
		c := newCandidates(e, pod, compare, &NodeSet{in: a.resolvable})
		c.pages = make([]*[pageSize]kept, (len(e.nodes)+pageSize-1)/pageSize)
		c.pos, c.budgets = e.log.end(), e.view.budgets.log.end()
		c.own = e.nominatedSlot(pod)
		a.candidates = c
	}
	a.candidates.compare = compare
	return a.candidates
}

// sync looks at the nodes again that changed; it returns false if that can be all of them.
func (c *candidates) sync(e *Engine, prof *profile, pod *Pod, a *answers) bool {
	changes, ok := e.log.since(c.pos)
	if !ok {
		return false
	}
	for len(c.pages)*pageSize < len(e.nodes) {
		c.pages = append(c.pages, nil)
	}
	c.among = a.resolvable
	var again []int32
	if !e.view.budgets.log.since(c.budgets, func(slot int32) { again = append(again, slot) }) {
		return false
	}
	for _, ch := range changes {
		again = append(again, ch.slot)
	}
	// A pod has no regard for its own nomination, which others have.
	own := e.nominatedSlot(pod)
	for _, slot := range []int32{c.own, own} {
		if slot >= 0 {
			again = append(again, slot)
		}
	}
	c.own, c.pos, c.budgets = own, e.log.end(), e.view.budgets.log.end()
	for _, slot := range again {
		c.forget(slot)
	}
	for _, slot := range again {
		c.learn(e, prof, pod, slot)
	}
	if len(c.heap) > 2*len(e.nodes)+64 {
		c.heap = slices.DeleteFunc(c.heap, func(r ranked) bool { return !c.right(&r) })
		c.heap.order()
	}
	return true
}

// nominatedSlot is the slot of the node that the pod is nominated for, -1 for none.
func (e *Engine) nominatedSlot(pod *Pod) int32 {
	if n := e.Node(e.nominations.node[pod.key()]); n != nil {
		return int32(n.slot)
	}
	return -1
}

// of is what is kept of a node.
func (c *candidates) of(slot int32) *kept {
	page := &c.pages[slot/pageSize]
	if *page == nil {
		*page = new([pageSize]kept)
		c.written++
	}
	return &(*page)[slot%pageSize]
}

// right reports whether an entry of the heap is still so.
func (c *candidates) right(r *ranked) bool {
	if c.pages == nil || r.level > 0 {
		return true
	}
	k := c.of(r.slot)
	return k.known && k.version == r.version
}

// bytes is the memory that they take.
func (c *candidates) bytes() int {
	return int(unsafe.Sizeof(*c)) + 8*cap(c.pages) + c.written*int(unsafe.Sizeof([pageSize]kept{})) + cap(c.heap)*int(unsafe.Sizeof(ranked{}))
}

func (c *candidates) forget(slot int32) {
	if c.pages[slot/pageSize] == nil {
		return
	}
	k := c.of(slot)
	if !k.known {
		return
	}
	if k.refused != nil {
		for _, r := range k.refused.Reasons {
			if c.refused[r]--; c.refused[r] == 0 {
				delete(c.refused, r)
			}
		}
	}
	*k = kept{version: k.version + 1}
}

// learn considers a node of which nothing is known.
func (c *candidates) learn(e *Engine, prof *profile, pod *Pod, slot int32) {
	n := e.nodes[slot]
	if n == nil || !c.among.has(slot) || c.names != nil && c.names[slot] != n.Object.Name {
		return
	}
	if c.pages != nil {
		k := c.of(slot)
		if k.known {
			return
		}
		k.known = true
	}
	c.consider(e, prof, pod, slot)
}

func (c *candidates) refuse(slot int32, r *Rejection) {
	for _, reason := range r.Reasons {
		c.refused[reason]++
	}
	if c.pages != nil {
		c.of(slot).refused = r
	}
}

// consider adds an estimate of a node: there must go, at the least, as many of the least important pods as do if each is as large as the largest, and one
// of the least priority up to which there is enough room when all are gone.
func (c *candidates) consider(e *Engine, prof *profile, pod *Pod, slot int32) {
	n := e.nodes[slot]
	lower, most := n.lower(pod.Priority)
	if len(lower) == 0 {
		if c.held == nil || !c.held.closed(e, prof, pod, c.judged, n) {
			c.refuse(slot, noVictims)
		}
		return
	}
	r := ranked{Candidate: Candidate{Node: n.Object.Name}, c: c, slot: slot}
	if c.pages != nil {
		r.version = c.of(slot).version
	}
	before, fits := n.enough(prof, pod, &c.freed)
	if r.hopeless = !fits; fits {
		k := 1
		for c.freed = most.Clone(); k < len(lower) && !prof.mayFit(pod, n, &c.freed, k); k++ {
			c.freed.Add(&most, 1)
		}
		r.Victims = lower[len(lower)-k:]
		if k <= before {
			r.Victims = slices.Clone(r.Victims)
			r.Victims[0] = lower[len(lower)-before-1]
		}
		if guarded := e.view.budgets.violating(lower, int(slot)); len(guarded) > 0 {
			r.Violations = max(0, k-len(lower)+len(guarded))
		}
	}
	c.heap.push(r)
}

// enough is how many pods there are of such low priorities that it is not enough for the pod if they are all gone, of those that may go; fits is false if it
// is not enough whoever goes.
func (n *Node) enough(prof *profile, pod *Pod, freed *Resources) (before int, fits bool) {
	*freed = Resources{}
	for i := range n.levels {
		l := &n.levels[i]
		if l.priority >= pod.Priority {
			break
		}
		freed.Add(&l.requests, 1)
		if prof.mayFit(pod, n, freed, before+int(l.pods)) {
			return before, true
		}
		before += int(l.pods)
	}
	return 0, false
}

// mayFit asks the RoomPlugins.
func (p *profile) mayFit(pod *Pod, n *Node, freed *Resources, pods int) bool {
	for _, s := range p.rooms {
		if !s.room.MayFit(pod, n, freed, pods) {
			return false
		}
	}
	return true
}

// expand replaces a range by those that it is made of, or by its nodes.
func (c *candidates) expand(e *Engine, prof *profile, pod *Pod, r ranked) {
	width := int32(1) // of what it is made of
	for range r.level - 1 {
		width *= fanOut
	}
	if r.level > 1 && c.bounds == nil {
		c.bounds = e.roomsFor(pod.Priority).boundsFor(prof, pod)
	}
	for i := range int32(fanOut) {
		slot := r.slot + i*width
		switch {
		case int(slot) >= len(e.nodes):
			return
		case r.level == 1:
			c.learn(e, prof, pod, slot)
		case c.among.any(slot, slot+width):
			part := ranked{c: c, slot: slot, level: r.level - 1}
			part.Candidate, part.hopeless = c.bounds.of(r.level-2, int(slot/width))
			c.heap.push(part)
		}
	}
}

// best is the least by compare, and by slot among equals; if there is none the nodes are counted by the reasons.
func (c *candidates) best(e *Engine, prof *profile, pod *Pod) (best *Candidate, refused map[string]int) {
	defer func() { c.bounds = nil }()
	for len(c.heap) > 0 {
		top := &c.heap[0]
		switch {
		case !c.right(top):
			c.heap.pop()
		case top.level > 0:
			c.expand(e, prof, pod, c.heap.pop())
		case top.found:
			out := top.Candidate
			out.Victims = slices.Clone(out.Victims)
			for i, v := range out.Victims {
				if now := e.pods.of(v.key()).pod; now != nil {
					out.Victims[i] = now
				}
			}
			return &out, nil
		case c.held != nil && c.held.closed(e, prof, pod, c.judged, e.nodes[top.slot]):
			c.heap.pop()
		default:
			found := e.view.candidate(pod, e.nodes[top.slot])
			if found.Refused != nil {
				c.refuse(top.slot, found.Refused)
				c.heap.pop()
				continue
			}
			top.Candidate, top.found, top.hopeless = found, true, false
			c.heap.down(0)
		}
	}
	return nil, maps.Clone(c.refused)
}

// ranked is a node in the heap, where it stays for a while when it isn't right any more, or a range of nodes.
type ranked struct {
	Candidate // the least that it could be, if it isn't found yet
	c         *candidates
	slot      int32 // the first of a range
	level     int   // 0: a node, else a range of as many levels
	version   uint32
	found     bool
	hopeless  bool // there is no room to be made, though it isn't known why
}

// candidateHeap has the most promising entry first.
type candidateHeap []ranked

func (h candidateHeap) less(i, j int) bool {
	a, b := &h[i], &h[j]
	if a.hopeless || b.hopeless {
		return !a.hopeless
	}
	return cmp.Or(a.c.compare(&a.Candidate, &b.Candidate), cmp.Compare(a.slot, b.slot)) < 0
}

func (h candidateHeap) order() {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *candidateHeap) push(r ranked) {
	*h = append(*h, r)
	for i := len(*h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.less(i, up) {
			return
		}
		(*h)[i], (*h)[up] = (*h)[up], (*h)[i]
		i = up
	}
}

func (h *candidateHeap) pop() ranked {
	last := len(*h) - 1
	r := (*h)[0]
	(*h)[0], (*h)[last] = (*h)[last], ranked{}
	*h = (*h)[:last]
	h.down(0)
	return r
}

func (h candidateHeap) down(i int) {
	for {
		next := 2*i + 1
		if next >= len(h) {
			return
		}
		if next+1 < len(h) && h.less(next+1, next) {
			next++
		}
		if !h.less(next, i) {
			return
		}
		h[i], h[next] = h[next], h[i]
		i = next
	}
}
