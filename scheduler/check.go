package scheduler

import "slices"

// check asks all plugins about one node anew, with the pods nominated for it there, and without. js is what those said that look at the whole cluster when
// the decision began: as in kube-scheduler, who had no reason then to reject any node isn't asked about the pods that are nominated.
func (e *Engine) check(prof *profile, pod *Pod, n *Node, js []judged) *Rejection {
	if rivals := e.rivals(pod, n.Object.Name); len(rivals) > 0 {
		if r := e.checkWith(prof, pod, n, rivals, js); r != nil {
			return r
		}
	}
	return e.checkOnce(prof, pod, n, nil)
}

// checkWith is checkOnce with more pods on the node.
func (e *Engine) checkWith(prof *profile, pod *Pod, n *Node, more []*Pod, began []judged) *Rejection {
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
	return e.checkOnce(prof, pod, n, func(j judged) bool {
		return slices.ContainsFunc(began, func(b judged) bool { return b.p == j.p && b.filters() })
	})
}

// checkOnce asks all plugins about one node as it is now, which the change log need not know of; of those that look at the whole cluster those that
// count.
func (e *Engine) checkOnce(prof *profile, pod *Pod, n *Node, counts func(judged) bool) *Rejection {
	if prof.ordered {
		if r := prof.askCached(pod, n); r != nil {
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
	if counts != nil {
		js = slices.DeleteFunc(js, func(j judged) bool { return !counts(j) })
	}
	scattered := !prof.ordered && prof.scattered(js)
	if !prof.ordered && !scattered {
		if r := prof.askCached(pod, n); r != nil {
			return r
		}
	}
	if slices.ContainsFunc(js, func(j judged) bool { return j.Domains != nil && j.Domains.Filter != nil }) {
		x := e.probe.sync(e, pod, js, int32(n.slot))
		if scattered {
			return prof.first(pod, n, js, x)
		}
		if r := refusal(js, &Place{Nodes: 1, x: x, slot: int32(n.slot)}, (*DomainJudgement).judge); r != nil {
			if before := rejectedBefore(js, r.Plugin, n); before != nil {
				return before
			}
			return r
		}
	}
	if scattered {
		return prof.first(pod, n, js, nil)
	}
	return e.uncached(prof, pod, n, js)
}

// askCached asks the filters whose answers can be cached.
func (p *profile) askCached(pod *Pod, n *Node) *Rejection {
	if r := p.ask(ScopeNode, pod, n); r != nil {
		return r
	}
	return p.ask(ScopeNodePods, pod, n)
}

// first asks all plugins about a node, in the profile's order. x has the sums of the judgements, if they have any.
func (p *profile) first(pod *Pod, n *Node, js []judged, x *index) *Rejection {
	place := Place{Nodes: 1, x: x, slot: int32(n.slot)}
	for _, s := range p.plugins {
		if s.filter != nil {
			if r := s.ask(pod, n); r != nil {
				return r
			}
		}
		if len(js) == 0 || js[0].p != s {
			continue
		}
		j := js[:1]
		js = js[1:]
		if d := j[0].Domains; d != nil {
			if d.Filter != nil {
				if r := d.judge(&place); r != nil {
					return r.by(s)
				}
			}
			place.off += len(d.Sums)
		}
		if j[0].Filter != nil {
			if r := j[0].Filter(n); r != nil {
				return r.by(s)
			}
		}
	}
	return nil
}

// by names the plugin, unless the rejection names one.
func (r *Rejection) by(s *pluginState) *Rejection {
	if r.Plugin == "" {
		r.Plugin = s.name
	}
	return r
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
