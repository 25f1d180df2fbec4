package scheduler

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// rooms says of nodes, and of ranges of nodes, what making room there costs at the least, whichever pod it is made for: all whose victims may have
// a priority of up to top share it. Ranges are wider by fanOut from level to level; the last level is one range of all nodes.
type rooms struct {
	pos     int
	budgets int
	top     int32
	used    uint64
	// guarded is how many pods of a node, by slot, can't go without violating a budget; none if there are no budgets.
	guarded []int32
	levels  [][]roomBound
	dirty   []int32 // memory for sync
}

const (
	fanOut = 16
	// maxTail is how many of the victims a bound knows, at most.
	maxTail = 8
)

// roomBound is at least as good as each of its nodes: it has as much of everything as one that has most of it.
type roomBound struct {
	pods  int32 // that may go
	slack int32 // the least number of guarded pods, less pods
	// free is what is left of the node's resources, gone what there were if all pods that may go were gone, most what one of them asks for.
	free, gone, most Resources
	// tail are the least important pods, the more important ones first; the i-th last is the least important of all i-th last ones.
	tail [maxTail]*Pod
}

// roomCache has the rooms that were asked for last, by top.
type roomCache struct {
	byTop map[int32]*rooms
	clock uint64
}

// roomsFor returns the bounds for a preemptor's victims, up to date; nil if there can be none.
func (e *Engine) roomsFor(priority int32) *rooms {
	top, ok := int32(math.MinInt32), false
	for p := range e.priorities {
		if p < priority && (!ok || p > top) {
			top, ok = p, true
		}
	}
	if !ok {
		return nil
	}
	c := &e.rooms
	t := c.byTop[top]
	if t == nil {
		c.evict(len(e.nodes))
		t = &rooms{pos: -1, top: top}
		c.byTop[top] = t
	}
	c.clock++
	t.used = c.clock
	t.sync(e)
	return t
}

// evict makes room for one more.
func (c *roomCache) evict(nodes int) {
	for len(c.byTop) > 0 && (len(c.byTop)+1)*nodes > maxRooms {
		var oldest *rooms
		for _, t := range c.byTop {
			if oldest == nil || t.used < oldest.used {
				oldest = t
			}
		}
		delete(c.byTop, oldest.top)
	}
}

// maxRooms bounds how much is kept: tops times nodes.
const maxRooms = 1 << 20

// sync looks again at the nodes that changed.
func (t *rooms) sync(e *Engine) {
	changes, ok := e.log.since(t.pos)
	all := !ok || len(t.guarded) != len(e.nodes)
	v := e.view
	all = !v.budgets.log.since(t.budgets, func(slot int32) { t.dirty = append(t.dirty, slot) }) || all
	t.budgets = v.budgets.log.end()
	t.pos = e.log.end()
	if all {
		t.build(e)
		return
	}
	for _, c := range changes {
		t.dirty = append(t.dirty, c.slot)
	}
	if len(t.dirty) == 0 {
		return
	}
	slices.Sort(t.dirty)
	t.dirty = slices.Compact(t.dirty)
	for _, slot := range t.dirty {
		t.guard(e, slot)
	}
	for level := range t.levels {
		for i := range t.dirty {
			t.dirty[i] /= fanOut
		}
		t.dirty = slices.Compact(t.dirty)
		for _, i := range t.dirty {
			t.bound(e, level, int(i))
		}
	}
	t.dirty = t.dirty[:0]
}

func (t *rooms) build(e *Engine) {
	t.dirty = t.dirty[:0]
	t.guarded = slices.Grow(t.guarded[:0], len(e.nodes))[:len(e.nodes)]
	for slot := range t.guarded {
		t.guard(e, int32(slot))
	}
	t.levels = t.levels[:0]
	for level, n := 0, len(e.nodes); level == 0 || n > 1; level++ {
		n = (n + fanOut - 1) / fanOut
		t.levels = append(t.levels, make([]roomBound, n))
		for i := range n {
			t.bound(e, level, i)
		}
	}
}

