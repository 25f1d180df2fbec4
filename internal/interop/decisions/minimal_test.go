package decisions

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// again tells two new schedulers of the objects, the one of the pod last, and compares what they say of it.
func again(t *testing.T, seed uint64, objects map[string]client.Object, pod string) string {
	w := newWorld(t, seed, &stats{})
	for _, pods := range []bool{false, true} {
		for _, key := range slices.Sorted(maps.Keys(objects)) {
			if _, is := objects[key].(*corev1.Pod); is == pods && key != pod {
				w.set(objects[key].DeepCopyObject().(client.Object))
			}
		}
	}
	obj := objects[pod].DeepCopyObject().(*corev1.Pod)
	w.set(obj)
	_, _, diff := w.compare(obj)
	return diff
}

// minimal leaves out of a difference what it doesn't need.
func minimal(t *testing.T, seed uint64, objects map[string]client.Object, pod, diff string) (map[string]client.Object, string) {
	differs := func(objects map[string]client.Object) bool {
		d := again(t, seed, objects, pod)
		if d != "" {
			diff = d
		}
		return d != ""
	}
	if !differs(objects) {
		return nil, diff
	}
	for changed := true; changed; {
		changed = false
		for _, key := range slices.Sorted(maps.Keys(objects)) {
			if key != pod {
				less := maps.Clone(objects)
				if delete(less, key); differs(less) {
					objects, changed = less, true
					continue
				}
			}
			for _, simpler := range simplifications {
				o := objects[key].DeepCopyObject().(client.Object)
				simpler(o)
				if equality.Semantic.DeepEqual(o, objects[key]) {
					continue
				}
				less := maps.Clone(objects)
				if less[key] = o; differs(less) {
					objects, changed = less, true
				}
			}
		}
	}
	return objects, diff
}

// simplifications of nodes and pods.
var simplifications = func() (out []func(client.Object)) {
	pod := func(f func(*corev1.Pod)) {
		out = append(out, func(o client.Object) {
			if p, ok := o.(*corev1.Pod); ok {
				f(p)
			}
		})
	}
	affinity := func(f func(a *corev1.Affinity)) {
		pod(func(p *corev1.Pod) {
			if p.Spec.Affinity != nil {
				f(p.Spec.Affinity)
			}
		})
	}
	node := func(f func(*corev1.Node)) {
		out = append(out, func(o client.Object) {
			if n, ok := o.(*corev1.Node); ok {
				f(n)
			}
		})
	}
	pod(func(p *corev1.Pod) { p.Spec.Affinity = nil })
	affinity(func(a *corev1.Affinity) { a.NodeAffinity = nil })
	affinity(func(a *corev1.Affinity) { a.PodAffinity = nil })
	affinity(func(a *corev1.Affinity) { a.PodAntiAffinity = nil })
	affinity(func(a *corev1.Affinity) {
		if n := a.NodeAffinity; n != nil && len(n.PreferredDuringSchedulingIgnoredDuringExecution) > 0 {
			n.PreferredDuringSchedulingIgnoredDuringExecution = n.PreferredDuringSchedulingIgnoredDuringExecution[1:]
		}
	})
	pod(func(p *corev1.Pod) { p.Spec.Tolerations = nil })
	pod(func(p *corev1.Pod) {
		if n := len(p.Spec.TopologySpreadConstraints); n > 0 {
			p.Spec.TopologySpreadConstraints = p.Spec.TopologySpreadConstraints[1:]
		}
	})
	pod(func(p *corev1.Pod) {
		if n := len(p.Spec.TopologySpreadConstraints); n > 0 {
			p.Spec.TopologySpreadConstraints = p.Spec.TopologySpreadConstraints[:n-1]
		}
	})
	pod(func(p *corev1.Pod) { p.Spec.Volumes = p.Spec.Volumes[:max(0, len(p.Spec.Volumes)-1)] })
	pod(func(p *corev1.Pod) { p.Spec.InitContainers = nil })
	pod(func(p *corev1.Pod) { p.Spec.Containers = p.Spec.Containers[:1] })
	pod(func(p *corev1.Pod) { p.Spec.Containers[0].Resources = corev1.ResourceRequirements{} })
	pod(func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil })
	pod(func(p *corev1.Pod) { p.Spec.Overhead, p.Spec.Resources = nil, nil })
	pod(func(p *corev1.Pod) { p.Spec.NodeSelector = nil })
	pod(func(p *corev1.Pod) { p.Spec.Priority, p.Spec.PreemptionPolicy = nil, nil })
	pod(func(p *corev1.Pod) { p.OwnerReferences, p.DeletionTimestamp, p.Status.Conditions = nil, nil, nil })
	pod(func(p *corev1.Pod) { p.Labels = nil })
	pod(func(p *corev1.Pod) { p.Status.NominatedNodeName = "" })
	node(func(n *corev1.Node) { n.Spec = corev1.NodeSpec{} })
	node(func(n *corev1.Node) { n.Status.Images = nil })
	node(func(n *corev1.Node) {
		n.Status.Allocatable = quantities("cpu", "4", "memory", "8Gi", "pods", "110")
	})
	node(func(n *corev1.Node) { delete(n.Labels, "disk"); delete(n.Labels, "size") })
	return out
}()

// dump writes objects as one would apply them.
func dump(t *testing.T, objects map[string]client.Object) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		o := objects[key].DeepCopyObject().(client.Object)
		o.SetResourceVersion("")
		out, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "--- %s\n%s", key, out)
	}
	return b.String()
}
