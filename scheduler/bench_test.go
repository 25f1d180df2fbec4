package scheduler_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

func BenchmarkSchedule(b *testing.B) {
	for _, c := range []struct {
		name string
		mod  podMod
	}{
		{"basic", func(*corev1.Pod) {}},
		{"zonespread", spreadOver("web", zoneKey)},
		{"hostantiaffinity", away(term("web", corev1.LabelHostname))},
	} {
		for _, nodes := range []int{1000, 5000} {
			b.Run(fmt.Sprintf("%s/nodes=%d", c.name, nodes), func(b *testing.B) { benchmarkSchedule(b, nodes, c.mod) })
		}
	}
}

// benchmarkSchedule keeps at most as many pods as half the nodes, so that anti-affinity always leaves room.
func benchmarkSchedule(b *testing.B, nodes int, mod podMod) {
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
	if err != nil {
		b.Fatal(err)
	}
	for i := range nodes {
		n := testNode(fmt.Sprint("n", i), fmt.Sprint("z", i%3))
		n.Status.Allocatable = quantities("4", "32Gi", "pods", "110")
		e.SetNode(n)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "d", UID: types.UID(fmt.Sprint(i)), Labels: map[string]string{"app": "web"}}}
		p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities("1m", "1Mi")}}}
		mod(p)
		if d := e.Schedule(scheduler.NewPod(p)); !d.Fits() {
			b.Fatal(d.Message())
		}
		e.Remove(types.UID(fmt.Sprint(i - nodes/2)))
		i++
	}
}
