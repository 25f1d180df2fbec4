package scheduler

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// report tells the world why a pod waits; without a pod it says nothing.
type report struct {
	pod             *Pod
	reason, message string // none: the condition stays as it is
	nominate        *string
	err             error
}

// maxNote is how long an event's message may be.
const maxNote = 1024

func (s *Scheduler) report(ctx context.Context, r report) {
	if r.pod == nil {
		return
	}
	obj := r.pod.Object
	updated := obj.DeepCopy()
	changed := false
	if r.reason != "" {
		note := r.message
		if len(note) > maxNote {
			note = note[:maxNote-4] + " ..."
		}
		s.recorder(obj).Event(obj, corev1.EventTypeWarning, "FailedScheduling", note)
		changed = setCondition(&updated.Status, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: r.reason, Message: r.message,
			LastTransitionTime: metav1.NewTime(s.opts.Clock.Now()), ObservedGeneration: obj.Generation,
		})
	}
	if r.nominate != nil && obj.Status.NominatedNodeName != *r.nominate {
		updated.Status.NominatedNodeName = *r.nominate
		changed = true
	}
	if !changed {
		return
	}
	tctx, cancel := context.WithTimeout(ctx, s.opts.BindTimeout)
	defer cancel()
	// A strategic merge patch touches this condition alone; the kubelet and others own the rest.
	patch := client.StrategicMergeFrom(obj)
	if err := s.client.Status().Patch(tctx, updated, patch); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.opts.Logger.Error(err, "pod status not written", "pod", client.ObjectKeyFromObject(obj))
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
