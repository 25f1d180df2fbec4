package scheduler

import (
	"encoding/binary"
	"slices"
	"unsafe"
)

// heldBack is what is known of the nodes on which no room can be made for the pods of one signature and priority, where that depends on the topology
// domains, too. If all pods are gone that may go, a domain's sums are less by what those brought in: nodes of the same domains, on which that is the same, are
// a group that is judged at once.
type heldBack struct {
	pos, age int
	priority int32
	id       string // of the sums
	sums     *index
	pages    []*[pageSize]heldNode
	written  int // pages that aren't nil
	// refused are the nodes that other plugins refuse, whatever the sums, and reasons what for.
	refused bitset
	reasons map[string]int
	groups  map[string]*domainGroup
	shut    bitset // nodes of groups without room
}

// heldNode is what is known of a node: at most one of both.
type heldNode struct {
	refused *Rejection
	group   *domainGroup
	at      int32 // in the group's slots
}

// domainGroup are nodes of the same domains.
type domainGroup struct {
	key   string
	less  []domainLess // by sum
	slots []int32
	shut  *Rejection // why there is no room even if all pods are gone that may go
}

// domainLess is what a domain's sum is less by, and how many of its nodes count no longer.
type domainLess struct {
	amount int64
	nodes  int32
}

// heldFor returns what is known, up to date, for a pod of which js was said; nil if there is more to it than sums.
func (e *Engine) heldFor(prof *profile, pod *Pod, js []judged) *heldBack {
	if !prof.ordered || prof.uncachedFilter || slices.ContainsFunc(js, func(j judged) bool {
		return j.filters() && (j.Filter != nil || !j.Domains.Summed)
	}) {
		return nil
	}
	a := e.answersFor(prof, pod)
	var id []byte
	for i := range js {
		if d := js[i].Domains; d != nil {
			id = append(append(id, 0, byte(i)), d.ID...)
		}
	}
	h := a.held
	if h == nil || h.priority != pod.Priority || h.id != string(id) || h.age != e.sumsAge || !h.sync(e) || h.sums.stale(js, e.view) {
		h = &heldBack{
			pos: e.log.end(), age: e.sumsAge, priority: pod.Priority, id: string(id), reasons: map[string]int{}, groups: map[string]*domainGroup{},
			sums: newSums(js, e.view),
		}
		h.sums.pos = h.pos
		a.held = h
	} else {
		h.tally(e, js)
	}
	words := (len(e.nodes) + pageSize - 1) / pageSize
	for len(h.pages) < words {
		h.pages = append(h.pages, nil)
	}
	h.refused, h.shut = h.refused.grown(len(e.nodes)), h.shut.grown(len(e.nodes))
	for _, g := range h.groups {
		h.judge(g, js)
	}
	return h
}

// sync forgets the nodes that changed; it returns false if that can be all of them.
func (h *heldBack) sync(e *Engine) bool {
	changes, ok := e.log.since(h.pos)
	for _, c := range changes {
		h.forget(c.slot)
	}
	h.pos = e.log.end()
	return ok
}

// tally brings the sums up to date.
func (h *heldBack) tally(e *Engine, js []judged) {
	for i := range h.sums.sums {
		h.sums.sums[i].grow(len(e.nodes))
	}
	changes, _ := e.log.since(h.sums.pos)
	for _, c := range changes {
		tally(h.sums, js, e.nodes, c.slot, nil)
	}
	h.sums.pos = e.log.end()
}

// of is what is known of a node.
func (h *heldBack) of(slot int32) *heldNode {
	page := &h.pages[slot/pageSize]
	if *page == nil {
		*page = new([pageSize]heldNode)
		h.written++
	}
	return &(*page)[slot%pageSize]
}

func (h *heldBack) bytes() int {
	n := int(unsafe.Sizeof(*h)) + 8*cap(h.pages) + h.written*int(unsafe.Sizeof([pageSize]heldNode{}))
	for i := range h.sums.sums {
		n += h.sums.sums[i].bytes()
	}
	return n + 128*len(h.groups)
}

func (h *heldBack) forget(slot int32) {
	if int(slot/pageSize) >= len(h.pages) || h.pages[slot/pageSize] == nil {
		return
	}
	k := h.of(slot)
	if k.refused != nil {
		for _, r := range k.refused.Reasons {
			h.reasons[r]--
		}
		h.refused.clear(slot)
	}
	if g := k.group; g != nil {
		last := g.slots[len(g.slots)-1]
		g.slots[k.at] = last
		h.of(last).at = k.at
		g.slots = g.slots[:len(g.slots)-1]
		h.shut.clear(slot)
		if len(g.slots) == 0 {
			delete(h.groups, g.key)
		}
	}
	*k = heldNode{}
}

