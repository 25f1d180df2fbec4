package sim

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/scheduler"
)

// schedule tries the pods whose turn it is.
func (s *Simulation) schedule() error {
	for s.busy <= s.now {
		a, ok := s.queue.Pop(instant(s.now))
		if !ok {
			return nil
		}
		p := s.waiting[a.Pod]
		if p == nil {
			return fmt.Errorf("%s/%s was in the queue, but does not wait", a.Pod.Object.Namespace, a.Pod.Object.Name)
		}
		if s.overtaken(p) {
			continue
		}
		s.metrics.decisions++
		if s.opts.DecisionTime > 0 {
			s.busy = s.now + s.opts.DecisionTime
		}
		if p.gang != nil {
			if err := s.scheduleGang(a, p.gang); err != nil {
				return err
			}
			continue
		}
		d := s.engine.Schedule(p.spod)
		if d.Fits() {
			if err := s.engine.Reserve(p.spod, d.Node); err != nil {
				s.engine.Remove(p.spod.Object.UID)
				s.queue.Retry(a, instant(s.now))
				s.log.podBecause("retry", p, err.Error())
				continue
			}
			r, err := s.permit(p, d.Node)
			if err != nil {
				return err
			}
			if r != nil {
				s.denied(p, d.Node, r)
				s.queue.Fail(a, []string{r.Plugin}, instant(s.now))
				s.failed(p)
				continue
			}
			if err := s.place(p, &d, a.Number); err != nil {
				return err
			}
			continue
		}
		s.queue.Fail(a, d.Plugins, instant(s.now))
		s.makeRoom(p, &d)
		s.failed(p)
	}
	return nil
}

// place carries out a decision that the engine knows of, with what plugins reserved.
func (s *Simulation) place(p *pod, d *scheduler.Decision, attempt int) error {
	n := s.nodes[d.Node]
	switch {
	case n == nil || n.down:
		return fmt.Errorf("%s was placed on %s, which is not there", p.key, d.Node)
	case p.node != nil:
		return fmt.Errorf("%s was placed on %s, but is on %s", p.key, d.Node, p.node.obj.Name)
	}
	if s.check != nil {
		if err := s.check.placing(p, n); err != nil {
			return err
		}
	}
	n.put(p)
	s.placed[p.spod.Object.UID] = p
	p.spod.Object.Status.StartTime = &metav1.Time{Time: instant(s.now)} // the older of equal pods are spared
	p.message = ""
	if p.gang != nil {
		p.gang.placed++
	}
	s.unqueue(p)
	s.log.placed(p, d, attempt)
	s.metrics.placed(p)
	start := s.opts.StartDelay + s.bindVolumes(p)
	if p.Run > 0 {
		s.plan(start+p.Run, finish, p)
	}
	s.queue.Changed(scheduler.ClusterChange{AssignedPod: p.spod}, instant(s.now))
	s.passed(p)
	return nil
}
