package scheduler

import (
	"fmt"
	"slices"
	"strings"
)

// Decision is what the engine says of one pod.
type Decision struct {
	// Node is where the pod goes, "" if it fits nowhere.
	Node  string
	Score int64
	// Nodes were looked at, Feasible of them could take the pod.
	Nodes, Feasible int
	// Reasons counts nodes by each reason they were rejected for.
	Reasons map[string]int
	// Plugins that rejected the pod or a node, sorted.
	Plugins []string
	// Resolvable nodes could take the pod if others were removed from them.
	Resolvable []string
}

// Fits reports whether a node was found.
func (d *Decision) Fits() bool { return d.Node != "" }

// Message says why the pod fits nowhere, as kube-scheduler does.
func (d *Decision) Message() string {
	var b strings.Builder
	fmt.Fprintf(&b, "0/%d nodes are available", d.Nodes)
	var parts []string
	for reason, n := range d.Reasons {
		if n == 0 {
			parts = append(parts, reason) // of the pod, not of a node
			continue
		}
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	if len(parts) > 0 {
		b.WriteString(": " + strings.Join(parts, ", "))
	}
	b.WriteString(".")
	return b.String()
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
	for _, p := range e.profile {
		if p.pre == nil {
			continue
		}
		if r := p.pre.PreFilter(pod); r != nil {
			return d.rejected(p, r)
		}
	}
	if e.count == 0 {
		return d
	}
	e.judged = e.judged[:0]
	for _, p := range e.profile {
		if p.cluster == nil {
			continue
		}
		j, r := p.cluster.Prepare(pod, e.view)
		if r != nil {
			return d.rejected(p, r)
		}
		if j.Filter != nil || j.Scores != nil {
			e.judged = append(e.judged, judged{p, j})
		}
	}
	a := e.answersFor(pod)
	feasible := e.feasible[:0]
	for slot, r := range a.full {
		if r == nil && e.uncached(pod, slot) == nil {
			feasible = append(feasible, slot)
		}
	}
	e.feasible = feasible
	d.Feasible = len(feasible)
	if len(feasible) == 0 {
		e.explainInto(&d, a, pod)
		return d
	}
	slot, score := e.best(a, pod, feasible)
	d.Node, d.Score = e.nodes[slot].Object.Name, score
	return d
}

// judged is a plugin with what it said of the pod being decided.
type judged struct {
	p *pluginState
	Judgement
}

// rejected is the decision for a pod that a plugin wants on no node.
func (d Decision) rejected(p *pluginState, r *Rejection) Decision {
	d.Reasons, d.Plugins = map[string]int{}, []string{p.plugin.Name()}
	for _, reason := range r.Reasons {
		d.Reasons[reason] = 0
	}
	return d
}

// uncached asks the plugins whose answers are never cached.
func (e *Engine) uncached(pod *Pod, slot int) *Rejection {
	for _, p := range e.profile {
		if p.scope == ScopeCluster && p.filter != nil {
			if r := e.filter(p, pod, e.nodes[slot]); r != nil {
				return r
			}
		}
	}
	for i := range e.judged {
		j := &e.judged[i]
		if j.Filter == nil {
			continue
		}
		if r := j.Filter(e.nodes[slot]); r != nil {
			if r.Plugin == "" {
				r.Plugin = j.p.plugin.Name()
			}
			return r
		}
	}
	return nil
}

// best returns the feasible node with the greatest score.
func (e *Engine) best(a *answers, pod *Pod, feasible []int) (slot int, score int64) {
	extra := e.extraScores(a, pod, feasible)
	ties := 0
	for i, s := range feasible {
		v := a.nodeScore[s] + a.podsScore[s]
		if extra != nil {
			v += extra[i]
		}
		switch {
		case ties == 0 || v > score:
			slot, score, ties = s, v, 1
		case v == score:
			if ties++; e.rand.IntN(ties) == 0 {
				slot = s
			}
		}
	}
	return slot, score
}

// extraScores are those that depend on the other feasible nodes, or on anything; nil if there are none.
func (e *Engine) extraScores(a *answers, pod *Pod, feasible []int) []int64 {
	var sum []int64
	for i, p := range e.profile {
		if p.score == nil || p.normalize == nil && p.scope != ScopeCluster || p.normalize != nil && p.normalize.Indifferent(pod) {
			continue
		}
		raw := zeroed(&e.rawBuf, len(feasible))
		for j, s := range feasible {
			if p.scope == ScopeCluster {
				raw[j] = p.score.Score(pod, e.nodes[s])
			} else {
				raw[j] = a.raw[i][s]
			}
		}
		if sum == nil {
			sum = zeroed(&e.sumBuf, len(feasible))
		}
		least, greatest := slices.Min(raw), slices.Max(raw)
		for j, v := range raw {
			if p.normalize != nil {
				v = p.normalize.Normalize(v, least, greatest)
			}
			sum[j] += p.weight * v
		}
	}
	var nodes []*Node
	for _, j := range e.judged {
		if j.Scores == nil {
			continue
		}
		if nodes == nil {
			e.nodeBuf = e.nodeBuf[:0]
			for _, s := range feasible {
				e.nodeBuf = append(e.nodeBuf, e.nodes[s])
			}
			nodes = e.nodeBuf
		}
		raw := zeroed(&e.rawBuf, len(feasible))
		j.Scores(nodes, raw)
		if sum == nil {
			sum = zeroed(&e.sumBuf, len(feasible))
		}
		for i, v := range raw {
			sum[i] += j.p.weight * v
		}
	}
	return sum
}

// zeroed returns n zeros in a buffer that is used again.
func zeroed(buf *[]int64, n int) []int64 {
	if cap(*buf) < n {
		*buf = make([]int64, n, 2*n)
	}
	s := (*buf)[:n]
	clear(s)
	return s
}

// explainInto fills in why no node fits: per node the first plugin that rejects it counts, with all its reasons.
func (e *Engine) explainInto(d *Decision, a *answers, pod *Pod) {
	d.Reasons = map[string]int{}
	plugins := map[string]bool{}
	for slot, n := range e.nodes {
		if n == nil {
			continue
		}
		r := a.full[slot]
		if r == nil {
			r = e.uncached(pod, slot)
		}
		if r == nil {
			continue
		}
		plugins[r.Plugin] = true
		for _, reason := range r.Reasons {
			d.Reasons[reason]++
		}
		if !r.Unresolvable {
			d.Resolvable = append(d.Resolvable, n.Object.Name)
		}
	}
	for name := range plugins {
		d.Plugins = append(d.Plugins, name)
	}
	slices.Sort(d.Plugins)
}

// Hint reports whether a change could make a pod fit that the named plugins rejected.
func (e *Engine) Hint(pod *Pod, plugins []string, c ClusterChange) bool {
	for _, p := range e.profile {
		if slices.Contains(plugins, p.plugin.Name()) && (p.hinter == nil || p.hinter.Hint(pod, c)) {
			return true
		}
	}
	return len(plugins) == 0
}
