package scheduler

import corev1 "k8s.io/api/core/v1"

// EachCandidate looks at each node alone that rejected a pod resolvably.
func (v *View) EachCandidate(pod *Pod, failed *Decision, f func(c Candidate)) {
	for name := range failed.Resolvable.All() {
		f(v.candidate(pod, v.Node(name)))
	}
}

// Refreshed replaces the object of an assigned pod.
func (e *Engine) Refreshed(obj *corev1.Pod) { e.refreshed(obj) }
