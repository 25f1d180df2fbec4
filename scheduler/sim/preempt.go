package sim

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/scheduler"
)

// makeRoom removes others in favour of a pod that fits nowhere, if a plugin of its profile proposes so. The pod was put aside: it is woken by what is freed.
func (s *Simulation) makeRoom(p *pod, d *scheduler.Decision) {
	proposal := s.engine.Preempt(p.spod, d)
	s.log.waits(p, d)
	switch {
	case proposal == nil:
		return
	case proposal.Node == "":
		s.engine.Nominate(p.spod, "")
		return
	}
	demoted := s.nominate(p.spod, proposal.Node)
	s.preempt(proposal.Victims, p, demoted)
}

// nominate gives a pod a place to wait for, or with "" none. Pods of lower priority that waited for that place look elsewhere: it reports whether there were any.
func (s *Simulation) nominate(p *scheduler.Pod, node string) (demoted bool) {
	if node != "" {
		for _, other := range s.engine.NominatedPods(node) {
			if other.Priority < p.Priority {
				s.engine.Nominate(other, "")
				s.queue.Force(other.Object.UID, instant(s.now))
				demoted = true
			}
		}
	}
	s.engine.Nominate(p, node)
	return demoted
}

// preempt removes the victims of a pod. Where others gave way without that, it is tried again at once.
func (s *Simulation) preempt(victims []*scheduler.Pod, by *pod, demoted bool) {
	for _, v := range victims {
		victim := s.placed[v.Object.UID]
		if victim == nil || victim.ending {
			continue
		}
		s.log.preempted(victim, by)
		s.metrics.preempted++
		if s.opts.GracePeriod == 0 {
			s.release(victim)
			s.again(victim)
			continue
		}
		s.terminate(victim)
	}
	if demoted && len(victims) == 0 {
		s.queue.Force(by.spod.Object.UID, instant(s.now))
	}
}

// terminate gives a preempted pod its time to end.
func (s *Simulation) terminate(p *pod) {
	old := p.spod
	obj := *old.Object
	obj.DeletionTimestamp = &metav1.Time{Time: instant(s.now)}
	obj.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler}}
	spod := *old
	spod.Object = &obj
	p.spod, p.ending = &spod, true
	s.engine.Assign(p.spod, p.node.obj.Name)
	s.queue.Changed(scheduler.ClusterChange{AssignedPod: p.spod, OldPod: old}, instant(s.now))
	s.plan(s.opts.GracePeriod, gone, p)
}
