package sim

import (
	"fmt"
	"maps"
	"slices"

	"github.com/keelson/keelson/scheduler"
)

// gang is a set of pods of which at least min are placed at once, or none. One of those that wait is in the scheduler's queue and stands for all.
type gang struct {
	pods []*pod
	min  int
	// placed is how many are on nodes, ended how many are no more.
	placed, ended int
	leader        *pod
	busy          bool // its pods are being placed
}

// join has a pod of a gang wait.
func (g *gang) join(s *Simulation, p *pod) {
	if g.leader != nil {
		p.parked = true
		s.parked++
		return
	}
	g.leader = p
	s.admit(p)
}

// left is told that a pod waits no longer. If it stood for the gang, another one does from now on.
func (g *gang) left(s *Simulation, p *pod) {
	if p.parked {
		s.unpark(p)
	}
	if g.leader != p {
		return
	}
	g.leader = nil
	g.elect(s)
}

// elect has the first of those that wait stand for all.
func (g *gang) elect(s *Simulation) {
	if g.leader != nil || g.busy {
		return
	}
	for _, next := range g.pods {
		if next.parked {
			s.unpark(next)
			g.leader = next
			s.admit(next)
			return
		}
	}
}

// waiting are those to be placed, the leader first.
func (g *gang) waiting() []*pod {
	out := []*pod{g.leader}
	for _, p := range g.pods {
		if p.parked {
			out = append(out, p)
		}
	}
	return out
}

// check: no member is placed where there were none, and too few.
func (g *gang) check() error {
	n := 0
	for _, p := range g.pods {
		if p.node != nil {
			n++
		}
	}
	if n != g.placed {
		return fmt.Errorf("%d pods of a gang are placed, %d counted", n, g.placed)
	}
	return nil
}

// scheduleGang tries all of a gang that wait.
func (s *Simulation) scheduleGang(a scheduler.Attempt, g *gang) error {
	pods := g.waiting()
	spods := make([]*scheduler.Pod, len(pods))
	for i, p := range pods {
		if p.spod == nil {
			s.instantiate(p)
		}
		spods[i] = p.spod
	}
	// Once it was placed, those that are lost come back one by one.
	least := min(max(g.min-g.placed-g.ended, 1), len(pods))
	ds, ok := s.engine.ScheduleGroup(spods, least)
	if !ok {
		s.gangWaits(a, pods, spods, ds, least)
		return nil
	}
	before, now := g.placed, 0
	for i := range ds {
		if ds[i].Fits() {
			now++
		}
	}
	if now < least {
		return fmt.Errorf("%d pods of a gang of at least %d were placed, with %d there and %d ended", now, g.min, before, g.ended)
	}
	g.busy = true
	for i := range ds {
		if ds[i].Fits() {
			r, err := s.permit(pods[i], ds[i].Node)
			switch {
			case err != nil:
				return err
			case r == nil:
				err = s.place(pods[i], &ds[i], a.Number)
			default:
				if s.denied(pods[i], ds[i].Node, r); i == 0 {
					s.queue.Fail(a, []string{r.Plugin}, instant(s.now))
				}
			}
			if err != nil {
				return err
			}
		} else if i == 0 {
			s.log.waits(pods[0], &ds[0])
			s.queue.Fail(a, ds[0].Plugins, instant(s.now))
		}
	}
	g.busy = false
	g.elect(s)
	return nil
}

// gangWaits puts a gang aside, and makes room for it if that is possible.
func (s *Simulation) gangWaits(a scheduler.Attempt, pods []*pod, spods []*scheduler.Pod, ds []scheduler.Decision, least int) {
	plugins := map[string]bool{}
	for i := range ds {
		for _, name := range ds[i].Plugins {
			plugins[name] = true
		}
	}
	found, said := s.engine.PreemptGroup(spods, least)
	if ds[0].Group != "" { // else it has its own reasons
		ds[0].PostFilter = said
	}
	s.log.waits(pods[0], &ds[0])
	s.queue.Fail(a, slices.Sorted(maps.Keys(plugins)), instant(s.now))
	demoted := false
	for _, p := range spods {
		node := ""
		if found != nil {
			node = found.Nodes[p.Object.UID]
		}
		demoted = s.nominate(p, node) || demoted
	}
	if found != nil {
		s.preempt(found.Victims, pods[0], demoted)
	}
}
