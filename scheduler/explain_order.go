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
func (e *Engine) explainInOrder(d *Decision, prof *profile, pod *Pod, x *index, js []judged) {
	d.Reasons = map[string]int{}
	d.Resolvable = NodeSet{in: bitset(nil).grown(len(e.nodes)), names: e.names}
	plugins := map[string]bool{}
	for slot, n := range e.nodes {
		if n == nil {
			continue
		}
		r := prof.outside(pod, n.Object.Name)
		switch {
		case r != nil:
		case len(e.rivals(pod, n.Object.Name)) > 0:
			r = e.check(prof, pod, n, js)
		default:
			r = prof.first(pod, n, js, x)
		}
		if r == nil {
			continue
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
