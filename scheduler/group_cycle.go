package scheduler

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// groupKinds are those that say which pods are placed together.
func (s *Scheduler) groupKinds() []watched {
	e := s.engine
	return []watched{{&schedulingv1beta1.PodGroup{}, following(s,
		func(o *schedulingv1beta1.PodGroup) ClusterChange { return e.SetPodGroup(o) },
		func(o *schedulingv1beta1.PodGroup) ClusterChange {
			e.DeletePodGroup(o.Namespace, o.Name)
			return ClusterChange{}
		})}}
}

// stepGroup decides for the pods of a group, of which one was popped: enough of them are placed, or none. They are bound only when all that are placed
// have been reserved. The caller holds mu.
func (s *Scheduler) stepGroup(popped *waiting, g Group, now time.Time) (o outcome) {
	members := s.engine.view.groups.members[g.Name]
	ws := s.queue.gather(popped, members.waiting)
	pods, placing := make([]*Pod, len(ws)), make([]*placed, len(ws))
	for i, w := range ws {
		pods[i] = w.pod
		placing[i] = &placed{w: w, pod: w.pod, prof: s.engine.profileOf(w.pod), began: now, changes: s.changes}
	}
	if why := s.engine.mismatch(g, pods); why != "" {
		return s.failGroup(popped.pod, placing, nil, errors.New(why))
	}
	if slices.ContainsFunc(pods, s.outside.concerns) {
		s.consulting[g.Name] = true
		return outcome{consultGroup: newGroupConsultation(s.outside, g.Name, placing)}
	}
	a := s.engine.scheduleGroup(pods, g.Min, len(members.placed), nil)
	s.metrics.algorithm.Observe(s.opts.Clock.Since(now).Seconds())
	if a.ok {
		return s.placeGroup(placing, a.decisions)
	}
	if a.err != nil {
		return s.failMember(placing, a.failed, a.err)
	}
	found, said, err := s.engine.preemptGroup(pods, g.Min, len(members.placed), nil)
	if err != nil {
		return s.failGroup(popped.pod, placing, nil, err)
	}
	return s.unfitGroup(placing, &a, found, said)
}

// placeGroup takes the decisions for a group that fits. Those pods that do not are tried again at once, without the others: only then is room made for
// them.
func (s *Scheduler) placeGroup(placing []*placed, ds []Decision) (o outcome) {
	now := s.opts.Clock.Now()
	for i, p := range placing {
		d := &ds[i]
		if d.Fits() {
			p.node = d.Node
			o.group = append(o.group, s.permit(p))
			continue
		}
		s.metrics.attempt(p.prof.name, "unschedulable", now.Sub(p.began))
		s.queue.again(p.w, now)
		o.group = append(o.group, outcome{report: &report{pod: p.pod, reason: corev1.PodReasonUnschedulable, message: d.Message()}})
	}
	o.condition = s.groupCondition(placing[0].pod, metav1.ConditionTrue, "Scheduled", "")
	return o
}

// failMember is failGroup where something went wrong with one pod.
func (s *Scheduler) failMember(placing []*placed, failed *Pod, err error) outcome {
	return s.failGroup(failed, placing, map[*Pod]error{failed: err}, memberFailed(err))
}

// failGroup puts a group's pods back, for what went wrong isn't that there was no room. Where it went wrong with one of them, that has a message of its own.
func (s *Scheduler) failGroup(pod *Pod, placing []*placed, failed map[*Pod]error, err error) (o outcome) {
	for _, p := range placing {
		why := err
		if own := failed[p.pod]; own != nil {
			why = own
		}
		o.group = append(o.group, outcome{report: s.giveBack(p, why)})
	}
	o.condition = s.groupCondition(pod, metav1.ConditionFalse, schedulingv1beta1.PodGroupReasonSchedulerError, err.Error())
	return o
}

