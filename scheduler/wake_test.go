package scheduler_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestPlacedPodWakes: a pod that wants to be near another is tried again when the scheduler itself has placed that one.
func TestPlacedPodWakes(t *testing.T) {
	k := newCluster(t)
	k.addNode("n", "")
	near := k.addPod("near", func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
		}}}}
	})
	k.waiting(near, "0/1 nodes are available: 1 node(s) didn't match pod affinity rules. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
	k.bound(k.addPod("db", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "db"} }))
	k.bound(near)
}

// TestOwnChangeWakes: so is one that gets the toleration it lacked.
func TestOwnChangeWakes(t *testing.T) {
	k := newCluster(t)
	k.addNode("n", "")
	var n corev1.Node
	k.must(k.client.Get(k.Context(), client.ObjectKey{Name: "n"}, &n))
	n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}
	k.must(k.client.Update(k.Context(), &n))
	p := k.addPod("p")
	k.waiting(p, "0/1 nodes are available: 1 node(s) had untolerated taint(s). preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
	k.must(k.client.Get(k.Context(), client.ObjectKeyFromObject(p), p))
	p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists})
	k.must(k.client.Update(k.Context(), p))
	k.bound(p)
}
