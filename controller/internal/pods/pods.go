// Package pods has what the controllers of workloads share about pods: their
// state, their ranking, and creating and deleting them in batches.
package pods

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/internal/view"
)

// IsFinished says whether the pod's containers will never run again.
func IsFinished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// IsActive says whether the pod is neither finished nor being deleted.
func IsActive(p *corev1.Pod) bool { return !IsFinished(p) && p.DeletionTimestamp == nil }

// IsTerminating says whether the pod is being deleted and not finished yet.
func IsTerminating(p *corev1.Pod) bool { return !IsFinished(p) && p.DeletionTimestamp != nil }

// Condition returns the pod's condition of a type, or nil.
func Condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// IsReady says whether the pod's Ready condition is true.
func IsReady(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// IsAvailable says whether the pod has been ready for minReadySeconds.
func IsAvailable(p *corev1.Pod, minReadySeconds int32, now time.Time) bool {
	if !IsReady(p) {
		return false
	}
	if minReadySeconds == 0 {
		return true
	}
	since := Condition(p, corev1.PodReady).LastTransitionTime
	return !since.IsZero() && !since.Add(time.Duration(minReadySeconds)*time.Second).After(now)
}

// AvailableIn is when the pod will become available, if it is ready and stays
// so; otherwise 0.
func AvailableIn(p *corev1.Pod, minReadySeconds int32, now time.Time) time.Duration {
	if !IsReady(p) || minReadySeconds == 0 {
		return 0
	}
	return max(0, Condition(p, corev1.PodReady).LastTransitionTime.Add(time.Duration(minReadySeconds)*time.Second).Sub(now))
}

// SetCondition sets a condition, keeping the transition time while its status
// stays, and says whether that changed anything.
func SetCondition(s *corev1.PodStatus, c corev1.PodCondition) bool {
	for i := range s.Conditions {
		old := &s.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		changed := *old != c
		*old = c
		return changed
	}
	s.Conditions = append(s.Conditions, c)
	return true
}

// FromTemplate makes the pod of a template for its controller. The name is
// left to the server, after prefix.
func FromTemplate(t *corev1.PodTemplateSpec, namespace, prefix string, owner *metav1.OwnerReference) *corev1.Pod {
	t = t.DeepCopy()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:    namespace,
			GenerateName: Prefix(prefix),
			Labels:       t.Labels,
			Annotations:  t.Annotations,
			Finalizers:   t.Finalizers,
		},
		Spec: t.Spec,
	}
	if owner != nil {
		pod.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	return pod
}

// Prefix is the start of the names of a controller's pods: with a dash, unless
// no valid pod name could start so.
func Prefix(name string) string {
	if len(name)+1 > 253 {
		return name
	}
	return name + "-"
}

// Restarts is the highest count of restarts among the pod's containers.
func Restarts(p *corev1.Pod) (regular, sidecar int32) {
	for _, s := range p.Status.ContainerStatuses {
		regular = max(regular, s.RestartCount)
	}
	restartable := map[string]bool{}
	for _, c := range p.Spec.InitContainers {
		restartable[c.Name] = c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	}
	for _, s := range p.Status.InitContainerStatuses {
		if restartable[s.Name] {
			sidecar = max(sidecar, s.RestartCount)
		}
	}
	return regular, sidecar
}

// ByNode is the index of pods by the name of their node.
func ByNode() view.Index {
	return view.Index{Name: "keelson.node", Values: func(o client.Object) []string {
		if p, ok := o.(*corev1.Pod); ok && p.Spec.NodeName != "" {
			return []string{p.Spec.NodeName}
		}
		return nil
	}}
}
