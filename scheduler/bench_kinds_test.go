//go:build unix

package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// BenchmarkKinds is BenchmarkSchedule with pods of many kinds, that is, signatures: each asks for another amount of memory. In rotation, which is the worst order for a cache that
// holds not all of them, and skewed as in a Zipf distribution. spread has a topology spread constraint for each kind, besides, over the pods of that kind. What the engine keeps
// for a node is reported with the kinds' answers, and for a pod without.
func BenchmarkKinds(b *testing.B) {
	for _, w := range []string{"rotation", "skewed", "spread"} {
		for _, nodes := range []int{1000, 5000, 50000} {
			for _, kinds := range []int{1, 100, 1000, 10000} {
				b.Run(fmt.Sprintf("%s/nodes=%d/kinds=%d", w, nodes, kinds), func(b *testing.B) { benchmarkKinds(b, w, nodes, kinds) })
			}
		}
	}
}

func benchmarkKinds(b *testing.B, workload string, nodes, kinds int) {
	objects := make([]*corev1.Node, nodes)
	for i := range objects {
		objects[i] = testNode(fmt.Sprint("n", i), fmt.Sprint("z", i%3))
		objects[i].Status.Allocatable = quantities("64", "256Gi", "pods", "110")
	}
	const kept = 2000 // pods are on nodes at any time
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.2, 1, uint64(kinds-1))
	next := 0
	pod := func() *corev1.Pod {
		kind := next % kinds
		if workload == "skewed" {
			kind = int(zipf.Uint64())
		}
		p := benchPod(next, func(p *corev1.Pod) {
			if workload == "spread" {
				app := fmt.Sprint("app", kind)
				p.Labels["app"] = app
				spreadOver(app, zoneKey)(p)
			}
		})
		p.Spec.Containers[0].Resources.Requests[corev1.ResourceMemory] = *resource.NewQuantity(int64(1<<20+kind), resource.BinarySI)
		next++
		return p
	}
	start := heap()
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range objects {
		e.SetNode(n)
	}
	schedule := func(p *corev1.Pod) {
		if d := e.Schedule(scheduler.NewPod(p)); !d.Fits() {
			b.Fatal(d.Message())
		}
	}
	warm := min(3*kinds, 40_000_000/nodes)
	for i := range warm {
		schedule(pod())
		if i >= kept {
			e.Remove(types.UID(fmt.Sprint(next - kept - 1)))
		}
	}
	cpu := reportCPU(b)
	for b.Loop() {
		schedule(pod())
		if next > kept {
			e.Remove(types.UID(fmt.Sprint(next - kept - 1)))
		}
	}
	cpu()
	for i := max(0, next-kept-1); i < next; i++ {
		e.Remove(types.UID(fmt.Sprint(i)))
	}
	empty := heap()
	b.ReportMetric(float64(empty-start)/float64(nodes), "B/node")
	const pods = 4000
	waiting := make([]*corev1.Pod, pods)
	for i := range waiting {
		waiting[i] = pod()
	}
	before := heap()
	for _, p := range waiting[:min(pods, 40_000_000/nodes)] {
		schedule(p)
	}
	b.ReportMetric((float64(heap())-float64(before))/float64(min(pods, 40_000_000/nodes)), "B/pod")
	runtime.KeepAlive(objects)
	runtime.KeepAlive(waiting)
	runtime.KeepAlive(e)
}

// TestMemoryOfManyKinds decides for pods of far more kinds than what is known of can be kept.
func TestMemoryOfManyKinds(t *testing.T) {
	const nodes, kinds = 1000, 600
	objects := make([]*corev1.Node, nodes)
	for i := range objects {
		objects[i] = testNode(fmt.Sprint("n", i), fmt.Sprint("z", i%3))
		objects[i].Status.Allocatable = quantities("64", "256Gi", "pods", "110")
	}
	start := heap()
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range objects {
		e.SetNode(n)
	}
	for i := range 2 * kinds {
		app := fmt.Sprint("app", i%kinds)
		p := benchPod(i, func(p *corev1.Pod) {
			p.Labels["app"] = app
			spreadOver(app, zoneKey)(p)
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceMemory] = *resource.NewQuantity(int64(1<<20+i%kinds), resource.BinarySI)
		})
		if d := e.Schedule(scheduler.NewPod(p)); !d.Fits() {
			t.Fatal(d.Message())
		}
		e.Remove(p.UID)
	}
	if each := (heap() - start) / nodes; each > 8<<10 {
		t.Errorf("%d bytes for each node, want 8 kB at most", each)
	}
	runtime.KeepAlive(objects)
	runtime.KeepAlive(e)
}
