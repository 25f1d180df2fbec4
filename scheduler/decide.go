package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Decision is what the engine says of one pod.
type Decision struct {
	// Node is where the pod goes, "" if it fits nowhere.
	Node  string
	Score int64
	// Nodes were looked at, Feasible of them could take the pod. For a pod that is put where it was nominated no other is looked at.
	Nodes, Feasible int
	// Reasons counts nodes by each reason they were rejected for; 0 is for reasons of the pod, not of a node.
	Reasons map[string]int
	// Plugins that rejected the pod or a node, sorted.
	Plugins []string
	// Group says why no place was found for the group that the pod is in, though there was one for the pod, or that was not looked for.
	Group string
	// Resolvable nodes could take the pod if others were removed from them.
	Resolvable NodeSet
	// PostFilter is what was tried to make room, in Kubernetes' words.
	PostFilter string
}

// Fits reports whether a node was found.
func (d *Decision) Fits() bool { return d.Node != "" }

// Message says why the pod fits nowhere, as kube-scheduler does; "" if it fits.
func (d *Decision) Message() string {
	if d.Fits() {
		return ""
	}
	if d.Group != "" {
		if d.PostFilter != "" {
			return d.Group + ", " + d.PostFilter
		}
		return d.Group
	}
	if len(d.Reasons) == 0 && d.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	return available(d.Nodes, d.Reasons) + d.suffix()
}

func (d *Decision) suffix() string {
	if d.PostFilter == "" {
		return ""
	}
	return " " + d.PostFilter
}

