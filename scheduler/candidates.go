package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
	"unsafe"
)

// candidates are what is known of the nodes on which room could be made for the pods of one signature and priority. The change log says which are to be
// looked at again. Of each node it is first estimated what the victims would be at the least; they are found when no other node can be better.
type candidates struct {
	pos, pdbs int
	priority  int32
	compare   func(a, b *Candidate) int
	by        []kept // by slot; nil if nothing is kept
	refused   map[string]int
	heap      candidateHeap
	freed     Resources // memory for estimates
}

// kept is what became of a node.
type kept struct {
	known   bool
	refused *Rejection
	version uint32 // counts how often it became unknown
}

// keptCandidates returns what is known, brought up to date; nil if what becomes of the pod depends on other nodes, too.
func (e *Engine) keptCandidates(prof *profile, pod *Pod, failed *Decision, compare func(a, b *Candidate) int) *candidates {
	if prof.uncachedFilter {
		return nil
	}
	js, _, r := e.judge(prof, pod, nil)
	if r != nil || slices.ContainsFunc(js, func(j judged) bool {
		return j.Filter != nil || j.Domains != nil && j.Domains.Filter != nil
	}) {
		return nil
	}
	a := e.answersFor(prof, pod)
	if a.resolvables != failed.Resolvable.n {
		return nil
	}
	c := a.candidates
	if c == nil || c.pdbs != e.view.pdbVersion || c.priority != pod.Priority {
		c = &candidates{pos: -1, pdbs: e.view.pdbVersion, priority: pod.Priority, refused: map[string]int{}}
		a.candidates = c
	}
	c.compare = compare
	for len(c.by) < len(e.nodes) {
		c.by = append(c.by, kept{})
	}
	learn := func(slot int32) {
		if !c.by[slot].known && a.resolvable.has(slot) {
			c.by[slot].known = true
			c.consider(e, prof, pod, slot)
		}
	}
	if changes, ok := e.log.since(c.pos); ok {
		for _, ch := range changes {
			c.forget(ch.slot)
		}
		for _, ch := range changes {
			size := len(c.heap)
			if learn(ch.slot); len(c.heap) > size {
				heap.Fix(&c.heap, size)
			}
		}
	} else {
		for slot := range c.by {
			c.forget(int32(slot))
		}
		c.heap = c.heap[:0]
		c.heap = slices.Grow(c.heap, a.resolvables)
		for slot := range a.resolvable.all() {
			learn(slot)
		}
		heap.Init(&c.heap)
	}
	c.pos = e.log.end()
	if len(c.heap) > 2*len(c.by)+64 {
		c.heap = slices.DeleteFunc(c.heap, func(r ranked) bool { return !c.right(&r) })
		heap.Init(&c.heap)
	}
	return c
}

// right reports whether an entry of the heap is still so.
func (c *candidates) right(r *ranked) bool {
	return c.by == nil || c.by[r.slot].known && c.by[r.slot].version == r.version
}

// bytes is the memory that they take.
func (c *candidates) bytes() int {
	return int(unsafe.Sizeof(*c)) + cap(c.by)*int(unsafe.Sizeof(kept{})) + cap(c.heap)*int(unsafe.Sizeof(ranked{}))
}

func (c *candidates) forget(slot int32) {
	k := &c.by[slot]
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

func (c *candidates) refuse(slot int32, r *Rejection) {
	for _, reason := range r.Reasons {
		c.refused[reason]++
	}
	if c.by != nil {
		c.by[slot].refused = r
	}
}

// consider appends an estimate of a node to the heap, where it isn't in order yet: the least important pods, as many as must go at the least, were
// each as large as the largest.
func (c *candidates) consider(e *Engine, prof *profile, pod *Pod, slot int32) {
	n := e.nodes[slot]
	var pods int
	if c.freed, pods = n.below(pod.Priority); pods == 0 {
		c.refuse(slot, noVictims)
		return
	}
	r := ranked{Candidate: Candidate{Node: n.Object.Name}, c: c, slot: slot}
	if c.by != nil {
		r.version = c.by[slot].version
	}
	if r.hopeless = !prof.mayFit(pod, n, &c.freed, pods); !r.hopeless {
		lower, most := n.lower(pod.Priority)
		k := 1
		for c.freed = most.Clone(); k < pods && !prof.mayFit(pod, n, &c.freed, k); k++ {
			c.freed.Add(&most, 1)
		}
		r.Victims = lower[pods-k:]
		if len(e.view.pdbs) > 0 {
			r.Violations = max(0, k-pods+len(e.view.violating(lower)))
		}
	}
	c.heap = append(c.heap, r)
}

// mayFit asks the RoomPlugins.
func (p *profile) mayFit(pod *Pod, n *Node, freed *Resources, pods int) bool {
	return !slices.ContainsFunc(p.rooms, func(s *pluginState) bool { return !s.room.MayFit(pod, n, freed, pods) })
}

// best is the least by compare, and by slot among equals; nil if there is none.
func (c *candidates) best(e *Engine, pod *Pod) *Candidate {
	for len(c.heap) > 0 {
		top := &c.heap[0]
		switch {
		case !c.right(top):
			heap.Pop(&c.heap)
		case top.found:
			out := top.Candidate
			return &out
		default:
			found := e.view.candidate(pod, e.nodes[top.slot])
			if found.Refused != nil {
				c.refuse(top.slot, found.Refused)
				heap.Pop(&c.heap)
				continue
			}
			top.Candidate, top.found, top.hopeless = found, true, false
			heap.Fix(&c.heap, 0)
		}
	}
	return nil
}

// ranked is a node in the heap, where it stays for a while when it isn't right any more.
type ranked struct {
	Candidate // the least that it could be, if it isn't found yet
	c         *candidates
	slot      int32
	version   uint32
	found     bool
	hopeless  bool // there is no room to be made, though it isn't known why
}

type candidateHeap []ranked

func (h candidateHeap) Len() int { return len(h) }
func (h candidateHeap) Less(i, j int) bool {
	a, b := &h[i], &h[j]
	if a.hopeless || b.hopeless {
		return !a.hopeless
	}
	return cmp.Or(a.c.compare(&a.Candidate, &b.Candidate), cmp.Compare(a.slot, b.slot)) < 0
}
func (h candidateHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *candidateHeap) Push(x any)   { *h = append(*h, x.(ranked)) }
func (h *candidateHeap) Pop() any {
	n := len(*h) - 1
	r := (*h)[n]
	(*h)[n] = ranked{}
	*h = (*h)[:n]
	return r
}
