package scheduler

import (
	"slices"
	"strconv"
)

// changeLog remembers which nodes changed, so that cached answers are brought up to date by looking at those alone.
type changeLog struct {
	first   int // the position of entries[0]
	entries []change

	once   []change
	onceAt []int32 // by slot: its place in once, if that is of the same slot
}

type change struct {
	slot   int32
	object bool // the node object itself changed, not only its pods
}

// maxLog bounds the log; answers older than it are computed anew.
const maxLog = 1 << 16

func (l *changeLog) add(slot int, object bool) {
	if len(l.entries) >= maxLog {
		half := len(l.entries) / 2
		l.first += half
		l.entries = append(l.entries[:0], l.entries[half:]...)
	}
	l.entries = append(l.entries, change{int32(slot), object})
}

func (l *changeLog) end() int { return l.first + len(l.entries) }

// since returns what changed after pos; ok is false if that isn't known any more.
func (l *changeLog) since(pos int) (changes []change, ok bool) {
	if pos < l.first {
		return nil, false
	}
	return l.entries[pos-l.first:], true
}

// sinceOnce is since with each node once, in the order in which they first changed. The slice is valid until the next call.
func (l *changeLog) sinceOnce(pos int) (changes []change, ok bool) {
	if changes, ok = l.since(pos); len(changes) < 2 {
		return changes, ok
	}
	l.once = l.once[:0]
	for _, c := range changes {
		for len(l.onceAt) <= int(c.slot) {
			l.onceAt = append(l.onceAt, 0)
		}
		if at := int(l.onceAt[c.slot]); at < len(l.once) && l.once[at].slot == c.slot {
			l.once[at].object = l.once[at].object || c.object
			continue
		}
		l.onceAt[c.slot] = int32(len(l.once))
		l.once = append(l.once, c)
	}
	return l.once, ok
}

// answers are what the cacheable plugins say of the pods of one signature, by slot.
type answers struct {
	pos  int
	used uint64
	// node is the first rejection by plugins of ScopeNode, full the first of all cacheable ones; nil: feasible.
	node, full []*Rejection
	nodeScore  []int64 // weighted sums of plugins without normalization
	podsScore  []int64
	raw        [][]int64 // of profile.normalized
	// rejected counts the nodes that are not feasible by reason, and plugins those that rejected them.
	reasons, plugins map[string]int
	// resolvable are the nodes whose rejection others' going could resolve.
	resolvable  bitset
	resolvables int
	feasible    int         // nodes
	candidates  *candidates // for preemption
}

// answersFor returns up-to-date answers for pod.
func (e *Engine) answersFor(prof *profile, pod *Pod) *answers {
	if pod.sig == "" {
		pod.sig = e.sign(prof, pod)
	}
	key := pod.sig
	if len(e.nominations.node) > 0 {
		// Pods of another priority yield to other nominated pods.
		key = pod.sig + " " + strconv.Itoa(int(pod.Priority))
	}
	a := e.cache[key]
	if a == nil {
		e.evict()
		a = &answers{raw: make([][]int64, len(prof.normalized)), pos: -1, reasons: map[string]int{}, plugins: map[string]int{}}
		e.cache[key] = a
	}
	e.lru++
	a.used = e.lru
	a.grow(len(e.nodes))
	if changes, ok := e.log.sinceOnce(a.pos); ok {
		for _, c := range changes {
			e.refresh(a, prof, pod, int(c.slot), c.object)
		}
	} else {
		for slot := range e.nodes {
			e.refresh(a, prof, pod, slot, true)
		}
	}
	a.pos = e.log.end()
	return a
}

func (a *answers) grow(n int) {
	more := n - len(a.full)
	a.node, a.full = slices.Grow(a.node, more), slices.Grow(a.full, more)
	a.nodeScore, a.podsScore = slices.Grow(a.nodeScore, more), slices.Grow(a.podsScore, more)
	for len(a.full) < n {
		a.node, a.full = append(a.node, errGone), append(a.full, errGone)
		a.nodeScore, a.podsScore = append(a.nodeScore, 0), append(a.podsScore, 0)
	}
	a.resolvable = a.resolvable.grown(n)
	for i := range a.raw {
		for len(a.raw[i]) < n {
			a.raw[i] = append(a.raw[i], 0)
		}
	}
}

