package scheduler

import (
	"maps"
	"slices"
)

// The engine asks filters in the order of what their answers depend on, for the sake of caching. Which nodes fit doesn't depend on that, but which plugin's reasons count
// does, and whether others' going could help: kube-scheduler asks no other plugin about a node that one has rejected.

// rank is when the engine asks a filter.
func (s *pluginState) rank() int {
	switch {
	case s.filter == nil && s.cluster == nil:
		return -1
	case s.filter == nil:
		return 3
	case s.scope == ScopeNode:
		return 0
	case s.scope == ScopeNodePods:
		return 1
	}
	return 2
}

// scattered reports whether the engine asks a filter about this pod after one that comes later in the profile.
func (p *profile) scattered(js []judged) bool {
	last := -1
	for _, s := range p.plugins {
		r := s.rank()
		if r >= 0 && r < last {
			return true
		}
		if s.filter != nil || slices.ContainsFunc(js, func(j judged) bool { return j.p == s && j.filters() }) {
			last = max(last, r)
		}
	}
	return false
}

// filters reports whether some nodes may be rejected.
func (j *judged) filters() bool {
	return j.Filter != nil || j.Domains != nil && j.Domains.Filter != nil
}

// explainInOrder is explainInto where the profile's order is another: every node is asked about.
func (e *Engine) explainInOrder(d *Decision, prof *profile, pod *Pod, js []judged) {
	plain := map[*pluginState]Judgement{}
	for i := range js {
		plain[js[i].p] = js[i].Plain(e.view)
	}
	d.Reasons = map[string]int{}
	d.Resolvable = NodeSet{in: bitset(nil).grown(len(e.nodes)), names: e.names}
	plugins := map[string]bool{}
	for slot, n := range e.nodes {
		if n == nil {
			continue
		}
		r := e.firstRejection(prof, pod, n, plain)
		if r == nil {
			// Domains are asked with what pods that are nominated elsewhere would add only by the engine's own way.
			if r = e.ballot.overrides[int32(slot)]; r == nil {
				continue
			}
		}
		plugins[r.Plugin] = true
		for _, reason := range r.Reasons {
			d.Reasons[reason]++
		}
		if !r.Unresolvable {
			d.Resolvable.in.set(int32(slot))
			d.Resolvable.n++
		}
	}
	d.Plugins = slices.Sorted(maps.Keys(plugins))
}

// firstRejection asks the filters about a node in the profile's order, with the pods that are nominated for it there, and without.
func (e *Engine) firstRejection(prof *profile, pod *Pod, n *Node, plain map[*pluginState]Judgement) *Rejection {
	ask := func() *Rejection {
		for _, s := range prof.plugins {
			if s.filter != nil {
				if r := s.ask(pod, n); r != nil {
					return r
				}
			}
			if j := plain[s]; j.Filter != nil {
				if r := j.Filter(n); r != nil {
					return named(r, s)
				}
			}
		}
		return nil
	}
	if rivals := e.rivals(pod, n.Object.Name); len(rivals) > 0 {
		for _, p := range rivals {
			n.put(p)
		}
		r := ask()
		for _, p := range rivals {
			n.take(p)
		}
		if r != nil {
			return r
		}
	}
	return ask()
}
