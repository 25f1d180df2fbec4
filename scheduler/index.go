package scheduler

import (
	"encoding/binary"
	"slices"
)

// index sorts the nodes that the cacheable plugins accept, for pods of one signature, into classes: those of a class differ in their cached
// scores alone. Within a class nodes are kept by that score, so that a decision looks at the classes and at the best nodes of the best ones.
type index struct {
	pos     int
	base    *answers
	view    *View
	sums    []domainSum
	width   int     // features of a node: the raw scores to be normalized, then one for each sum
	feats   []int64 // by slot, width each
	class   []int32 // by slot; -1: not feasible
	score   []int64 // by slot
	at      []int32 // by slot: its place in the bucket
	ids     map[string]int32
	classes []class
	unused  []int32
	buf     []int64
	key     []byte
	touched []int32
}

// class is a set of nodes.
type class struct {
	key     string
	feats   []int64
	nodes   int
	buckets []bucket // by ascending score
}

type bucket struct {
	score int64
	slots []int32
}

// indexFor returns the up-to-date index for a pod.
func (e *Engine) indexFor(prof *profile, pod *Pod, a *answers, js []judged) *index {
	b := append(e.scratch[:0], pod.sig...)
	if len(e.nominations.node) > 0 {
		b = append(b, byte(pod.Priority), byte(pod.Priority>>8), byte(pod.Priority>>16), byte(pod.Priority>>24))
	}
	for i := range js {
		if d := js[i].Domains; d != nil {
			b = append(append(b, 0, byte(i)), d.ID...)
		}
	}
	e.scratch = b
	x := e.indexes[string(b)]
	if x == nil || x.base != a || x.stale(js, e.view) {
		x = newIndex(prof, a, js, e.view)
		e.indexes[string(b)] = x
	}
	e.sync(x, js)
	return x
}

func (e *Engine) forgetSums() {
	clear(e.indexes)
	e.probe = probe{}
}

func newIndex(prof *profile, a *answers, js []judged, v *View) *index {
	x := &index{pos: -1, base: a, view: v, ids: map[string]int32{}}
	eachSum(js, func(_ int, s *DomainSum) bool {
		x.sums = append(x.sums, newDomainSum(s, v))
		return true
	})
	x.width = len(prof.normalized) + len(x.sums)
	x.buf = make([]int64, x.width)
	return x
}

// eachSum numbers the judgements' sums.
func eachSum(js []judged, f func(i int, s *DomainSum) bool) {
	i := 0
	for k := range js {
		if js[k].Domains == nil {
			continue
		}
		for m := range js[k].Domains.Sums {
			if !f(i, &js[k].Domains.Sums[m]) {
				return
			}
			i++
		}
	}
}

func (x *index) stale(js []judged, v *View) (stale bool) {
	eachSum(js, func(i int, s *DomainSum) bool {
		stale = x.sums[i].stale(s, v)
		return !stale
	})
	return stale
}

// sync looks at the nodes that changed.
func (e *Engine) sync(x *index, js []judged) {
	for len(x.class) < len(e.nodes) {
		x.class, x.score, x.at = append(x.class, -1), append(x.score, 0), append(x.at, 0)
		for range x.width {
			x.feats = append(x.feats, noFeature)
		}
	}
	changes, ok := e.log.sinceOnce(x.pos)
	if !ok {
		for slot := range e.nodes {
			tally(x, js, e.nodes, int32(slot), nil)
		}
		for slot := range e.nodes {
			x.sort(int32(slot))
		}
	}
	for _, c := range changes {
		x.touched = append(x.touched[:0], c.slot)
		tally(x, js, e.nodes, c.slot, func(slot int32) { x.touched = append(x.touched, slot) })
		for _, slot := range x.touched {
			x.sort(slot)
		}
	}
	x.pos = e.log.end()
}