// sign is the pod's class: the profile's plugins answer the same for all pods in it.
func (e *Engine) sign(prof *profile, pod *Pod) string {
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
	e.scratch = b
	return string(b)
}

// evict makes room for one more signature.
func (e *Engine) evict() {
	for len(e.cache) > 0 && (len(e.cache)+len(e.indexes)+1)*max(len(e.nodes), 1) > e.opts.CacheCells {
		oldest, least := "", ^uint64(0)
		for k, a := range e.cache {
			if a.used < least {
				oldest, least = k, a.used
			}
		}
		gone := e.cache[oldest]
		delete(e.cache, oldest)
		for k, x := range e.indexes {
			if x.base == gone {
				delete(e.indexes, k)
			}
		}
	}
}

// errGone is the answer for a slot without node.
var errGone = &Rejection{Unresolvable: true}

// refresh asks the cacheable plugins about one node again.
func (e *Engine) refresh(a *answers, prof *profile, pod *Pod, slot int, object bool) {
	n := e.nodes[slot]
	if n == nil {
		a.node[slot] = errGone
		a.set(slot, errGone)
		return
	}
	if object {
		a.node[slot], a.nodeScore[slot] = prof.outside(pod, n.Object.Name), 0
		for _, p := range prof.plugins {
			if p.scope != ScopeNode {
				continue
			}
			if p.filter != nil && a.node[slot] == nil {
				a.node[slot] = p.ask(pod, n)
			}
			if p.score != nil && p.normalize == nil {
				a.nodeScore[slot] += p.weight * p.score.Score(pod, n)
			}
		}
		for i, at := range prof.normalized {
			if p := prof.plugins[at]; p.scope == ScopeNode && !p.normalize.Indifferent(pod) {
				a.raw[i][slot] = p.score.Score(pod, n)
			}
		}
	}
	if a.node[slot] != nil {
		a.set(slot, a.node[slot])
		return
	}
	a.set(slot, e.askPodsOf(prof, pod, n))
	if a.full[slot] != nil {
		return
	}
	a.podsScore[slot] = 0
	for _, p := range prof.plugins {
		if p.scope == ScopeNodePods && p.score != nil && p.normalize == nil {
			a.podsScore[slot] += p.weight * p.score.Score(pod, n)
		}
	}
	for i, at := range prof.normalized {
		if p := prof.plugins[at]; p.scope == ScopeNodePods && !p.normalize.Indifferent(pod) {
			a.raw[i][slot] = p.score.Score(pod, n)
		}
	}
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

// set notes a node's answer.
func (a *answers) set(slot int, r *Rejection) {
	was, is := a.resolvable.has(int32(slot)), r != nil && !r.Unresolvable
	switch {
	case is && !was:
		a.resolvable.set(int32(slot))
		a.resolvables++
	case was && !is:
		a.resolvable.clear(int32(slot))
		a.resolvables--
	}
	old := a.full[slot]
	if old == r || old.same(r) {
		return
	}
	if old == nil {
		a.feasible--
	} else if r == nil {
		a.feasible++
	}
	a.count(old, -1)
	a.count(r, 1)
	a.full[slot] = r
}

// same reports whether both say the same.
func (r *Rejection) same(o *Rejection) bool {
	return r != nil && o != nil && r != errGone && o != errGone && r.Unresolvable == o.Unresolvable && r.Plugin == o.Plugin && slices.Equal(r.Reasons, o.Reasons)
}

func (a *answers) count(r *Rejection, sign int) {
	if r == nil || r == errGone {
		return
	}
	for _, reason := range r.Reasons {
		if a.reasons[reason] += sign; a.reasons[reason] == 0 {
			delete(a.reasons, reason)
		}
	}
	if a.plugins[r.Plugin] += sign; a.plugins[r.Plugin] == 0 {
		delete(a.plugins, r.Plugin)
	}
}

// ask returns the first rejection by the filters of a scope.
func (p *profile) ask(scope Scope, pod *Pod, n *Node) *Rejection {
	for _, s := range p.plugins {
		if s.scope == scope && s.filter != nil {
			if r := s.ask(pod, n); r != nil {
				return r
			}
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
