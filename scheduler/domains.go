package scheduler

import (
	"slices"
	"unsafe"
)

// DomainJudgement is a Judgement in terms of sums over topology domains. The engine keeps the sums up to date between decisions, and asks for
// classes of nodes, not for each node: a decision's cost then grows with the number of domains and of different sums, not with that of nodes.
type DomainJudgement struct {
	// ID is the same for two judgements only if their Sums are: of the same keys, with the same amounts for every node.
	ID   string
	Sums []DomainSum
	// Filter returns nil if the nodes of the place can take the pod. It may be nil.
	Filter func(p *Place) *Rejection
	// Summed: Filter depends on nothing but the pod and the Sums, and those on nothing but the node objects and the pods on nodes. What would be if pods were
	// gone is then found out by domain instead of by node.
	Summed bool
	// Exempt are nodes that may take the pod though Filter rejects their places: then FilterExempt decides.
	Exempt       []*Node
	FilterExempt func(n *Node) *Rejection
	// Scores sets the scores of all feasible places, each 0 to MaxScore. They are 0 when it is called. It may be nil.
	Scores func(feasible []Place, scores []int64)
}

// DomainSum adds up what nodes bring in, by topology domain.
type DomainSum struct {
	// Key is the label of nodes whose values are the domains. With "" each node is its own domain.
	Key string
	// Apart: nodes of different domains are in different places, however many domains there are.
	Apart bool
	// Amount is what a node adds, and whether it counts at all. It depends on the node object and on the pods on that node, and on nothing else.
	Amount func(n *Node) (amount int64, counts bool)
}

// Place stands for feasible nodes between which a DomainJudgement sees no difference.
type Place struct {
	// Nodes is how many they are.
	Nodes int

	x    *index
	slot int32 // one of them
	off  int   // of the judgement's first sum
}

// Node is one of the nodes. What the sums don't tell apart may be different with the others.
func (p *Place) Node() *Node { return p.x.view.nodes[p.slot] }

// Sum is the i-th sum for the place's domain, and whether it is in one. For a sum without key, ok says whether the nodes count.
func (p *Place) Sum(i int) (sum int64, ok bool) {
	d := &p.x.sums[p.off+i]
	dom := d.domain(p.slot)
	if dom < 0 {
		return 0, false
	}
	if d.key == "" {
		return d.sums.at(dom), d.counted.at(dom) > 0
	}
	return d.sums.at(dom), true
}

// Domain identifies the place's domain of the i-th sum, which must be one with Apart: -1 for none.
func (p *Place) Domain(i int) int { return int(p.x.sums[p.off+i].domain(p.slot)) }

// Least is the least of the i-th sum over all domains with a node that counts, and how many those are.
func (p *Place) Least(i int) (least int64, domains int) { return p.x.sums[p.off+i].least() }

// Any reports whether the i-th sum is other than 0 in any domain.
func (p *Place) Any(i int) bool { return p.x.sums[p.off+i].nonzero > 0 }

// judgeAll is Filter of all nodes of a place.
func (d *DomainJudgement) judgeAll(p *Place) *Rejection { return d.Filter(p) }

// judge is Filter of a single node.
func (d *DomainJudgement) judge(p *Place) *Rejection {
	r := d.Filter(p)
	if r == nil || len(d.Exempt) == 0 {
		return r
	}
	if n := p.Node(); slices.Contains(d.Exempt, n) {
		return d.FilterExempt(n)
	}
	return r
}

// domainSum is the state of a DomainSum.
type domainSum struct {
	key     string
	coarse  bool     // domains themselves tell classes apart; else their sums do
	domains *Domains // nil without key
	of      column   // the domain by slot, from 1, as counted here; 0 for none
	part    column   // the amount by slot
	counts  bitset   // by slot
	sums    column   // by domain
	counted column   // nodes that count, by domain
	nonzero int      // domains with another sum than 0
	values  map[int64]int32
	// head, next and prev link the slots of each domain, where it isn't coarse, from 1. Without key each slot is alone.
	head, next, prev column
}

func newDomainSum(s *DomainSum, v *View) domainSum {
	d := domainSum{key: s.Key, values: map[int64]int32{}}
	if s.Key != "" {
		d.domains = v.Domains(s.Key)
		d.coarse = s.Apart || coarse(d.domains.Len, len(v.nodes))
	}
	return d
}

// coarse: with few domains each has many nodes, which would all change their class with each of its sums.
func coarse(domains, nodes int) bool { return domains*domains <= nodes }

// stale reports that the state must be built anew: other domains, or far more of them.
func (d *domainSum) stale(s *DomainSum, v *View) bool {
	if d.key == "" {
		return false
	}
	now := v.Domains(d.key)
	if now.since != d.domains.since {
		return true
	}
	d.domains = now // the same, or a copy
	return d.coarse && !s.Apart && !coarse(now.Len/2, len(v.nodes)) || !d.coarse && coarse(2*now.Len, len(v.nodes))
}

// domain is that of a node, as counted here; -1 for none.
func (d *domainSum) domain(slot int32) int32 { return int32(d.of.at(slot)) - 1 }

// grow makes room for that many slots.
func (d *domainSum) grow(slots int) {
	d.of.grow(slots)
	d.part.grow(slots)
	d.counts = d.counts.grown(slots)
	if d.linked() {
		d.next.grow(slots)
		d.prev.grow(slots)
	}
}

// linked: a domain's slots have to be found.
func (d *domainSum) linked() bool { return !d.coarse && d.domains != nil }

