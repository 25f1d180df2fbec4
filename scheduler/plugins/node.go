package plugins

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/keelson/keelson/scheduler"
)

// SchedulingGates keeps pods waiting that have spec.schedulingGates.
type SchedulingGates struct{}

// Name implements scheduler.Plugin.
func (SchedulingGates) Name() string { return "SchedulingGates" }

// PreEnqueue implements scheduler.PreEnqueuePlugin.
func (SchedulingGates) PreEnqueue(pod *scheduler.Pod) *scheduler.Rejection {
	if gates := pod.Object.Spec.SchedulingGates; len(gates) > 0 {
		names := make([]string, len(gates))
		for i := range gates {
			names[i] = gates[i].Name
		}
		return scheduler.Reject("waiting for scheduling gates: " + quoteList(names))
	}
	return nil
}

// Hint implements scheduler.Hinter: only the pod itself can remove its gates.
func (SchedulingGates) Hint(*scheduler.Pod, scheduler.ClusterChange) bool { return false }

func quoteList(names []string) string {
	s := "["
	for i, n := range names {
		if i > 0 {
			s += " "
		}
		s += n
	}
	return s + "]"
}

// NodeName keeps a pod that names its node off all others. (Such pods usually don't come to a scheduler at all.)
type NodeName struct{}

// Name implements scheduler.Plugin.
func (NodeName) Name() string { return "NodeName" }

// Scope implements scheduler.Scoped.
func (NodeName) Scope() scheduler.Scope { return scheduler.ScopeNode }

// Sign implements scheduler.Signer.
func (NodeName) Sign(pod *scheduler.Pod, to []byte) []byte {
	return append(to, pod.Object.Spec.NodeName...)
}

// PickNodes implements scheduler.NodePicker.
func (NodeName) PickNodes(pod *scheduler.Pod) ([]string, bool) {
	if pod.Object.Spec.NodeName == "" {
		return nil, false
	}
	return []string{pod.Object.Spec.NodeName}, true
}

// Filter implements scheduler.FilterPlugin.
func (NodeName) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	if want := pod.Object.Spec.NodeName; want != "" && want != node.Object.Name {
		return scheduler.Reject("node(s) didn't match the requested node name")
	}
	return nil
}

// Hint implements scheduler.Hinter.
func (NodeName) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	return c.Node != nil && c.Node.Object.Name == pod.Object.Spec.NodeName
}

var unschedulable = corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}

// NodeUnschedulable rejects cordoned nodes, but for pods that tolerate the taint node.kubernetes.io/unschedulable.
type NodeUnschedulable struct{}

// Name implements scheduler.Plugin.
func (NodeUnschedulable) Name() string { return "NodeUnschedulable" }

// Scope implements scheduler.Scoped.
func (NodeUnschedulable) Scope() scheduler.Scope { return scheduler.ScopeNode }

// Sign implements scheduler.Signer.
func (NodeUnschedulable) Sign(pod *scheduler.Pod, to []byte) []byte {
	if tolerates(pod, &unschedulable) {
		return append(to, 1)
	}
	return append(to, 0)
}

// Filter implements scheduler.FilterPlugin.
func (NodeUnschedulable) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	if node.Object.Spec.Unschedulable && !tolerates(pod, &unschedulable) {
		return scheduler.Reject("node(s) were unschedulable")
	}
	return nil
}

// Hint implements scheduler.Hinter.
func (p NodeUnschedulable) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	return c.Node != nil && p.Filter(pod, c.Node) == nil
}

func tolerates(pod *scheduler.Pod, taint *corev1.Taint) bool {
	for i := range pod.Object.Spec.Tolerations {
		if pod.Object.Spec.Tolerations[i].ToleratesTaint(klog.Background(), taint, false) {
			return true
		}
	}
	return false
}

// TaintToleration rejects nodes with NoSchedule and NoExecute taints that a pod doesn't tolerate, and prefers those with fewer
// PreferNoSchedule taints that it doesn't.
type TaintToleration struct{}

// Name implements scheduler.Plugin.
func (TaintToleration) Name() string { return "TaintToleration" }

// Scope implements scheduler.Scoped.
func (TaintToleration) Scope() scheduler.Scope { return scheduler.ScopeNode }

// Sign implements scheduler.Signer.
func (TaintToleration) Sign(pod *scheduler.Pod, to []byte) []byte {
	for i := range pod.Object.Spec.Tolerations {
		t := &pod.Object.Spec.Tolerations[i]
		to = appendStrings(to, t.Key, string(t.Operator), t.Value, string(t.Effect))
	}
	return to
}

// Filter implements scheduler.FilterPlugin.
func (TaintToleration) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	for i := range node.Object.Spec.Taints {
		t := &node.Object.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(pod, t) {
			return scheduler.Reject("node(s) had untolerated taint(s)")
		}
	}
	return nil
}

// Score counts the PreferNoSchedule taints that the pod doesn't tolerate.
func (TaintToleration) Score(pod *scheduler.Pod, node *scheduler.Node) (n int64) {
	for i := range node.Object.Spec.Taints {
		if t := &node.Object.Spec.Taints[i]; t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerates(pod, t) {
			n++
		}
	}
	return n
}

// Normalize implements scheduler.Normalizer: none is best.
func (TaintToleration) Normalize(score, _, greatest int64) int64 {
	if greatest == 0 {
		return scheduler.MaxScore
	}
	return scheduler.MaxScore - scheduler.MaxScore*score/greatest
}

// Indifferent implements scheduler.Normalizer.
func (TaintToleration) Indifferent(*scheduler.Pod) bool { return false }

// Hint implements scheduler.Hinter.
func (p TaintToleration) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	return c.Node != nil && p.Filter(pod, c.Node) == nil
}
