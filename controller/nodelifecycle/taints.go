package nodelifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func condition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

// readiness is the status of the Ready condition, Unknown when there is none.
func readiness(n *corev1.Node) corev1.ConditionStatus {
	if c := condition(n, corev1.NodeReady); c != nil {
		return c.Status
	}
	return corev1.ConditionUnknown
}

// noScheduleKeys are the keys of the NoSchedule taints that follow conditions.
var noScheduleKeys = []string{
	corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeUnschedulable, corev1.TaintNodeNetworkUnavailable,
	corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure,
}

// noSchedule returns the keys of the NoSchedule taints a node should have.
func noSchedule(n *corev1.Node) []string {
	var out []string
	for _, c := range n.Status.Conditions {
		switch {
		case c.Type == corev1.NodeReady && c.Status == corev1.ConditionFalse:
			out = append(out, corev1.TaintNodeNotReady)
		case c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown:
			out = append(out, corev1.TaintNodeUnreachable)
		case c.Status != corev1.ConditionTrue:
		case c.Type == corev1.NodeMemoryPressure:
			out = append(out, corev1.TaintNodeMemoryPressure)
		case c.Type == corev1.NodeDiskPressure:
			out = append(out, corev1.TaintNodeDiskPressure)
		case c.Type == corev1.NodeNetworkUnavailable:
			out = append(out, corev1.TaintNodeNetworkUnavailable)
		case c.Type == corev1.NodePIDPressure:
			out = append(out, corev1.TaintNodePIDPressure)
		}
	}
	if n.Spec.Unschedulable {
		out = append(out, corev1.TaintNodeUnschedulable)
	}
	return out
}

// noExecute returns the key of the NoExecute taint of a readiness, if any.
func noExecute(ready corev1.ConditionStatus) string {
	switch ready {
	case corev1.ConditionFalse:
		return corev1.TaintNodeNotReady
	case corev1.ConditionTrue:
		return ""
	}
	return corev1.TaintNodeUnreachable
}

// retaint replaces those taints of an effect whose keys are managed by those
// wanted, and says whether that changes anything.
func retaint(taints []corev1.Taint, effect corev1.TaintEffect, managed, wanted []string, now time.Time) ([]corev1.Taint, bool) {
	var out []corev1.Taint
	have := map[string]bool{}
	changed := false
	for _, t := range taints {
		if t.Effect == effect && slices.Contains(managed, t.Key) {
			if !slices.Contains(wanted, t.Key) || have[t.Key] {
				changed = true
				continue
			}
			have[t.Key] = true
		}
		out = append(out, t)
	}
	for _, key := range wanted {
		if have[key] {
			continue
		}
		at := metav1.NewTime(now)
		t := corev1.Taint{Key: key, Effect: effect, TimeAdded: &at}
		out = append(out, t)
		have[key], changed = true, true
	}
	return out, changed
}