func (d *domainSum) bytes() int {
	n := int(unsafe.Sizeof(*d)) + 8*cap(d.counts) + 32*len(d.values)
	for _, c := range []*column{&d.of, &d.part, &d.sums, &d.counted, &d.head, &d.next, &d.prev} {
		n += cap(c.b)
	}
	return n
}

// set counts a node anew; n is nil if there is none. It reports whether the sum of the domain changed that it is in.
func (d *domainSum) set(s *DomainSum, slot int32, n *Node) (changed bool) {
	dom, part, counts := int32(-1), int64(0), false
	if n != nil {
		if d.domains != nil {
			dom = d.domains.Of[slot]
		} else {
			dom = slot
		}
		if dom >= 0 {
			part, counts = s.Amount(n)
		}
	}
	had, counted := d.part.at(slot), d.counts.has(slot)
	if old := d.domain(slot); old != dom {
		d.leave(slot, old)
		d.add(old, -had, -one(counted))
		d.of.set(slot, int64(dom)+1)
		d.add(dom, part, one(counts))
		d.join(slot, dom)
		changed = true
	} else if had != part || counted != counts {
		d.add(dom, part-had, one(counts)-one(counted))
		changed = true
	}
	d.part.set(slot, part)
	d.counts.put(slot, counts)
	return changed
}

func one(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

func (d *domainSum) add(dom int32, amount int64, nodes int32) {
	if dom < 0 {
		return
	}
	if n := int(dom) + 1; n > d.sums.n {
		if d.domains != nil {
			n = max(n, d.domains.Len)
		} else {
			n = max(n, d.of.n)
		}
		d.sums.grow(n)
		d.counted.grow(n)
	}
	was, counted := d.sums.at(dom), int32(d.counted.at(dom))
	d.value(was, counted, -1)
	if was != 0 {
		d.nonzero--
	}
	now := was + amount
	d.sums.set(dom, now)
	d.counted.set(dom, int64(counted+nodes))
	if now != 0 {
		d.nonzero++
	}
	d.value(now, counted+nodes, 1)
}

// value notes a domain's sum, if a node counts there.
func (d *domainSum) value(v int64, counted, sign int32) {
	if counted == 0 {
		return
	}
	if d.values[v] += sign; d.values[v] == 0 {
		delete(d.values, v)
	}
}

func (d *domainSum) least() (least int64, domains int) {
	first := true
	for v, n := range d.values {
		if domains += int(n); first || v < least {
			least, first = v, false
		}
	}
	return least, domains
}

func (d *domainSum) join(slot, dom int32) {
	if !d.linked() || dom < 0 {
		return
	}
	d.head.grow(max(int(dom)+1, d.sums.n))
	h := d.head.at(dom)
	d.prev.set(slot, 0)
	d.next.set(slot, h)
	if h > 0 {
		d.prev.set(int32(h)-1, int64(slot)+1)
	}
	d.head.set(dom, int64(slot)+1)
}

func (d *domainSum) leave(slot, dom int32) {
	if !d.linked() || dom < 0 {
		return
	}
	p, n := d.prev.at(slot), d.next.at(slot)
	if p > 0 {
		d.next.set(int32(p)-1, n)
	} else {
		d.head.set(dom, n)
	}
	if n > 0 {
		d.prev.set(int32(n)-1, p)
	}
}

// each calls f for the slots of a domain.
func (d *domainSum) each(dom int32, f func(slot int32)) {
	switch {
	case dom < 0:
	case !d.linked():
		f(dom)
	case int(dom) < d.head.n:
		for s := d.head.at(dom); s > 0; s = d.next.at(int32(s) - 1) {
			f(int32(s) - 1)
		}
	}
}

// feature is what tells the node's class from others.
func (d *domainSum) feature(slot int32) int64 {
	dom := d.domain(slot)
	switch {
	case dom < 0 || d.key == "" && d.counted.at(dom) == 0:
		return noFeature
	case d.coarse:
		return int64(dom)
	}
	return d.sums.at(dom)
}

const noFeature = -1 << 62

// Plain is the same judgement without Domains: each node is asked for, by sums made anew.
func (j Judgement) Plain(v *View) Judgement {
	if j.Domains == nil {
		return j
	}
	x := newSums([]judged{{Judgement: j}}, v)
	plain := Judgement{Filter: j.Filter, Scores: j.Scores}
	if j.Domains.Filter != nil {
		plain.Filter = func(n *Node) *Rejection {
			if r := j.Domains.judge(&Place{Nodes: 1, x: x, slot: int32(n.slot)}); r != nil || j.Filter == nil {
				return r
			}
			return j.Filter(n)
		}
	}
	if j.Domains.Scores != nil {
		plain.Scores = func(feasible []*Node, scores []int64) {
			places := make([]Place, len(feasible))
			for i, n := range feasible {
				places[i] = Place{Nodes: 1, x: x, slot: int32(n.slot)}
			}
			j.Domains.Scores(places, scores)
			if j.Scores == nil {
				return
			}
			own := make([]int64, len(scores))
			j.Scores(feasible, own)
			for i, s := range own {
				scores[i] += s
			}
		}
	}
	return plain
}

// newSums is an index of sums alone.
func newSums(js []judged, v *View) *index {
	x := &index{pos: -1, view: v}
	eachSum(js, func(_ int, s *DomainSum) bool {
		x.sums = append(x.sums, newDomainSum(s, v))
		return true
	})
	for i := range x.sums {
		x.sums[i].grow(len(v.nodes))
	}
	for slot := range v.nodes {
		tally(x, js, v.nodes, int32(slot), nil)
	}
	return x
}
