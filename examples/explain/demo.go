package main

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/examples/internal/compose"
	"github.com/keelson/keelson/store/memstore"
)

// demo starts a cluster of five nodes in two zones, one of them tainted and one cordoned, and explains two pods there.
func demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	// Without a scheduler of its own, so that the pods stay pending.
	o := compose.Options{Store: s, Nodes: 5, Runtime: "fake", NoScheduler: true, DisableAdmission: []string{"ServiceAccount"}}
	return compose.Demo(ctx, o, func(ctx context.Context, c *compose.Cluster) error {
		api := c.Server.Client(apiserver.Admin)
		fmt.Println("A cluster of its own with five nodes; nothing is asked of yours.")
		for i, zone := range []string{"a", "a", "b", "b", "b"} {
			if err := compose.Label(ctx, api, fmt.Sprint("node-", i+1), corev1.LabelTopologyZone, zone); err != nil {
				return err
			}
		}
		if err := setUp(ctx, api); err != nil {
			return err
		}
		fmt.Println("\n--- a web server that wants an SSD, prefers zone b, and keeps away from other web servers")
		if err := explain(ctx, os.Stdout, api, webPod(), 4); err != nil {
			return err
		}
		huge := webPod()
		huge.Name, huge.Spec.Affinity = "huge", nil
		huge.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("5000")
		fmt.Println("\n--- one that wants 5,000 processors")
		if err := explain(ctx, os.Stdout, api, huge, 0); err != nil {
			return err
		}
		fmt.Println("\nFor a pod of your cluster: go run ./examples/explain -kubeconfig FILE -n NAMESPACE POD")
		return nil
	})
}

// setUp makes the nodes differ: node-2 has no SSD, node-4 is tainted, node-5 is cordoned, and a web server runs on node-1.
func setUp(ctx context.Context, api client.Client) error {
	for i := range 5 {
		var n corev1.Node
		if err := api.Get(ctx, client.ObjectKey{Name: fmt.Sprint("node-", i+1)}, &n); err != nil {
			return err
		}
		before := n.DeepCopy()
		n.Labels["disk"] = "ssd"
		switch i + 1 {
		case 2:
			n.Labels["disk"] = "hdd"
		case 4:
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "example.com/maintenance", Effect: corev1.TaintEffectPreferNoSchedule})
		case 5:
			n.Spec.Unschedulable = true
		}
		if err := api.Patch(ctx, &n, client.MergeFrom(before)); err != nil {
			return err
		}
	}
	there := webPod()
	there.Name, there.Spec.NodeName = "web-0", "node-1"
	return api.Create(ctx, there)
}

func webPod() *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "default", UID: "web-1", Labels: map[string]string{"app": "web"}}}
	pod.Spec.Containers = []corev1.Container{{Name: "app", Image: "app", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi")},
	}}}
	pod.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	pod.Spec.Affinity = &corev1.Affinity{
		NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
			Weight:     10,
			Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{"b"}}}},
		}}},
		PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		}}},
	}
	return pod
}
