package scheduler

import (
	"maps"
	"slices"
)

// explainInto fills in why no node fits: per node the first plugin that rejects it counts, with all its reasons.
func (e *Engine) explainInto(d *Decision, prof *profile, pod *Pod, x *index, js []judged) {
	if prof.scattered(js) {
		e.explainInOrder(d, prof, pod, x, js)
		return
	}
	b := &e.ballot
	plugins := x.base.explainInto(d, e.names)
	count := func(r *Rejection, nodes int) {
		plugins[r.Plugin] += nodes
		for _, reason := range r.Reasons {
			d.Reasons[reason] += nodes
		}
		if !r.Unresolvable {
			d.Resolvable.n += nodes
		}
	}
	all := prof.asksEach(js) || len(b.overrides) > 0
	apart := e.exempt(js)
	classes := map[int32]bool{} // with nodes of those
	for slot := range apart.all() {
		classes[x.classOf(slot)] = true
	}
	for id := range x.classes {
		c := &x.classes[id]
		if c.nodes == 0 {
			continue
		}
		each := all || classes[int32(id)]
		if !each {
			count(b.refused[id], c.nodes)
			if b.refused[id].Unresolvable {
				continue
			}
		}
		for i := range c.buckets {
			for _, slot := range c.buckets[i].slots {
				if each {
					r := e.rejection(prof, pod, x, js, slot, b.refused[id], apart)
					if count(r, 1); r.Unresolvable {
						continue
					}
				}
				d.Resolvable.in.set(slot)
			}
		}
	}
	d.Plugins = slices.Sorted(maps.Keys(plugins))
}

// rejection says why a node is not feasible that the cached plugins accept, and whose class may be refused.
func (e *Engine) rejection(prof *profile, pod *Pod, x *index, js []judged, slot int32, refused *Rejection, apart bitset) *Rejection {
	if r := e.ballot.overrides[slot]; r != nil {
		return r
	}
	if apart.has(slot) {
		refused = refusal(js, &Place{Nodes: 1, x: x, slot: slot}, (*DomainJudgement).judge)
	}
	if refused == nil {
		return e.uncached(prof, pod, e.nodes[slot], js)
	}
	if first := rejectedBefore(js, refused.Plugin, e.nodes[slot]); first != nil {
		return first
	}
	return refused
}

// rejectedBefore asks the plugins that come before the named one about a node.
func rejectedBefore(js []judged, plugin string, n *Node) *Rejection {
	for i := range js {
		if js[i].p.name == plugin {
			return nil
		}
		if js[i].Filter == nil {
			continue
		}
		if r := js[i].Filter(n); r != nil {
			if r.Plugin == "" {
				r.Plugin = js[i].p.name
			}
			return r
		}
	}
	return nil
}

// explainInto fills in what the cached plugins say, and returns those that reject nodes.
func (a *answers) explainInto(d *Decision, names []string) (plugins map[string]int) {
	d.Reasons = map[string]int{}
	d.Resolvable = NodeSet{in: slices.Clone(a.resolvable), n: a.resolvables, names: names}
	return a.verdicts.explainInto(d.Reasons)
}
