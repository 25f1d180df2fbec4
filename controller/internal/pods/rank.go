package pods

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Ranked is a pod with how many active pods of the same set share its node.
type Ranked struct {
	Pod    *corev1.Pod
	OnNode int
}

// SortForDeletion orders pods as Kubernetes deletes them when scaling down:
// unassigned first, then pending, not ready, cheap to delete
// (controller.kubernetes.io/pod-deletion-cost), doubled up on a node, shortest
// ready, most restarted, youngest.
func SortForDeletion(ps []Ranked, now time.Time) {
	slices.SortFunc(ps, func(a, b Ranked) int { return compare(a, b, now) })
}

func compare(a, b Ranked, now time.Time) int {
	p, q := a.Pod, b.Pod
	if n := first(p.Spec.NodeName == "", q.Spec.NodeName == ""); n != 0 {
		return n
	}
	if n := cmp.Compare(phase(p), phase(q)); n != 0 {
		return n
	}
	if n := first(!IsReady(p), !IsReady(q)); n != 0 {
		return n
	}
	if n := cmp.Compare(deletionCost(p), deletionCost(q)); n != 0 {
		return n
	}
	if n := cmp.Compare(b.OnNode, a.OnNode); n != 0 {
		return n
	}
	if IsReady(p) && IsReady(q) {
		if n := younger(readySince(p), readySince(q), now); n != 0 {
			return n
		}
	}
	pr, ps := Restarts(p)
	qr, qs := Restarts(q)
	if n := cmp.Compare(qr, pr); n != 0 {
		return n
	}
	if n := cmp.Compare(qs, ps); n != 0 {
		return n
	}
	if n := younger(p.CreationTimestamp, q.CreationTimestamp, now); n != 0 {
		return n
	}
	return cmp.Compare(p.UID, q.UID)
}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func phase(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodPending, "":
		return 0
	case corev1.PodUnknown:
		return 1
	}
	return 2
}

func deletionCost(p *corev1.Pod) int32 {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

func readySince(p *corev1.Pod) metav1.Time {
	if c := Condition(p, corev1.PodReady); c != nil {
		return c.LastTransitionTime
	}
	return metav1.Time{}
}

// younger compares ages by orders of magnitude, so that which of two pods of
// about the same age goes is left to chance.
func younger(a, b metav1.Time, now time.Time) int {
	switch {
	case a.Equal(&b):
		return 0
	case a.IsZero():
		return -1
	case b.IsZero():
		return 1
	}
	return cmp.Compare(magnitude(now.Sub(a.Time)), magnitude(now.Sub(b.Time)))
}

func magnitude(d time.Duration) int {
	if d <= 0 {
		return 0
	}
	return int(math.Log2(float64(d)))
}
