package scheduler

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Trial asks what would be if pods were removed from a node. Until End nothing else may be asked of the engine.
type Trial struct {
	e       *Engine
	prof    *profile
	pod     *Pod
	node    *Node
	removed []*Pod
	began   []judged // before any was removed
	// What is known of the node's pods, which is right again in the end.
	levels []level
	order  []*Pod
}

// Try begins a trial.
func (v *View) Try(pod *Pod, node *Node) *Trial {
	t := &Trial{e: v.engine, prof: v.engine.profileOf(pod), pod: pod, node: node}
	if len(t.e.rivals(pod, node.Object.Name)) > 0 {
		t.began, _, _ = t.e.judge(t.prof, pod, nil)
	}
	return t
}

// Remove takes a pod off the node for now.
func (t *Trial) Remove(p *Pod) {
	if len(t.removed) == 0 && t.levels == nil {
		t.levels, t.order = cloneLevels(t.node.levels), t.node.order
	}
	t.node.take(p)
	t.e.view.put(p, t.node.slot, -1)
	t.removed = append(t.removed, p)
}

// Restore puts a removed pod back.
func (t *Trial) Restore(p *Pod) {
	t.removed = slices.DeleteFunc(t.removed, func(o *Pod) bool { return o == p })
	t.node.put(p)
	t.e.view.put(p, t.node.slot, 1)
}

// Fits returns nil if the pod can run on the node as it is now, as far as all filters go, with the pods nominated for it and without.
func (t *Trial) Fits() *Rejection { return t.e.check(t.prof, t.pod, t.node, t.began) }

// End puts everything back.
func (t *Trial) End() {
	for len(t.removed) > 0 {
		t.Restore(t.removed[len(t.removed)-1])
	}
	if t.order != nil {
		t.node.levels, t.node.order = t.levels, t.order
	}
}

// Candidate is a node on which room could be made.
type Candidate struct {
	Node string
	// Victims are the fewest pods to remove, the most important first, and Violations how many of them no PodDisruptionBudget lets go.
	Victims    []*Pod
	Violations int
	// Refused says why there is no room to be made; then there are no victims.
	Refused *Rejection
}

// BestCandidate looks, on each node that rejected a pod resolvably, for pods of lower priority whose removal would let it in, and returns the least of
// those nodes by compare, which is the same for all calls. A candidate with fewer violations, or fewer victims, or less important ones, and nothing to
// its disadvantage, must not come after the other: nodes are not looked at that could be no better. If there is no candidate, the nodes are counted by
// the reasons why no room can be made there. Pods that PodDisruptionBudgets guard are spared where it is possible, then the more important ones.
func (v *View) BestCandidate(pod *Pod, failed *Decision, compare func(a, b *Candidate) int) (best *Candidate, refused map[string]int) {
	e := v.engine
	if nodes := failed.Resolvable.n; !e.anyBelow(pod.Priority) {
		refused = map[string]int{}
		if nodes > 0 {
			refused[noVictims.Reasons[0]] = nodes
		}
		return nil, refused
	}
	prof := e.profileOf(pod)
	js, _, r := e.judge(prof, pod, nil)
	if r != nil || prof.uncachedFilter {
		return newCandidates(e, pod, compare, &failed.Resolvable).best(e, prof, pod)
	}
	if !slices.ContainsFunc(js, func(j judged) bool { return j.filters() }) {
		if c := e.keptCandidates(prof, pod, failed, compare); c != nil {
			return c.best(e, prof, pod)
		}
	}
	c := newCandidates(e, pod, compare, &failed.Resolvable)
	if h := e.heldFor(prof, pod, js); h != nil {
		c.held, c.judged = h, js
		c.among = h.open(c.among)
		if best, refused = c.best(e, prof, pod); best == nil {
			h.count(failed.Resolvable.in, refused)
		}
		return best, refused
	}
	return c.best(e, prof, pod)
}

