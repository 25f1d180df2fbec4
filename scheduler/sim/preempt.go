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
	for _, other := range s.engine.NominatedPods(proposal.Node) {
		if other.Priority < p.spod.Priority {
			s.engine.Nominate(other, "")
			s.queue.Force(other.Object.UID, instant(s.now))
		}
	}
	s.engine.Nominate(p.spod, proposal.Node)
	waits := false
	for _, v := range proposal.Victims {
		victim := s.placed[v.Object.UID]
		if victim == nil || victim.ending {
			waits = true
			continue
		}
		waits = true
		s.log.preempted(victim, p)
		s.metrics.preempted++
		if s.opts.GracePeriod == 0 {
			s.release(victim)
			s.again(victim)
			continue
		}
		s.terminate(victim)
	}
	if !waits {
		s.queue.Force(p.spod.Object.UID, instant(s.now))
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