// available counts why of that many nodes none is to be had.
func available(nodes int, reasons map[string]int) string {
	var parts []string
	for reason, n := range reasons {
		if n == 0 {
			parts = append(parts, reason) // of the pod, not of a node
			continue
		}
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	s := fmt.Sprintf("0/%d nodes are available:", nodes)
	if len(parts) > 0 {
		s += " " + strings.Join(parts, ", ") + "."
	}
	return s
}

// Schedule decides for one pod and, if it fits, assigns it.
func (e *Engine) Schedule(pod *Pod) Decision {
	d := e.Decide(pod)
	if d.Fits() {
		e.Assign(pod, d.Node)
	}
	return d
}

// Decide chooses a node for pod among all nodes: the best by weighted scores, at random among equals. It changes nothing.
func (e *Engine) Decide(pod *Pod) Decision {
	d := Decision{Nodes: e.count}
	prof := e.profileOf(pod)
	if r := e.PreEnqueue(pod); r != nil {
		return d.rejected(r)
	}
	e.view.sweep()
	js, p, r := e.preFilter(prof, pod, e.judged[:0])
	e.judged = js
	switch {
	case r != nil && p == nil: // confined to no node
		d = d.rejected(r)
		d.Plugins = prof.picking(pod)
		return d
	case r != nil:
		return e.refuse(d, p, r)
	case e.count == 0:
		return d
	}
	if n := e.Node(e.nominations.node[pod.key()]); n != nil && e.check(prof, pod, n, js) == nil {
		d.Node, d.Feasible = n.Object.Name, 1
		return d
	}
	a := e.answersFor(prof, pod)
	if a.feasible() == 0 && !prof.scattered(js) {
		plugins := a.explainInto(&d, e.names)
		d.Plugins = slices.Sorted(maps.Keys(plugins))
		prof.addPicking(&d, pod)
		return d
	}
	x := e.indexFor(prof, pod, a, js)
	b := &e.ballot
	b.reset(len(x.classes))
	b.overrides = e.overrides(prof, pod, x, js)
	if len(js) > 0 || prof.uncachedFilter || len(b.overrides) > 0 {
		e.narrow(prof, pod, x, js)
	} else {
		for id := range x.classes {
			if c := &x.classes[id]; c.nodes > 0 {
				b.add(x, int32(id), nil)
			}
		}
	}
	for i := range b.places {
		d.Feasible += b.places[i].Nodes
	}
	if d.Feasible == 0 {
		e.explainInto(&d, prof, pod, x, js)
		prof.addPicking(&d, pod)
		return d
	}
	slot, score := e.elect(prof, pod, x, js)
	d.Node, d.Score = e.nodes[slot].Object.Name, score
	return d
}

// judged is a plugin with what it said of the pod being decided.
type judged struct {
	p *pluginState
	Judgement
}

// preFilter asks all that is to be asked about a pod before nodes are looked at. Without nodes that is less. The plugin is nil where it takes several to leave
// the pod no node.
func (e *Engine) preFilter(prof *profile, pod *Pod, js []judged) ([]judged, *pluginState, *Rejection) {
	for _, p := range prof.at(AtPreFilter) {
		if p.pre != nil {
			if r := p.pre.PreFilter(pod); r != nil {
				return js, p, r
			}
		}
		if e.count == 0 {
			continue
		}
		if p.cluster != nil {
			j, r := p.cluster.Prepare(pod, e.view)
			if r != nil {
				return js, p, r
			}
			js = j.of(p, js)
		}
		if p.picker != nil {
			if r := prof.nowhere(pod, p); r != nil {
				return js, nil, r
			}
		}
	}
	return prof.inFilterOrder(js), nil, nil
}

// judge asks the ClusterPlugins alone.
func (e *Engine) judge(prof *profile, pod *Pod, js []judged) ([]judged, *pluginState, *Rejection) {
	for _, p := range prof.at(AtPreFilter) {
		if p.cluster == nil {
			continue
		}
		j, r := p.cluster.Prepare(pod, e.view)
		if r != nil {
			return js, p, r
		}
		js = j.of(p, js)
	}
	return prof.inFilterOrder(js), nil, nil
}

// of appends what a plugin said, if it did.
func (j Judgement) of(p *pluginState, js []judged) []judged {
	if j.Filter != nil || j.Scores != nil || j.Domains != nil {
		js = append(js, judged{p, j})
	}
	return js
}

// inFilterOrder sorts what plugins said that were asked in preFilter's order.
func (p *profile) inFilterOrder(js []judged) []judged {
	if p.reordered {
		slices.SortFunc(js, func(x, y judged) int { return byPlace(x.p, y.p) })
	}
	return js
}

// refuse is the decision for a pod that a plugin wants on no node.
func (e *Engine) refuse(d Decision, p *pluginState, r *Rejection) Decision {
	if r.Plugin == "" {
		r.Plugin = p.name
	}
	d = d.rejected(r)
	if !r.Unresolvable {
		d.Resolvable = NodeSet{in: bitset(nil).grown(len(e.nodes)), n: e.count, names: e.names}
		for slot, n := range e.nodes {
			if n != nil {
				d.Resolvable.in.set(int32(slot))
			}
		}
	}
	return d
}

func (d Decision) rejected(r *Rejection) Decision {
	d.Reasons = map[string]int{}
	if r.Plugin != "" {
		d.Plugins = []string{r.Plugin}
	}
	for _, reason := range r.Reasons {
		d.Reasons[reason] = 0
	}
	return d
}

// ballot is what a decision is made from; its memory is used again.
type ballot struct {
	places []Place
	ids    []int32
	// nodes are those of each place; nil for all of the class.
	nodes     [][]int32
	slots     []int32
	refused   []*Rejection         // by class
	overrides map[int32]*Rejection // by slot
	totals    []int64              // by place
	raw       []int64
	list      []*Node
}

func (b *ballot) reset(classes int) {
	b.places, b.ids, b.nodes, b.slots = b.places[:0], b.ids[:0], b.nodes[:0], b.slots[:0]
	for len(b.refused) < classes {
		b.refused = append(b.refused, nil)
	}
	clear(b.refused)
}

// overrides are the nodes on which another pod is nominated that affects the plugins that look at the whole cluster.
func (e *Engine) overrides(prof *profile, pod *Pod, x *index, js []judged) (out map[int32]*Rejection) {
	for name := range e.nominations.pods {
		n := e.Node(name)
		if n == nil || x.classOf(int32(n.slot)) < 0 {
			continue
		}
		rivals := e.rivals(pod, name)
		if len(rivals) == 0 || !prof.uncachedFilter && !slices.ContainsFunc(js, func(j judged) bool { return j.filters() }) {
			continue
		}
		if r := e.checkWith(prof, pod, n, rivals, js); r != nil {
			if out == nil {
				out = map[int32]*Rejection{}
			}
			out[int32(n.slot)] = r
		}
	}
	return out
}

// asksEach reports whether some plugin's filter is to be asked for each node.
func (p *profile) asksEach(js []judged) bool {
	return p.uncachedFilter || slices.ContainsFunc(js, func(j judged) bool { return j.Filter != nil })
}

// add notes a feasible place: a class, or some of its nodes.
func (b *ballot) add(x *index, id int32, slots []int32) {
	c := &x.classes[id]
	p := Place{Nodes: c.nodes, x: x, slot: c.best().slots[0]}
	if slots != nil {
		p.Nodes, p.slot = len(slots), slots[0]
	}
	b.places, b.ids, b.nodes = append(b.places, p), append(b.ids, id), append(b.nodes, slots)
}

// narrow finds the feasible places where plugins are to be asked that aren't cached.
func (e *Engine) narrow(prof *profile, pod *Pod, x *index, js []judged) {
	b := &e.ballot
	only, confined := onlyOn(js)
	for _, n := range only {
		e.admit(prof, pod, x, js, n)
	}
	if confined && len(b.places) > 0 {
		return
	}
	each := prof.asksEach(js) || len(b.overrides) > 0
	for id := range x.classes {
		c := &x.classes[id]
		if c.nodes == 0 {
			continue
		}
		p := Place{Nodes: c.nodes, x: x, slot: c.best().slots[0]}
		if b.refused[id] = refusal(js, &p, (*DomainJudgement).judgeAll); b.refused[id] != nil || confined {
			continue
		}
		if !each {
			b.add(x, int32(id), nil)
			continue
		}
		from := len(b.slots)
		for i := range c.buckets {
			for _, slot := range c.buckets[i].slots {
				if b.overrides[slot] == nil && e.uncached(prof, pod, e.nodes[slot], js) == nil {
					b.slots = append(b.slots, slot)
				}
			}
		}
		if len(b.slots) > from {
			b.add(x, int32(id), b.slots[from:len(b.slots):len(b.slots)])
		}
	}
	if confined {
		return
	}
	for slot := range e.exempt(js).all() {
		if id := x.classOf(slot); id >= 0 && b.refused[id] != nil {
			e.admit(prof, pod, x, js, e.nodes[slot])
		}
	}
}

// admit adds a node alone, if all plugins accept it.
func (e *Engine) admit(prof *profile, pod *Pod, x *index, js []judged, n *Node) {
	b, slot := &e.ballot, int32(n.slot)
	if id := x.classOf(slot); id >= 0 && b.overrides[slot] == nil &&
		refusal(js, &Place{Nodes: 1, x: x, slot: slot}, (*DomainJudgement).judge) == nil && e.uncached(prof, pod, n, js) == nil {
		b.slots = append(b.slots, slot)
		b.add(x, id, b.slots[len(b.slots)-1:len(b.slots):len(b.slots)])
	}
}

// onlyOn returns the nodes to which the judgements confine a pod; ok is false if they don't.
func onlyOn(js []judged) (nodes []*Node, ok bool) {
	for i := range js {
		if only := js[i].Only; only != nil && (!ok || len(only) < len(nodes)) {
			nodes, ok = only, true
		}
	}
	return nodes, ok
}

// exempt are the nodes that may be feasible though their class isn't.
func (e *Engine) exempt(js []judged) (slots bitset) {
	for i := range js {
		if d := js[i].Domains; d != nil {
			for _, n := range d.Exempt {
				slots = slots.grown(len(e.nodes))
				slots.set(int32(n.slot))
			}
		}
	}
	return slots
}

// refusal asks the DomainJudgements about a place.
func refusal(js []judged, p *Place, judge func(*DomainJudgement, *Place) *Rejection) *Rejection {
	off := 0
	for i := range js {
		d := js[i].Domains
		if d == nil {
			continue
		}
		if d.Filter != nil {
			p.off = off
			if r := judge(d, p); r != nil {
				if r.Plugin == "" {
					r.Plugin = js[i].p.name
				}
				return r
			}
		}
		off += len(d.Sums)
	}
	return nil
}

// uncached asks the plugins whose answers are never cached.
func (e *Engine) uncached(prof *profile, pod *Pod, n *Node, js []judged) *Rejection {
	if prof.uncachedFilter {
		if r := prof.ask(ScopeCluster, pod, n); r != nil {
			return r
		}
	}
	for i := range js {
		j := &js[i]
		if j.Filter == nil {
			continue
		}
		if r := j.Filter(n); r != nil {
			if r.Plugin == "" {
				r.Plugin = j.p.name
			}
			return r
		}
	}
	return nil
}

// elect returns the feasible node with the greatest score.
func (e *Engine) elect(prof *profile, pod *Pod, x *index, js []judged) (slot int32, score int64) {
	b := &e.ballot
	b.totals = zeroed(b.totals, len(b.places))
	e.normalize(prof, pod, x)
	off, each := 0, prof.uncachedScore
	for i := range js {
		each = each || js[i].Scores != nil
		d := js[i].Domains
		if d == nil {
			continue
		}
		if d.Scores != nil {
			for k := range b.places {
				b.places[k].off = off
			}
			b.raw = zeroed(b.raw, len(b.places))
			d.Scores(b.places, b.raw)
			for k, v := range b.raw {
				b.totals[k] += js[i].p.weight * v
			}
		}
		off += len(d.Sums)
	}
	if each {
		return e.electEach(prof, pod, x, js)
	}
	ties := 0
	best := func(v int64, slots []int32) {
		switch {
		case ties == 0 || v > score:
			slot, score, ties = e.anyOf(slots), v, len(slots)
		case v == score:
			if ties += len(slots); e.rand.IntN(ties) < len(slots) {
				slot = e.anyOf(slots)
			}
		}
	}
	for k, id := range b.ids {
		if b.nodes[k] == nil {
			top := x.classes[id].best()
			best(b.totals[k]+top.score, top.slots)
			continue
		}
		for i := range b.nodes[k] {
			best(b.totals[k]+x.score.at(b.nodes[k][i]), b.nodes[k][i:i+1])
		}
	}
	return slot, score
}

func (e *Engine) anyOf(slots []int32) int32 {
	if len(slots) == 1 {
		return slots[0]
	}
	return slots[e.rand.IntN(len(slots))]
}

// normalize adds the scores that depend on the least and the greatest among the feasible nodes.
func (e *Engine) normalize(prof *profile, pod *Pod, x *index) {
	b := &e.ballot
	for i, at := range prof.normalized {
		p := prof.plugins[at]
		if p.normalize.Indifferent(pod) {
			continue
		}
		least, greatest := x.classes[b.ids[0]].feats[i], x.classes[b.ids[0]].feats[i]
		for _, id := range b.ids {
			v := x.classes[id].feats[i]
			least, greatest = min(least, v), max(greatest, v)
		}
		for k, id := range b.ids {
			b.totals[k] += p.weight * p.normalize.Normalize(x.classes[id].feats[i], least, greatest)
		}
	}
}

// electEach is elect where plugins score each node.
func (e *Engine) electEach(prof *profile, pod *Pod, x *index, js []judged) (slot int32, score int64) {
	b := &e.ballot
	var slots []int32
	var sums []int64
	b.list = b.list[:0]
	take := func(k int, s int32) {
		slots, sums, b.list = append(slots, s), append(sums, b.totals[k]+x.score.at(s)), append(b.list, e.nodes[s])
	}
	for k, id := range b.ids {
		if b.nodes[k] != nil {
			for _, s := range b.nodes[k] {
				take(k, s)
			}
			continue
		}
		for i := range x.classes[id].buckets {
			for _, s := range x.classes[id].buckets[i].slots {
				take(k, s)
			}
		}
	}
	for _, p := range prof.plugins {
		if p.score == nil || p.scope != ScopeCluster || p.normalize != nil && p.normalize.Indifferent(pod) {
			continue
		}
		b.raw = zeroed(b.raw, len(slots))
		for i, n := range b.list {
			b.raw[i] = p.score.Score(pod, n)
		}
		least, greatest := slices.Min(b.raw), slices.Max(b.raw)
		for i, v := range b.raw {
			if p.normalize != nil {
				v = p.normalize.Normalize(v, least, greatest)
			}
			sums[i] += p.weight * v
		}
	}
	for i := range js {
		if js[i].Scores == nil {
			continue
		}
		b.raw = zeroed(b.raw, len(slots))
		js[i].Scores(b.list, b.raw)
		for k, v := range b.raw {
			sums[k] += js[i].p.weight * v
		}
	}
	ties := 0
	for i, v := range sums {
		switch {
		case ties == 0 || v > score:
			slot, score, ties = slots[i], v, 1
		case v == score:
			if ties++; e.rand.IntN(ties) == 0 {
				slot = slots[i]
			}
		}
	}
	return slot, score
}

// zeroed returns n zeros, in buf where it is large enough.
func zeroed(buf []int64, n int) []int64 {
	if cap(buf) < n {
		return make([]int64, n, 2*n)
	}
	buf = buf[:n]
	clear(buf)
	return buf
}

// Hint reports whether a change could make a pod fit that the named plugins rejected.
func (e *Engine) Hint(pod *Pod, plugins []string, c ClusterChange) bool {
	prof := e.profileOf(pod)
	if prof == nil {
		return false
	}
	for _, p := range prof.plugins {
		if slices.Contains(plugins, p.name) && (p.hinter == nil || p.hinter.Hint(pod, c)) {
			return true
		}
	}
	return len(plugins) == 0
}

// HintSelf is Hint for a change of the pod itself.
func (e *Engine) HintSelf(was, now *Pod, plugins []string) bool {
	prof := e.profileOf(now)
	if prof == nil {
		return false
	}
	for _, p := range prof.plugins {
		if slices.Contains(plugins, p.name) && (p.self == nil || p.self.HintSelf(was, now)) {
			return true
		}
	}
	return len(plugins) == 0
}