// candidate finds the victims on one node.
func (v *View) candidate(pod *Pod, n *Node) Candidate {
	c := Candidate{Node: n.Object.Name}
	lower, _ := n.lower(pod.Priority)
	if len(lower) == 0 {
		c.Refused = noVictims
		return c
	}
	if prof := v.engine.profileOf(pod); prof.ordered && len(v.engine.nominations.pods[c.Node]) == 0 {
		if c.Refused = n.askWithout(prof, pod, lower); c.Refused != nil {
			return c
		}
	}
	t := v.Try(pod, n)
	defer t.End()
	for _, p := range lower {
		t.Remove(p)
	}
	if c.Refused = t.Fits(); c.Refused != nil {
		return c
	}
	violating := v.budgets.violating(lower, n.slot)
	for _, spare := range []bool{true, false} {
		for _, p := range lower {
			if violating[p] != spare {
				continue
			}
			t.Restore(p)
			if t.Fits() == nil {
				continue
			}
			t.Remove(p)
			c.Victims = append(c.Victims, p)
			if spare {
				c.Violations++
			}
		}
	}
	slices.SortFunc(c.Victims, MoreImportant)
	return c
}

// askWithout asks the filters whose answers can be cached about the node without some of its pods.
func (n *Node) askWithout(prof *profile, pod *Pod, gone []*Pod) (r *Rejection) {
	n.without(gone, func() { r = prof.askCached(pod, n) })
	return r
}

// without takes pods off the node while f runs, which must not ask for the node's pods by priority.
func (n *Node) without(gone []*Pod, f func()) {
	requested, scored := n.Requested, n.Scored
	n.Requested, n.Scored = requested.Clone(), scored.Clone()
	for _, p := range gone {
		delete(n.pods, p.key())
		n.Requested.Add(&p.Requests, -1)
		n.Scored.Add(&p.Scored, -1)
	}
	f()
	for _, p := range gone {
		n.pods[p.key()] = p
	}
	n.Requested, n.Scored = requested, scored
}

// anyBelow reports whether any pod on a node has a lower priority.
func (e *Engine) anyBelow(priority int32) bool {
	for p := range e.priorities {
		if p < priority {
			return true
		}
	}
	return false
}

var noVictims = RejectFull("No preemption victims found for incoming pod")

// MoreImportant orders pods by descending importance: those of higher priority first, then those that started first.
func MoreImportant(a, b *Pod) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.Started().Compare(b.Started()), cmp.Compare(a.key(), b.key()))
}

// farFuture is when pods start that haven't.
var farFuture = time.Unix(1<<40, 0)

// Started is when the kubelet first saw the pod; a time far in the future if it hasn't.
func (p *Pod) Started() time.Time {
	if s := p.Object.Status.StartTime; s != nil {
		return s.Time
	}
	return farFuture
}

// PreemptedByScheduler reports whether the pod is on its way out to make room for another.
func (p *Pod) PreemptedByScheduler() bool {
	if p.Object.DeletionTimestamp == nil {
		return false
	}
	i := slices.IndexFunc(p.Object.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget })
	if i < 0 {
		return false
	}
	c := &p.Object.Status.Conditions[i]
	return c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
}

// Preempt asks the PostFilterPlugins how room could be made for a pod that Decide found none for, and adds what they say to the decision.
// It changes nothing: victims are to be removed by the caller, who should Nominate the pod for the node. The result is nil if there is nothing to
// be done; with an empty Node the pod's nomination is to be given up.
func (e *Engine) Preempt(pod *Pod, d *Decision) *Preemption {
	prof := e.profileOf(pod)
	if prof == nil || d.Fits() || e.count == 0 || e.PreEnqueue(pod) != nil {
		return &Preemption{}
	}
	var last *Preemption
	var messages []string
	plugins := prof.at(AtPostFilter)
	for _, s := range plugins {
		p, message := s.post.PostFilter(pod, e.view, d)
		if p != nil {
			p.Plugin = s.name
			if p.Node != "" {
				d.PostFilter = message
				return p
			}
			last = p
		}
		if message != "" {
			messages = append(messages, message)
		}
	}
	if len(plugins) == 0 {
		return &Preemption{}
	}
	d.PostFilter = strings.Join(messages, ", ")
	return last
}
