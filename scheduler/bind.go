package scheduler

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// bind writes a decision to the API. A pod whose binding fails gives its place back and is tried again.
func (s *Scheduler) bind(ctx context.Context, p placed) {
	obj := p.pod.Object
	tctx, cancel := context.WithTimeout(ctx, s.opts.BindTimeout)
	defer cancel()
	err := s.client.SubResource("binding").Create(tctx, obj.DeepCopy(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name, UID: obj.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: p.node},
	})
	now := s.opts.Clock.Now()
	if err == nil {
		s.metrics.bound(p.w, now)
		s.opts.Recorder.Eventf(obj, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %s/%s to %s", obj.Namespace, obj.Name, p.node)
		s.mu.Lock()
		if s.queue.pods[p.pod.key()] == p.w {
			s.queue.remove(p.pod.key())
		}
		s.mu.Unlock()
		return
	}
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	// The watch may have told of the pod's assignment or end meanwhile: then it isn't in the queue any more.
	if s.queue.pods[p.pod.key()] == p.w {
		s.engine.Remove(p.pod.key())
		if apierrors.IsNotFound(err) {
			s.queue.remove(p.pod.key())
		} else {
			s.queue.retry(p.w, now)
		}
		s.helped(ClusterChange{FreedPod: p.pod})
	}
	s.mu.Unlock()
	s.kick()
	if !apierrors.IsNotFound(err) {
		s.opts.Logger.Error(err, "binding failed", "pod", client.ObjectKeyFromObject(obj), "node", p.node)
		s.opts.Recorder.Eventf(obj, corev1.EventTypeWarning, "FailedScheduling", "binding rejected: %v", err)
	}
}

// report tells the world why a pod waits.
type report struct {
	pod     *Pod
	message string
	gated   bool
}

func (s *Scheduler) reject(ctx context.Context, r report) {
	obj := r.pod.Object
	reason := corev1.PodReasonUnschedulable
	if r.gated {
		reason = corev1.PodReasonSchedulingGated
	} else {
		s.opts.Recorder.Event(obj, corev1.EventTypeWarning, "FailedScheduling", r.message)
	}
	cond := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: r.message,
		LastTransitionTime: metav1.NewTime(s.opts.Clock.Now()), ObservedGeneration: obj.Generation,
	}
	updated := obj.DeepCopy()
	if !setCondition(&updated.Status, cond) {
		return
	}
	tctx, cancel := context.WithTimeout(ctx, s.opts.BindTimeout)
	defer cancel()
	// A strategic merge patch touches this condition alone; the kubelet and others own the rest.
	patch := client.StrategicMergeFrom(obj)
	if err := s.client.Status().Patch(tctx, updated, patch); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.opts.Logger.Error(err, "pod condition not written", "pod", client.ObjectKeyFromObject(obj))
	}
}

// setCondition reports whether that changed anything.
func setCondition(status *corev1.PodStatus, c corev1.PodCondition) bool {
	i := slices.IndexFunc(status.Conditions, func(o corev1.PodCondition) bool { return o.Type == c.Type })
	if i < 0 {
		status.Conditions = append(status.Conditions, c)
		return true
	}
	old := status.Conditions[i]
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	if old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
		return false
	}
	status.Conditions[i] = c
	return true
}
