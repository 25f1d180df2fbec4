package scheduler

import (
	"encoding/binary"
	"slices"
	"unsafe"
)

// index sorts the nodes that the cacheable plugins accept, for pods of one signature, into classes: those of a class differ in their cached
// scores alone. Within a class nodes are kept by that score, so that a decision looks at the classes and at the best nodes of the best ones.
type index struct {
	entry
	pos     int
	base    *answers
	view    *View
	sums    []domainSum
	class   column // by slot, from 1; 0: not feasible
	score   column // by slot
	at      column // by slot: its place in the bucket
	ids     map[string]int32
	classes []class
	unused  []int32
	guess   int32   // the class that a node was put into last: often that of the next one, too
	buf     []int64 // a node's features: the raw scores to be normalized, then one for each sum
	scratch []byte
	touched []int32
	held    int // bytes in classes
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
	b := append(e.scratch[:0], *a.sig...)
	if len(e.nominations.node) > 0 {
		b = append(b, byte(pod.Priority), byte(pod.Priority>>8), byte(pod.Priority>>16), byte(pod.Priority>>24))
	}
	for i := range js {
		if d := js[i].Domains; d != nil {
			b = append(append(b, 0, byte(i)), d.ID...)
		}
	}
	e.scratch = b
	x := e.cache.indexOf(b)
	if x == nil {
		x = newIndex(string(b), prof, a, js, e.view)
		e.cache.addIndex(x)
	} else if x.base != a || x.stale(js, e.view) {
		old := x
		x = newIndex(old.key, prof, a, js, e.view)
		e.cache.replace(old, x)
	}
	e.sync(x, js)
	return x
}

// forgetSums forgets what depends on what nodes add to sums.
func (e *Engine) forgetSums() {
	e.cache.dropIndexes()
	e.probe = probe{}
	e.sumsAge++
}

func newIndex(key string, prof *profile, a *answers, js []judged, v *View) *index {
	x := &index{pos: -1, base: a, view: v, ids: map[string]int32{}}
	x.entry = entry{key: key, index: x}
	eachSum(js, func(_ int, s *DomainSum) bool {
		x.sums = append(x.sums, newDomainSum(s, v))
		return true
	})
	x.buf = make([]int64, len(prof.normalized)+len(x.sums))
	return x
}

// classOf is the node's class, -1 if it is not feasible.
func (x *index) classOf(slot int32) int32 { return int32(x.class.at(slot)) - 1 }

func (x *index) bytes() int {
	n := int(unsafe.Sizeof(*x)) + len(x.key) + x.held + cap(x.class.b) + cap(x.score.b) + cap(x.at.b) + 4*(cap(x.unused)+cap(x.touched))
	for i := range x.sums {
		n += x.sums[i].bytes()
	}
	return n
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
	for _, c := range []*column{&x.class, &x.score, &x.at} {
		c.grow(len(e.nodes))
	}
	for i := range x.sums {
		x.sums[i].grow(len(e.nodes))
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
		if int(slot) >= d.of.n {
			d.grow(int(slot) + 1)
		}
		was := d.domain(slot)
		if d.set(s, slot, nodes[slot]) && touched != nil && !d.coarse {
			now := d.domain(slot)
			d.each(now, touched)
			if was != now {
				d.each(was, touched)
			}
		}
		return true
	})
}

// sort puts a node where it belongs.
func (x *index) sort(slot int32) {
	a := x.base
	if !a.fits(slot) {
		x.drop(slot)
		return
	}
	f := x.buf
	for i := range a.raw {
		f[i] = a.raw[i].at(slot)
	}
	for i := range x.sums {
		f[len(a.raw)+i] = x.sums[i].feature(slot)
	}
	score := a.score(slot)
	if id := x.classOf(slot); id >= 0 && slices.Equal(x.classes[id].feats, f) {
		if x.score.at(slot) != score {
			c := &x.classes[id]
			c.take(x, slot)
			x.score.set(slot, score)
			c.put(x, slot)
		}
		return
	}
	x.drop(slot)
	id := x.guess
	if int(id) >= len(x.classes) || x.classes[id].nodes == 0 || !slices.Equal(x.classes[id].feats, f) {
		key := x.encode(f)
		var ok bool
		if id, ok = x.ids[string(key)]; !ok {
			id = x.newClass(f, string(key))
		}
		x.guess = id
	}
	x.class.set(slot, int64(id)+1)
	x.score.set(slot, score)
	c := &x.classes[id]
	c.nodes++
	c.put(x, slot)
}

func (x *index) newClass(feats []int64, key string) int32 {
	c := class{key: key, feats: slices.Clone(feats)}
	x.held += c.bytes()
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
	b := x.scratch[:0]
	for _, f := range feats {
		b = binary.AppendVarint(b, f)
	}
	x.scratch = b
	return b
}

func (x *index) drop(slot int32) {
	id := x.classOf(slot)
	if id < 0 {
		return
	}
	c := &x.classes[id]
	c.take(x, slot)
	x.class.set(slot, 0)
	if c.nodes--; c.nodes == 0 {
		x.held -= c.bytes()
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
	score := x.score.at(slot)
	i, ok := c.find(score)
	if !ok {
		var b bucket
		if n := len(c.buckets); n < cap(c.buckets) {
			b.slots = c.buckets[:n+1][n].slots[:0] // one that was emptied before
		}
		b.score = score
		room := cap(c.buckets)
		c.buckets = slices.Insert(c.buckets, i, b)
		x.held += (cap(c.buckets) - room) * int(unsafe.Sizeof(b))
	}
	b := &c.buckets[i]
	x.at.set(slot, int64(len(b.slots)))
	room := cap(b.slots)
	b.slots = append(b.slots, slot)
	x.held += 4 * (cap(b.slots) - room)
}

func (c *class) take(x *index, slot int32) {
	i, _ := c.find(x.score.at(slot))
	b := &c.buckets[i]
	last := len(b.slots) - 1
	moved, at := b.slots[last], x.at.at(slot)
	b.slots[at] = moved
	x.at.set(moved, at)
	b.slots = b.slots[:last]
	if last == 0 {
		empty := c.buckets[i]
		copy(c.buckets[i:], c.buckets[i+1:])
		c.buckets[len(c.buckets)-1] = empty
		c.buckets = c.buckets[:len(c.buckets)-1]
	}
}

// bytes is the memory that it takes without its buckets.
func (c *class) bytes() int {
	const place = 48 // in index.ids
	return int(unsafe.Sizeof(*c)) + len(c.key) + 8*len(c.feats) + place
}

func (c *class) best() *bucket { return &c.buckets[len(c.buckets)-1] }
