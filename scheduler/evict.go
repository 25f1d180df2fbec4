package scheduler

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// eviction is a preemption that is carried out.
type eviction struct {
	pod     *Pod
	node    string
	plugin  string
	victims []*Pod
	// demoted pods were nominated for the node, and have to find another place.
	demoted []*Pod
	// group are the pods that room is made for, if they are several; groupUID is of their PodGroup, if there is one.
	group    []*Pod
	groupUID types.UID
}

// makeRoom nominates a pod, and starts an eviction if there are pods left to be removed. The caller holds mu.
func (s *Scheduler) makeRoom(pod *Pod, p *Preemption) *eviction {
	e := &eviction{pod: pod, node: p.Node, plugin: p.Plugin}
	now := s.opts.Clock.Now()
	for _, other := range s.engine.NominatedPods(p.Node) {
		if other.Priority < pod.Priority {
			e.demoted = append(e.demoted, other)
		}
	}
	for _, other := range e.demoted {
		s.engine.Nominate(other, "")
		s.queue.force(other.key(), now)
	}
	s.engine.Nominate(pod, p.Node)
	for _, v := range p.Victims {
		if v.Object.DeletionTimestamp == nil {
			e.victims = append(e.victims, v)
		}
	}
	if len(e.victims)+len(e.demoted) == 0 {
		return nil
	}
	s.preempting[pod.key()] = true
	return e
}

// evict removes an eviction's victims. Until that is done the pod isn't tried again: it waits for them to be gone.
func (s *Scheduler) evict(ctx context.Context, e *eviction) {
	memory := false
	var failed error
	for _, p := range e.demoted {
		s.report(ctx, report{pod: p, nominate: new(string)})
	}
	for _, v := range e.victims {
		only, err := s.evictPod(ctx, e, v)
		if err != nil && ctx.Err() == nil {
			s.opts.Logger.Error(err, "preemption failed", "pod", client.ObjectKeyFromObject(e.pod.Object), "victim", client.ObjectKeyFromObject(v.Object))
			failed = err
		}
		memory = only
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range append(e.group, e.pod) {
		delete(s.preempting, p.key())
	}
	// No event of a pod's end may be to come, or it came already, when the pod could not be tried.
	if w := s.queue.pods[e.pod.key()]; failed != nil || memory || w != nil && w.gated || s.gone(e.victims) {
		s.queue.force(e.pod.key(), s.opts.Clock.Now())
		s.kick()
	}
}

// gone reports whether none of the pods is on a node any more.
func (s *Scheduler) gone(pods []*Pod) bool {
	for _, p := range pods {
		if s.engine.Assigned(p.key()) != "" {
			return false
		}
	}
	return true
}

// evictPod removes one pod; memory says that it wasn't bound yet and goes back to the queue.
func (s *Scheduler) evictPod(ctx context.Context, e *eviction, victim *Pod) (memory bool, err error) {
	pod := e.pod.Object
	kind, by := "pod", pod.UID
	if e.groupUID != "" {
		kind, by = "podgroup", e.groupUID
	}
	message := fmt.Sprintf("Preempted by %s %s on node %s", kind, by, e.node)
	if s.permits.refuse(victim.key(), &Rejection{Reasons: []string{"preempted"}, Plugin: e.plugin}) {
		s.recorder(pod).Event(victim.Object, corev1.EventTypeNormal, "Preempted", message+" (in kube-scheduler memory).")
		return true, nil
	}
	tctx, cancel := context.WithTimeout(ctx, s.opts.BindTimeout)
	defer cancel()
	updated := victim.Object.DeepCopy()
	if setCondition(&updated.Status, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
		Message:            schedulerName(pod) + ": preempting to accommodate a higher priority " + kind,
		LastTransitionTime: metav1.NewTime(s.opts.Clock.Now()), ObservedGeneration: updated.Generation,
	}) {
		// A strategic merge patch touches this condition alone.
		if err := s.client.Status().Patch(tctx, updated, client.StrategicMergeFrom(victim.Object)); err != nil {
			return false, client.IgnoreNotFound(err)
		}
	}
	uid := victim.Object.UID
	err = s.client.Delete(tctx, updated, client.Preconditions{UID: &uid})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, err
	}
	if err == nil {
		s.recorder(pod).Event(victim.Object, corev1.EventTypeNormal, "Preempted", message)
	}
	return false, nil
}
