package pods

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Disrupt notes in a pod's status that and why it is about to be deleted, by
// condition DisruptionTarget, so that a Job's failure policy can tell. With
// fail set the pod's phase becomes Failed, unless it has finished.
func Disrupt(ctx context.Context, c client.Client, p *corev1.Pod, reason, message string, fail bool, now time.Time) error {
	out := p.DeepCopy()
	changed := SetCondition(&out.Status, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		ObservedGeneration: p.Generation, LastTransitionTime: metav1.NewTime(now),
	})
	if fail && !IsFinished(p) {
		out.Status.Phase, changed = corev1.PodFailed, true
	}
	if !changed {
		return nil
	}
	return c.Status().Patch(ctx, out, client.StrategicMergeFrom(p))
}
