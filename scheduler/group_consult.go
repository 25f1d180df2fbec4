package scheduler

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// hearing is one way to place a group, as far as it is known: where each pod goes depends on what extenders say of it, who are asked about one after
// the other. In between nothing is held: the pods before it are put where they were again if they still fit there, or else elsewhere.
type hearing struct {
	about map[*Pod]*consultation
	nodes map[types.UID]string
	// asking has extenders to be asked about unknown before it can go on.
	asking  *consultation
	unknown []*corev1.Node
}

// open reports whether extenders are to be asked.
func (h *hearing) open() bool { return h != nil && h.asking != nil }

// decide is Engine.Decide, for a pod that stays where it is if it can. Without a hearing it is just that.
func (h *hearing) decide(e *Engine, pod *Pod) (d Decision) {
	if h == nil {
		return e.Decide(pod)
	}
	if n := e.Node(h.nodes[pod.key()]); n != nil && e.PreEnqueue(pod) == nil {
		prof := e.profileOf(pod)
		js, _, r := e.judge(prof, pod, nil)
		if r == nil && e.check(prof, pod, n, js) == nil {
			return Decision{Node: n.Object.Name, Nodes: e.count, Feasible: 1}
		}
	}
	if c := h.about[pod]; c != nil {
		if d, h.unknown = c.decide(e); len(h.unknown) > 0 {
			h.asking = c
			return d
		}
	} else {
		d = e.Decide(pod)
	}
	h.nodes[pod.key()] = d.Node
	return d
}

// groupConsultation is what is known of a group in one attempt.
type groupConsultation struct {
	name    string
	placing []*placed
	about   map[*Pod]*consultation
	// place is how it is placed as things are, room how it would be without the pods of lower priority.
	place, room *hearing
}

func newGroupConsultation(o *outside, name string, placing []*placed) *groupConsultation {
	about := map[*Pod]*consultation{}
	for _, p := range placing {
		if c := o.consultation(p.pod); c != nil {
			about[p.pod] = c
		}
	}
	return &groupConsultation{
		name: name, placing: placing, about: about,
		place: &hearing{about: about, nodes: map[types.UID]string{}}, room: &hearing{about: about, nodes: map[types.UID]string{}},
	}
}

// consultGroup decides for a group that extenders are to be asked about. The lock is held while the engine decides, not while they are asked.
func (s *Scheduler) consultGroup(ctx context.Context, g *groupConsultation) {
	for rounds := map[*consultation]int{}; ; {
		h := s.hearGroup(g)
		if h == nil {
			return
		}
		c := h.asking
		err := s.ask(ctx, c, h.unknown)
		h.asking, h.unknown = nil, nil
		rounds[c]++
		c.closed = rounds[c] == maxRounds
		if err != nil {
			s.mu.Lock()
			g.present(s)
			if h == g.place {
				s.settleGroup(g, s.failMember(g.placing, c.pod, err))
			} else {
				s.settleGroup(g, s.failGroup(c.pod, g.placing, nil, s.engine.groupTrialFailed(c.pod, err)))
			}
			s.mu.Unlock()
			return
		}
	}
}

// present leaves those pods out that are gone.
func (g *groupConsultation) present(s *Scheduler) (pods []*Pod) {
	var left []*placed
	for _, p := range g.placing {
		if s.queue.pods[p.pod.key()] == p.w {
			left, pods = append(left, p), append(pods, p.pod)
		}
	}
	g.placing = left
	return pods
}

// hearGroup decides by what the extenders have said so far. It returns what they are to be asked first, nil if the group is settled.
func (s *Scheduler) hearGroup(g *groupConsultation) *hearing {
	s.mu.Lock()
	defer s.mu.Unlock()
	pods := g.present(s)
	if len(pods) == 0 {
		s.settleGroup(g, outcome{})
		return nil
	}
	now := s.opts.Clock.Now()
	min, others := s.engine.groupOf(pods[0]).Min, 0
	if m := s.engine.view.groups.members[g.name]; m != nil {
		others = len(m.placed)
	}
	s.outside.consulted = g.about
	a := s.engine.scheduleGroup(pods, min, others, g.place)
	var found *GroupPreemption
	var said string
	var failed error
	if !a.ok && a.err == nil && !g.place.open() {
		found, said, failed = s.engine.preemptGroup(pods, min, others, g.room)
	}
	s.outside.consulted = nil
	s.metrics.algorithm.Observe(s.opts.Clock.Since(now).Seconds())
	switch {
	case g.place.open():
		return g.place
	case g.room.open():
		return g.room
	case a.ok:
		s.settleGroup(g, s.placeGroup(g.placing, a.decisions))
	case a.err != nil:
		s.settleGroup(g, s.failMember(g.placing, a.failed, a.err))
	case failed != nil:
		s.settleGroup(g, s.failGroup(pods[0], g.placing, nil, failed))
	default:
		s.settleGroup(g, s.unfitGroup(g.placing, &a, found, said))
	}
	return nil
}

// settleGroup hands an outcome to the loop, and lets those of the group be tried that came meanwhile. The caller holds mu.
func (s *Scheduler) settleGroup(g *groupConsultation, o outcome) {
	o.report = &report{}
	s.heard = append(s.heard, o)
	delete(s.consulting, g.name)
	s.queue.wakeGated(g.name, s.opts.Clock.Now(), eventForce)
	s.kick()
}
