package daemonset

import (
	"fmt"
	"slices"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/keelson/keelson/controller/internal/pods"
)

// daemonTolerations are what every daemon's pod tolerates.
func daemonTolerations(spec *corev1.PodSpec) []corev1.Toleration {
	t := func(key string, effect corev1.TaintEffect) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
	}
	out := []corev1.Toleration{
		t(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute),
		t(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute),
		t(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule),
		t(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule),
		t(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule),
		t(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule),
	}
	if spec.HostNetwork {
		out = append(out, t(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule))
	}
	return out
}

// addTolerations adds tolerations that spec does not have; of one that has a
// time, the unlimited one takes its place.
func addTolerations(spec *corev1.PodSpec) {
	for _, t := range daemonTolerations(spec) {
		i := slices.IndexFunc(spec.Tolerations, func(o corev1.Toleration) bool { return o.MatchToleration(&t) })
		if i < 0 {
			spec.Tolerations = append(spec.Tolerations, t)
		} else {
			spec.Tolerations[i] = t
		}
	}
}

// shouldRun says whether a node should get a daemon's pod, and whether one that
// runs there may go on.
func shouldRun(ds *appsv1.DaemonSet, n *corev1.Node, log logr.Logger) (run, goOn bool) {
	spec := ds.Spec.Template.Spec.DeepCopy()
	addTolerations(spec)
	if spec.NodeName != "" && spec.NodeName != n.Name {
		return false, false
	}
	fits, err := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: *spec}).Match(n)
	if err != nil || !fits {
		return false, false
	}
	run, goOn = true, true
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectNoExecute && t.Effect != corev1.TaintEffectNoSchedule {
			continue
		}
		if slices.ContainsFunc(spec.Tolerations, func(o corev1.Toleration) bool { return o.ToleratesTaint(log, t, true) }) {
			continue
		}
		run = false
		if t.Effect == corev1.TaintEffectNoExecute {
			goOn = false
		}
	}
	return run, goOn
}

// nodeOf returns the node a daemon's pod is for, bound to it or not.
func nodeOf(p *corev1.Pod) string {
	if p.Spec.NodeName != "" {
		return p.Spec.NodeName
	}
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

// newPod makes a daemon's pod for a node.
func newPod(ds *appsv1.DaemonSet, node, hash string) *corev1.Pod {
	p := pods.FromTemplate(&ds.Spec.Template, ds.Namespace, ds.Name, metav1.NewControllerRef(ds, kind))
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = hash
	if g := ds.Annotations[appsv1.DeprecatedTemplateGeneration]; g != "" {
		p.Labels["pod-template-generation"] = g
	} else {
		p.Labels["pod-template-generation"] = fmt.Sprint(ds.Generation)
	}
	addTolerations(&p.Spec)
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if p.Spec.Affinity.NodeAffinity == nil {
		p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	// It replaces the template's own required affinity, which the node has been
	// found to meet.
	p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
	}}}
	return p
}
