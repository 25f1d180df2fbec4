package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
)

// candidates are what is known of the nodes on which room could be made for the pods of one signature and priority. The change log says which are to be
// looked at again.
type candidates struct {
	pos, pdbs int
	priority  int32
	compare   func(a, b *Candidate) int
	by        []kept // by slot
	refused   map[string]int
	heap      candidateHeap
}

// kept is a candidate, if it is known.
type kept struct {
	Candidate
	known   bool
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
	if changes, ok := e.log.since(c.pos); ok {
		for _, ch := range changes {
			c.forget(ch.slot)
		}
		for _, ch := range changes {
			c.learn(e, pod, a, ch.slot)
		}
	} else {
		for slot := range c.by {
			c.forget(int32(slot))
		}
		for slot := range a.resolvable.all() {
			c.learn(e, pod, a, slot)
		}
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
	k := &c.by[r.slot]
	return k.known && k.version == r.version
}

func (c *candidates) forget(slot int32) {
	k := &c.by[slot]
	if !k.known {
		return
	}
	c.count(k, -1)
	*k = kept{version: k.version + 1}
}

func (c *candidates) count(k *kept, sign int) {
	if k.Refused == nil {
		return
	}
	for _, r := range k.Refused.Reasons {
		if c.refused[r] += sign; c.refused[r] == 0 {
			delete(c.refused, r)
		}
	}
}

func (c *candidates) learn(e *Engine, pod *Pod, a *answers, slot int32) {
	k := &c.by[slot]
	if k.known || !a.resolvable.has(slot) {
		return
	}
	k.Candidate, k.known = e.view.candidate(pod, e.nodes[slot]), true
	c.count(k, 1)
	if k.Refused == nil {
		heap.Push(&c.heap, ranked{c: c, Candidate: k.Candidate, slot: slot, version: k.version})
	}
}

// best is the least by compare, and by slot among equals; nil if there is none.
func (c *candidates) best() *Candidate {
	for len(c.heap) > 0 {
		if c.right(&c.heap[0]) {
			out := c.heap[0].Candidate
			return &out
		}
		heap.Pop(&c.heap)
	}
	return nil
}

// ranked is a candidate in the heap, where it stays for a while when it isn't right any more.
type ranked struct {
	Candidate
	c       *candidates
	slot    int32
	version uint32
}

type candidateHeap []ranked

func (h candidateHeap) Len() int { return len(h) }
func (h candidateHeap) Less(i, j int) bool {
	return cmp.Or(h[i].c.compare(&h[i].Candidate, &h[j].Candidate), cmp.Compare(h[i].slot, h[j].slot)) < 0
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