// tally brings the sums up to date that a node is in, and calls touched for those that are in the same domains.
func tally(x *index, js []judged, nodes []*Node, slot int32, touched func(slot int32)) {
	eachSum(js, func(i int, s *DomainSum) bool {
		d := &x.sums[i]
		was := int32(-1)
		if int(slot) < len(d.of) {
			was = d.of[slot]
		}
		if d.set(s, slot, nodes[slot]) && touched != nil && !d.coarse {
			d.each(d.of[slot], touched)
			if was != d.of[slot] {
				d.each(was, touched)
			}
		}
		return true
	})
}

func (d *domainSum) each(dom int32, f func(slot int32)) {
	if dom < 0 || int(dom) >= len(d.head) {
		return
	}
	for s := d.head[dom]; s >= 0; s = d.next[s] {
		f(s)
	}
}

// sort puts a node where it belongs.
func (x *index) sort(slot int32) {
	a := x.base
	if a.full[slot] != nil {
		x.drop(slot)
		return
	}
	f := x.buf
	for i := range a.raw {
		f[i] = a.raw[i][slot]
	}
	for i := range x.sums {
		f[len(a.raw)+i] = x.sums[i].feature(slot)
	}
	score := a.nodeScore[slot] + a.podsScore[slot]
	own := x.feats[int(slot)*x.width : (int(slot)+1)*x.width]
	if c := x.class[slot]; c >= 0 && slices.Equal(own, f) {
		if x.score[slot] != score {
			x.classes[c].take(x, slot)
			x.score[slot] = score
			x.classes[c].put(x, slot)
		}
		return
	}
	x.drop(slot)
	copy(own, f)
	key := x.encode(own)
	id, ok := x.ids[string(key)]
	if !ok {
		id = x.newClass(own, string(key))
	}
	x.class[slot], x.score[slot] = id, score
	c := &x.classes[id]
	c.nodes++
	c.put(x, slot)
}

func (x *index) newClass(feats []int64, key string) int32 {
	c := class{key: key, feats: slices.Clone(feats)}
	id := int32(len(x.classes))
	if n := len(x.unused); n > 0 {
		id, x.unused = x.unused[n-1], x.unused[:n-1]
		c.buckets = x.classes[id].buckets[:0]
		x.classes[id] = c
	} else {
		x.classes = append(x.classes, c)
	}
	x.ids[c.key] = id
	return id
}

// encode writes features for use as a key.
func (x *index) encode(feats []int64) []byte {
	b := x.key[:0]
	for _, f := range feats {
		b = binary.AppendVarint(b, f)
	}
	x.key = b
	return b
}

func (x *index) drop(slot int32) {
	id := x.class[slot]
	if id < 0 {
		return
	}
	c := &x.classes[id]
	c.take(x, slot)
	x.class[slot] = -1
	if c.nodes--; c.nodes == 0 {
		delete(x.ids, c.key)
		x.unused = append(x.unused, id)
	}
}

func (c *class) find(score int64) (int, bool) {
	return slices.BinarySearchFunc(c.buckets, score, func(b bucket, s int64) int {
		switch {
		case b.score < s:
			return -1
		case b.score > s:
			return 1
		}
		return 0
	})
}

func (c *class) put(x *index, slot int32) {
	i, ok := c.find(x.score[slot])
	if !ok {
		var b bucket
		if n := len(c.buckets); n < cap(c.buckets) {
			b.slots = c.buckets[:n+1][n].slots[:0] // one that was emptied before
		}
		b.score = x.score[slot]
		c.buckets = slices.Insert(c.buckets, i, b)
	}
	b := &c.buckets[i]
	x.at[slot] = int32(len(b.slots))
	b.slots = append(b.slots, slot)
}

func (c *class) take(x *index, slot int32) {
	i, _ := c.find(x.score[slot])
	b := &c.buckets[i]
	last := len(b.slots) - 1
	moved := b.slots[last]
	b.slots[x.at[slot]], x.at[moved] = moved, x.at[slot]
	b.slots = b.slots[:last]
	if last == 0 {
		empty := c.buckets[i]
		copy(c.buckets[i:], c.buckets[i+1:])
		c.buckets[len(c.buckets)-1] = empty
		c.buckets = c.buckets[:len(c.buckets)-1]
	}
}

func (c *class) best() *bucket { return &c.buckets[len(c.buckets)-1] }
