package scheduler

// changeLog remembers which nodes changed, so that cached answers are brought up to date by looking at those alone.
type changeLog struct {
	first   int // the position of entries[0]
	entries []change
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

// answers are what the cacheable plugins say of the pods of one signature, by slot.
type answers struct {
	pos  int
	used uint64
	// node is the first rejection by plugins of ScopeNode, full the first of all cacheable ones; nil: feasible.
	node, full []*Rejection
	nodeScore  []int64 // weighted sums of plugins without normalization
	podsScore  []int64
	raw        [][]int64 // of normalized ScopeNode plugins, by index in the profile; nil for others
}

// answersFor returns up-to-date answers for pod.
func (e *Engine) answersFor(pod *Pod) *answers {
	if pod.sig == "" {
		pod.sig = e.sign(pod)
	}
	a := e.cache[pod.sig]
	if a == nil {
		e.evict()
		a = &answers{raw: make([][]int64, len(e.profile)), pos: -1}
		e.cache[pod.sig] = a
	}
	e.lru++
	a.used = e.lru
	a.grow(len(e.nodes), e.profile)
	if a.pos < e.log.first {
		for slot := range e.nodes {
			e.refresh(a, pod, slot, true)
		}
	} else {
		for _, c := range e.log.entries[a.pos-e.log.first:] {
			e.refresh(a, pod, int(c.slot), c.object)
		}
	}
	a.pos = e.log.end()
	return a
}

func (a *answers) grow(n int, profile []*pluginState) {
	for len(a.full) < n {
		a.node, a.full = append(a.node, nil), append(a.full, nil)
		a.nodeScore, a.podsScore = append(a.nodeScore, 0), append(a.podsScore, 0)
	}
	for i, p := range profile {
		if p.normalize != nil && p.scope != ScopeCluster {
			for len(a.raw[i]) < n {
				a.raw[i] = append(a.raw[i], 0)
			}
		}
	}
}

// sign is the pod's class: the profile's plugins answer the same for all pods in it.
func (e *Engine) sign(pod *Pod) string {
	b := e.scratch[:0]
	for i, p := range e.profile {
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
	for len(e.cache) > 0 && (len(e.cache)+1)*max(len(e.nodes), 1) > e.opts.CacheCells {
		oldest, least := "", ^uint64(0)
		for k, a := range e.cache {
			if a.used < least {
				oldest, least = k, a.used
			}
		}
		delete(e.cache, oldest)
	}
}

var errGone = &Rejection{Unresolvable: true}

// refresh asks the cacheable plugins about one node again.
func (e *Engine) refresh(a *answers, pod *Pod, slot int, object bool) {
	n := e.nodes[slot]
	if n == nil {
		a.node[slot], a.full[slot] = errGone, errGone
		return
	}
	if object {
		a.node[slot], a.nodeScore[slot] = nil, 0
		for i, p := range e.profile {
			if p.scope != ScopeNode {
				continue
			}
			if p.filter != nil && a.node[slot] == nil {
				a.node[slot] = e.filter(p, pod, n)
			}
			e.scoreInto(a, i, p, pod, n, &a.nodeScore[slot])
		}
	}
	a.full[slot] = a.node[slot]
	if a.full[slot] != nil {
		return
	}
	a.podsScore[slot] = 0
	for i, p := range e.profile {
		if p.scope != ScopeNodePods {
			continue
		}
		if p.filter != nil && a.full[slot] == nil {
			a.full[slot] = e.filter(p, pod, n)
		}
		if a.full[slot] == nil {
			e.scoreInto(a, i, p, pod, n, &a.podsScore[slot])
		}
	}
}

func (e *Engine) scoreInto(a *answers, i int, p *pluginState, pod *Pod, n *Node, sum *int64) {
	switch {
	case p.score == nil:
	case p.normalize == nil:
		*sum += p.weight * p.score.Score(pod, n)
	case !p.normalize.Indifferent(pod):
		a.raw[i][n.slot] = p.score.Score(pod, n)
	}
}

func (e *Engine) filter(p *pluginState, pod *Pod, n *Node) *Rejection {
	r := p.filter.Filter(pod, n)
	if r != nil && r.Plugin == "" {
		r.Plugin = p.plugin.Name()
	}
	return r
}
