package scheduler

import "slices"

// check asks all plugins about one node anew, with the pods nominated for it there, and without.
func (e *Engine) check(prof *profile, pod *Pod, n *Node) *Rejection {
	if rivals := e.rivals(pod, n.Object.Name); len(rivals) > 0 {
		if r := e.checkWith(prof, pod, n, rivals); r != nil {
			return r
		}
	}
	return e.checkOnce(prof, pod, n)
}

// checkWith is checkOnce with more pods on the node.
func (e *Engine) checkWith(prof *profile, pod *Pod, n *Node, more []*Pod) *Rejection {
	for _, p := range more {
		n.put(p)
		e.view.put(p, n.slot, 1)
	}
	defer func() {
		for _, p := range more {
			n.take(p)
			e.view.put(p, n.slot, -1)
		}
	}()
	return e.checkOnce(prof, pod, n)
}

// checkOnce asks all plugins about one node as it is now, which the change log need not know of.
func (e *Engine) checkOnce(prof *profile, pod *Pod, n *Node) *Rejection {
	for _, scope := range []Scope{ScopeNode, ScopeNodePods} {
		if r := prof.ask(scope, pod, n); r != nil {
			return r
		}
	}
	js, p, r := e.judge(prof, pod, nil)
	if r != nil {
		if r.Plugin == "" {
			r.Plugin = p.name
		}
		return r
	}
	if slices.ContainsFunc(js, func(j judged) bool { return j.Domains != nil && j.Domains.Filter != nil }) {
		x := e.probe.sync(e, pod, js, int32(n.slot))
		if r := refusal(js, &Place{Nodes: 1, x: x, slot: int32(n.slot)}); r != nil {
			return r
		}
	}
	return e.uncached(prof, pod, n, js)
}

// probe is the sums of the pod that was checked last. They are right but for one node, at which pods are put and taken to see what would be.
type probe struct {
	id    string
	x     *index
	dirty int32
}

// sync counts the node as it is now, and all others as the change log has them.
func (p *probe) sync(e *Engine, pod *Pod, js []judged, slot int32) *index {
	b := e.scratch[:0]
	for i := range js {
		if d := js[i].Domains; d != nil {
			b = append(append(b, 0, byte(i)), d.ID...)
		}
	}
	e.scratch = b
	if p.x == nil || p.id != string(b) || p.x.stale(js, e.view) {
		p.x, p.id, p.dirty = newSums(js, e.view), string(b), -1
	} else if changes, ok := e.log.since(p.x.pos); ok {
		for _, c := range changes {
			tally(p.x, js, e.nodes, c.slot, nil)
		}
	} else {
		for s := range e.nodes {
			tally(p.x, js, e.nodes, int32(s), nil)
		}
	}
	p.x.pos = e.log.end()
	if p.dirty >= 0 && p.dirty != slot {
		tally(p.x, js, e.nodes, p.dirty, nil)
	}
	p.dirty = slot
	tally(p.x, js, e.nodes, slot, nil)
	return p.x
}