// guard counts the pods of a node that are guarded.
func (t *rooms) guard(e *Engine, slot int32) {
	t.guarded[slot] = 0
	if n := e.nodes[slot]; n != nil && len(e.view.budgets.byName) > 0 {
		lower, _ := n.upTo(t.top)
		t.guarded[slot] = int32(len(e.view.budgets.violating(lower, int(slot))))
	}
}

// bound makes the i-th bound of a level from what is below it.
func (t *rooms) bound(e *Engine, level, i int) {
	b := &t.levels[level][i]
	*b = roomBound{}
	from := i * fanOut
	if level > 0 {
		below := t.levels[level-1]
		for k := from; k < min(from+fanOut, len(below)); k++ {
			b.widen(&below[k])
		}
		return
	}
	for slot := from; slot < min(from+fanOut, len(e.nodes)); slot++ {
		if n := e.nodes[slot]; n != nil {
			one := t.of(n)
			b.widen(&one)
		}
	}
}

// of is the bound of one node alone.
func (t *rooms) of(n *Node) (b roomBound) {
	lower, most := n.upTo(t.top)
	if len(lower) == 0 {
		return b
	}
	b.pods, b.most = int32(len(lower)), most
	b.slack = t.guarded[n.slot] - b.pods
	b.free = n.Allocatable.Clone()
	b.free.Add(&n.Requested, -1)
	b.free.Pods = n.Allocatable.Pods - int64(n.Len())
	b.gone = b.free.Clone()
	for i := range n.levels {
		if n.levels[i].priority > t.top {
			break
		}
		b.gone.Add(&n.levels[i].requests, 1)
	}
	b.gone.Pods = b.free.Pods + int64(b.pods)
	tail := lower[max(0, len(lower)-maxTail):]
	copy(b.tail[maxTail-len(tail):], tail)
	return b
}

// widen makes the bound one of another's nodes, too.
func (b *roomBound) widen(o *roomBound) {
	switch {
	case o.pods == 0:
		return
	case b.pods == 0:
		*b = *o
		b.free, b.gone, b.most = o.free.Clone(), o.gone.Clone(), o.most.Clone()
		return
	}
	b.pods, b.slack = max(b.pods, o.pods), min(b.slack, o.slack)
	b.free.max(&o.free)
	b.gone.max(&o.gone)
	b.most.max(&o.most)
	for i, p := range o.tail {
		if p != nil && (b.tail[i] == nil || MoreImportant(b.tail[i], p) < 0) {
			b.tail[i] = p
		}
	}
}

// roomBounds are the bounds of one preemptor.
type roomBounds struct {
	*rooms
	prof *profile
	pod  *Pod
	// synth stands for a range's nodes.
	synth Node
	freed Resources
}

func (t *rooms) boundsFor(prof *profile, pod *Pod) *roomBounds {
	return &roomBounds{rooms: t, prof: prof, pod: pod, synth: Node{Object: &corev1.Node{}, slot: -1}}
}

// of is the least that a range of nodes can cost.
func (r *roomBounds) of(level, i int) (c Candidate, hopeless bool) {
	b := &r.levels[level][i]
	if b.pods == 0 {
		return c, true
	}
	k := 1
	if r.pod.Requests.Pods == 0 { // which the bounds count in another way
		r.synth.Allocatable, r.freed = b.gone, Resources{}
		if !r.prof.mayFit(r.pod, &r.synth, &r.freed, 0) {
			return c, true
		}
		r.synth.Allocatable = b.free
		for r.freed = b.most.Clone(); k < min(int(b.pods), maxTail) && !r.prof.mayFit(r.pod, &r.synth, &r.freed, k); k++ {
			r.freed.Add(&b.most, 1)
		}
	}
	c.Victims = b.tail[maxTail-k:]
	c.Violations = max(0, k+int(b.slack))
	return c, false
}
