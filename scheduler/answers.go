package scheduler

import (
	"strconv"
	"unsafe"
)

// answers are what the cacheable plugins say of the pods of one signature, by slot.
type answers struct {
	entry
	sig *string
	pos int
	// said is the place of each node's verdict.
	said     column
	verdicts verdicts
	// fixed are the nodes whose rejection is by a plugin of ScopeNode: their pods don't matter.
	fixed bitset
	// nodeScore and podsScore are weighted sums of plugins without normalization.
	nodeScore, podsScore column
	raw                  []column // of profile.normalized
	// resolvable are the nodes whose rejection others' going could resolve.
	resolvable  bitset
	resolvables int
	candidates  *candidates // for preemption
	held        *heldBack   // the same, where domains matter
}

func newAnswers(key, sig string, normalized int) *answers {
	a := &answers{sig: &sig, pos: -1, verdicts: newVerdicts(), raw: make([]column, normalized)}
	a.entry = entry{key: key, answers: a}
	return a
}

// answersFor returns up-to-date answers for pod. They are valid until those for another pod are asked for.
func (e *Engine) answersFor(prof *profile, pod *Pod) *answers {
	var key []byte
	if sig := pod.signature(); sig == nil {
		key = e.sign(prof, pod)
	} else {
		key = append(e.scratch[:0], *sig...)
	}
	sig := len(key)
	if len(e.nominations.node) > 0 {
		// Pods of another priority yield to other nominated pods.
		key = strconv.AppendInt(append(key, ' '), int64(pod.Priority), 10)
	}
	e.scratch = key
	e.cache.settle(e.opts.AnswerBytes * len(e.nodes))
	a := e.cache.answersOf(key)
	if a == nil {
		k := string(key)
		a = newAnswers(k, k[:sig], len(prof.normalized))
		e.cache.addAnswers(a)
	}
	pod.signed(a.sig) // the same string for all
	a.grow(len(e.nodes))
	if changes, ok := e.log.sinceOnce(a.pos); ok {
		for _, c := range changes {
			e.refresh(a, prof, pod, c.slot, c.object)
		}
	} else {
		for slot := range e.nodes {
			e.refresh(a, prof, pod, int32(slot), true)
		}
	}
	a.pos = e.log.end()
	return a
}

func (a *answers) grow(n int) {
	if n <= a.said.n {
		return
	}
	a.verdicts.all[verdictGone].nodes += n - a.said.n
	for _, c := range []*column{&a.said, &a.nodeScore, &a.podsScore} {
		c.grow(n)
	}
	for i := range a.raw {
		a.raw[i].grow(n)
	}
	a.resolvable, a.fixed = a.resolvable.grown(n), a.fixed.grown(n)
}

// feasible is the number of nodes that are.
func (a *answers) feasible() int { return a.verdicts.all[verdictFits].nodes }

func (a *answers) fits(slot int32) bool { return a.said.at(slot) == verdictFits }

func (a *answers) score(slot int32) int64 { return a.nodeScore.at(slot) + a.podsScore.at(slot) }

func (a *answers) bytes() int {
	n := int(unsafe.Sizeof(*a)) + len(a.key) + a.verdicts.bytes() + 8*(cap(a.fixed)+cap(a.resolvable)) + cap(a.said.b) + cap(a.nodeScore.b) + cap(a.podsScore.b)
	for i := range a.raw {
		n += int(unsafe.Sizeof(a.raw[i])) + cap(a.raw[i].b)
	}
	if a.candidates != nil {
		n += a.candidates.bytes()
	}
	if a.held != nil {
		n += a.held.bytes()
	}
	return n
}

// sign is the pod's class, in memory that is used again: the profile's plugins answer the same for all pods in it.
func (e *Engine) sign(prof *profile, pod *Pod) []byte {
	b := append(e.scratch[:0], byte(prof.index))
	for i, p := range prof.plugins {
		if p.scope == ScopeCluster {
			continue
		}
		b = append(b, byte(i))
		if p.signer == nil {
			b = append(b, pod.key()...)
			continue
		}
		at := len(b)
		b = append(b, 0, 0, 0, 0)
		b = p.signer.Sign(pod, b)
		n := len(b) - at - 4
		b[at], b[at+1], b[at+2], b[at+3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	}
	return b
}

// refresh asks the cacheable plugins about one node again.
func (e *Engine) refresh(a *answers, prof *profile, pod *Pod, slot int32, object bool) {
	n := e.nodes[slot]
	switch {
	case n == nil:
		a.set(slot, verdictGone)
		return
	case object:
		r := prof.outside(pod, n.Object.Name)
		if r == nil {
			r = prof.ask(ScopeNode, pod, n)
		}
		if a.fixed.put(slot, r != nil); r != nil {
			a.set(slot, a.verdicts.of(r, a.said.at(slot)))
			return
		}
		a.nodeScore.set(slot, a.rate(prof, ScopeNode, pod, n))
	case a.fixed.has(slot):
		return
	}
	r := e.askPodsOf(prof, pod, n)
	a.set(slot, a.verdicts.of(r, a.said.at(slot)))
	if r == nil {
		a.podsScore.set(slot, a.rate(prof, ScopeNodePods, pod, n))
	}
}

// rate returns the weighted sum of the scores by the plugins of a scope, and notes those that are to be normalized.
func (a *answers) rate(prof *profile, scope Scope, pod *Pod, n *Node) (sum int64) {
	for _, p := range prof.scorers[scope] {
		sum += p.weight * p.score.Score(pod, n)
	}
	for i, at := range prof.normalized {
		if p := prof.plugins[at]; p.scope == scope && !p.normalize.Indifferent(pod) {
			a.raw[i].set(int32(n.slot), p.score.Score(pod, n))
		}
	}
	return sum
}

// askPodsOf asks the plugins of ScopeNodePods, with the pods that are nominated for the node there, and without.
func (e *Engine) askPodsOf(prof *profile, pod *Pod, n *Node) (r *Rejection) {
	if len(e.nominations.node) > 0 {
		if rivals := e.rivals(pod, n.Object.Name); len(rivals) > 0 {
			for _, p := range rivals {
				n.put(p)
			}
			r = prof.ask(ScopeNodePods, pod, n)
			for _, p := range rivals {
				n.take(p)
			}
			if r != nil {
				return r
			}
		}
	}
	return prof.ask(ScopeNodePods, pod, n)
}

// set notes a node's verdict.
func (a *answers) set(slot int32, id int64) {
	old := a.said.at(slot)
	if old == id {
		return
	}
	was, is := a.verdicts.all[old].resolvable(), a.verdicts.all[id].resolvable()
	if was != is {
		a.resolvable.put(slot, is)
		a.resolvables += int(one(is)) - int(one(was))
	}
	a.said.set(slot, id)
	a.verdicts.count(id, 1)
	a.verdicts.count(old, -1)
}

// ask returns the first rejection by the filters of a scope.
func (p *profile) ask(scope Scope, pod *Pod, n *Node) *Rejection {
	for _, s := range p.filters[scope] {
		if r := s.ask(pod, n); r != nil {
			return r
		}
	}
	return nil
}

func (s *pluginState) ask(pod *Pod, n *Node) *Rejection {
	r := s.filter.Filter(pod, n)
	if r != nil && r.Plugin == "" {
		r.Plugin = s.name
	}
	return r
}