// refuse notes that there is no room on a node, whatever the sums.
func (h *heldBack) refuse(slot int32, r *Rejection) {
	h.of(slot).refused = r
	h.refused.set(slot)
	for _, reason := range r.Reasons {
		h.reasons[reason]++
	}
}

// judge finds out whether there can be room on a group's nodes.
func (h *heldBack) judge(g *domainGroup, js []judged) {
	slot := g.slots[0]
	change := func(sign int64) {
		for i, less := range g.less {
			d := &h.sums.sums[i]
			d.add(d.domain(slot), sign*less.amount, int32(sign)*less.nodes)
		}
	}
	change(-1)
	was := g.shut
	g.shut = refusal(js, &Place{Nodes: 1, x: h.sums, slot: slot}, (*DomainJudgement).judge)
	change(1)
	if (was == nil) == (g.shut == nil) {
		return
	}
	for _, slot := range g.slots {
		h.shut.put(slot, g.shut != nil)
	}
}

// open are the nodes among some on which there may be room.
func (h *heldBack) open(among bitset) bitset {
	out := slices.Clone(among)
	for i := range out {
		out[i] &^= h.refused[i] | h.shut[i]
	}
	return out
}

// count adds the reasons why there is no room on nodes that are not open.
func (h *heldBack) count(among bitset, refused map[string]int) {
	within := func(of bitset) bool {
		for i, w := range of {
			if i < len(among) {
				w &^= among[i]
			}
			if w != 0 {
				return false
			}
		}
		return true
	}
	if within(h.refused) && within(h.shut) {
		for reason, n := range h.reasons {
			if n > 0 {
				refused[reason] += n
			}
		}
		for _, g := range h.groups {
			if g.shut != nil {
				for _, reason := range g.shut.Reasons {
					refused[reason] += len(g.slots)
				}
			}
		}
		return
	}
	for slot := range among.all() {
		var r *Rejection
		switch {
		case h.refused.has(slot):
			r = h.of(slot).refused
		case h.shut.has(slot):
			r = h.of(slot).group.shut
		default:
			continue
		}
		for _, reason := range r.Reasons {
			refused[reason]++
		}
	}
}

// closed looks at a node of which nothing is known, and reports whether there is no room: then it isn't open any more.
func (h *heldBack) closed(e *Engine, prof *profile, pod *Pod, js []judged, n *Node) bool {
	slot := int32(n.slot)
	if len(e.nominations.pods[n.Object.Name]) > 0 {
		return false // it may depend on which pods are nominated
	}
	if h.of(slot).group != nil {
		return false
	}
	lower, _ := n.lower(pod.Priority)
	if len(lower) == 0 {
		h.refuse(slot, noVictims)
		return true
	}
	if r := n.askWithout(prof, pod, lower); r != nil {
		h.refuse(slot, r)
		return true
	}
	return h.group(e, js, n, lower).shut != nil
}

// group finds the group of a node.
func (h *heldBack) group(e *Engine, js []judged, n *Node, lower []*Pod) *domainGroup {
	slot := int32(n.slot)
	less := make([]domainLess, len(h.sums.sums))
	for i := range less {
		d := &h.sums.sums[i]
		less[i] = domainLess{d.part.at(slot), one(d.counts.has(slot))}
	}
	n.without(lower, func() {
		for _, p := range lower {
			e.view.put(p, n.slot, -1)
		}
		eachSum(js, func(i int, s *DomainSum) bool {
			if h.sums.sums[i].domain(slot) >= 0 {
				amount, counts := s.Amount(n)
				less[i].amount -= amount
				less[i].nodes -= one(counts)
			}
			return true
		})
		for _, p := range lower {
			e.view.put(p, n.slot, 1)
		}
	})
	key := e.scratch[:0]
	for i := range less {
		key = binary.AppendVarint(key, int64(h.sums.sums[i].domain(slot)))
		key = binary.AppendVarint(key, less[i].amount)
		key = binary.AppendVarint(key, int64(less[i].nodes))
	}
	e.scratch = key
	g := h.groups[string(key)]
	known := g != nil
	if !known {
		g = &domainGroup{key: string(key), less: less}
		h.groups[g.key] = g
	}
	k := h.of(slot)
	k.group, k.at = g, int32(len(g.slots))
	g.slots = append(g.slots, slot)
	if !known {
		h.judge(g, js)
	} else if g.shut != nil {
		h.shut.set(slot)
	}
	return g
}