// unfitGroup puts a group's pods aside, and makes the room for them that was found, if any.
func (s *Scheduler) unfitGroup(placing []*placed, a *groupAttempt, found *GroupPreemption, said string) (o outcome) {
	now := s.opts.Clock.Now()
	pods := make([]*Pod, len(placing))
	for i, p := range placing {
		pods[i] = p.pod
	}
	s.metrics.preemptions.Inc()
	if found != nil {
		s.metrics.victims.Observe(float64(len(found.Victims)))
		o.preempt = s.makeGroupRoom(pods, found)
	}
	ds := s.engine.explainGroup(pods, a, said, found != nil)
	for i, p := range placing {
		d := &ds[i]
		r := &report{pod: p.pod, reason: corev1.PodReasonUnschedulable, message: d.Message()}
		switch {
		case found != nil:
			if node, ok := found.Nodes[p.pod.key()]; ok {
				r.nominate = &node
			}
		case i < len(a.decisions) && a.decisions[i].Fits():
			s.engine.Nominate(p.pod, "")
			r.nominate = new(string)
		}
		s.metrics.attempt(p.prof.name, "unschedulable", now.Sub(p.began))
		s.queue.fail(p.w, d.Plugins, now)
		o.group = append(o.group, outcome{report: r})
	}
	o.condition = s.groupCondition(pods[0], metav1.ConditionFalse, schedulingv1beta1.PodGroupReasonUnschedulable, (&Decision{Group: a.message, PostFilter: said}).Message())
	return o
}

// makeGroupRoom is makeRoom for a group.
func (s *Scheduler) makeGroupRoom(pods []*Pod, p *GroupPreemption) *eviction {
	all := &eviction{pod: pods[0], node: "cluster", plugin: p.Plugin, group: pods}
	if obj := s.groupObject(pods[0]); obj != nil {
		all.groupUID = obj.UID
	}
	for _, pod := range pods {
		node := p.Nodes[pod.key()]
		if node == "" {
			continue
		}
		if one := s.makeRoom(pod, &Preemption{Node: node, Plugin: p.Plugin}); one != nil {
			all.demoted = append(all.demoted, one.demoted...)
			delete(s.preempting, pod.key())
		}
	}
	for _, v := range p.Victims {
		if v.Object.DeletionTimestamp == nil {
			all.victims = append(all.victims, v)
		}
	}
	if len(all.victims)+len(all.demoted) == 0 {
		return nil
	}
	for _, pod := range pods {
		s.preempting[pod.key()] = true
	}
	return all
}

// groupCondition is what is to be written of a pod's group, nil if it says so already, or is no object. A group that was scheduled once stays
// so, whatever becomes of more pods.
func (s *Scheduler) groupCondition(pod *Pod, status metav1.ConditionStatus, reason, message string) *groupCondition {
	obj := s.groupObject(pod)
	if obj == nil {
		return nil
	}
	c := &groupCondition{group: obj, Condition: metav1.Condition{
		Type: schedulingv1beta1.PodGroupInitiallyScheduled, Status: status, Reason: reason, Message: message, ObservedGeneration: obj.Generation,
	}}
	if c.settled(obj) {
		return nil
	}
	return c
}

// groupObject is the pod's PodGroup, nil if there is none.
func (s *Scheduler) groupObject(pod *Pod) *schedulingv1beta1.PodGroup {
	ref := pod.Object.Spec.SchedulingGroup
	if ref == nil || ref.PodGroupName == nil {
		return nil
	}
	return s.engine.view.PodGroup(pod.Object.Namespace, *ref.PodGroupName)
}

type groupCondition struct {
	group *schedulingv1beta1.PodGroup
	metav1.Condition
}

func (c *groupCondition) settled(obj *schedulingv1beta1.PodGroup) bool {
	has := meta.FindStatusCondition(obj.Status.Conditions, c.Type)
	return has != nil && (has.Status == metav1.ConditionTrue && c.Status != metav1.ConditionTrue ||
		has.Status == c.Status && has.Reason == c.Reason && has.Message == c.Message && has.ObservedGeneration == c.ObservedGeneration)
}

// writeCondition writes it to the API.
func (s *Scheduler) writeCondition(ctx context.Context, c *groupCondition) {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		var obj schedulingv1beta1.PodGroup
		if err := s.write(ctx, func(ctx context.Context) error { return s.client.Get(ctx, client.ObjectKeyFromObject(c.group), &obj) }); err != nil {
			return err
		}
		if obj.UID != c.group.UID || c.settled(&obj) {
			return nil
		}
		c.LastTransitionTime = metav1.NewTime(s.opts.Clock.Now())
		if !meta.SetStatusCondition(&obj.Status.Conditions, c.Condition) {
			return nil
		}
		return s.write(ctx, func(ctx context.Context) error { return s.client.Status().Update(ctx, &obj) })
	})
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.opts.Logger.Error(err, "pod group status not written", "podGroup", client.ObjectKeyFromObject(c.group))
	}
}
