//go:build unix

package scheduler_test

import (
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// workloads are those of kube-scheduler's scheduler_perf, by their rules.
var workloads = []struct {
	name string
	mod  podMod
}{
	{"basic", func(*corev1.Pod) {}},
	{"zonespread", spreadOver("web", zoneKey)},
	{"hostantiaffinity", away(term("web", corev1.LabelHostname))},
	{"preferredaffinity", weighted(1, term("web", corev1.LabelHostname))},
	{"preferredantiaffinity", weighted(-1, term("web", corev1.LabelHostname))},
	{"affinity", near(term("web", zoneKey))},
	{"defaultspread", func(p *corev1.Pod) { p.Labels["service"] = "web" }},
	{"volumes", func(p *corev1.Pod) { claiming("claim-" + string(p.UID))(p) }},
}

// BenchmarkSchedule is one decision and what it takes to know the pod, at steady state: half as many pods as nodes, 2,500 at most; one comes, one goes.
func BenchmarkSchedule(b *testing.B) {
	for _, c := range workloads {
		for _, nodes := range []int{1000, 5000, 10000, 20000, 50000} {
			b.Run(fmt.Sprintf("%s/nodes=%d", c.name, nodes), func(b *testing.B) { benchmarkSchedule(b, nodes, c.mod) })
		}
	}
	for _, c := range []struct {
		name string
		mod  func(i int, p *corev1.Pod)
	}{
		{"preemption", func(int, *corev1.Pod) {}},
		// Each preempts for another amount, so that nothing is known of it before.
		{"preemptionapart", func(i int, p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceMemory] = *resource.NewQuantity(int64(1<<20+i), resource.BinarySI)
		}},
		{"preemptionspread", func(_ int, p *corev1.Pod) { spreadOver("web", zoneKey)(p) }},
	} {
		for _, nodes := range []int{1000, 5000, 10000, 20000, 50000} {
			b.Run(fmt.Sprintf("%s/nodes=%d", c.name, nodes), func(b *testing.B) { benchmarkPreemption(b, nodes, c.mod) })
			b.Run(fmt.Sprintf("hopeless%s/nodes=%d", c.name, nodes), func(b *testing.B) { benchmarkHopeless(b, nodes, c.mod) })
		}
	}
	for _, nodes := range []int{1000, 5000, 10000, 20000, 50000} {
		b.Run(fmt.Sprintf("preemptionheld/nodes=%d", nodes), func(b *testing.B) { benchmarkHeld(b, nodes) })
	}
}

// reportCPU reports the CPU time of an operation, garbage collection included, which others on the machine don't lengthen as they do the time itself.
func reportCPU(b *testing.B) func() {
	start := cpuTime(b)
	return func() { b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}

func benchEngine(b *testing.B, nodes int, more ...scheduler.Weighted) *scheduler.Engine {
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: append(plugins.Default(), more...)})
	if err != nil {
		b.Fatal(err)
	}
	for i := range nodes {
		n := testNode(fmt.Sprint("n", i), fmt.Sprint("z", i%3))
		n.Status.Allocatable = quantities("4", "32Gi", "pods", "110")
		e.SetNode(n)
		limit := int32(39)
		csi := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}
		csi.Spec.Drivers = []storagev1.CSINodeDriver{{Name: "example.com", Allocatable: &storagev1.VolumeNodeResources{Count: &limit}}}
		e.SetCSINode(csi)
	}
	e.SetService(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "web"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"service": "web"}}})
	return e
}

func benchPod(i int, mod podMod) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Namespace: "d", UID: types.UID(fmt.Sprint(i)), Labels: map[string]string{"app": "web"}}}
	p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities("1m", "1Mi")}}}
	mod(p)
	return p
}

func bindClaim(e *scheduler.Engine, p *corev1.Pod) {
	for _, v := range p.Spec.Volumes {
		name := v.PersistentVolumeClaim.ClaimName
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name, Annotations: map[string]string{"pv.kubernetes.io/bind-completed": "yes"}}}
		claim.Spec.VolumeName, claim.Status.Phase = name, corev1.ClaimBound
		e.SetClaim(claim)
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "example.com", VolumeHandle: name}
		e.SetVolume(pv)
	}
}

func benchmarkSchedule(b *testing.B, nodes int, mod podMod) {
	e := benchEngine(b, nodes)
	i := 0
	schedule := func() {
		p := benchPod(i, mod)
		if len(p.Spec.Volumes) > 0 {
			bindClaim(e, p)
		}
		if d := e.Schedule(scheduler.NewPod(p)); !d.Fits() {
			b.Fatal(d.Message())
		}
		i++
	}
	for range min(nodes/2, 2500) {
		schedule()
	}
	b.ReportAllocs()
	defer reportCPU(b)()
	for b.Loop() {
		schedule()
		e.Remove(types.UID(fmt.Sprint(i - min(nodes/2, 2500) - 1)))
	}
}

// benchmarkPreemption makes room for one pod after the other on a full cluster, and puts it there.
func benchmarkPreemption(b *testing.B, nodes int, mod func(i int, p *corev1.Pod)) {
	e := benchEngine(b, nodes)
	uid := 0
	put := func(node int) {
		uid++
		p := benchPod(uid, func(*corev1.Pod) {})
		p.Spec.Containers[0].Resources.Requests = quantities("1", "1Mi")
		e.Assign(scheduler.NewPod(p), fmt.Sprint("n", node))
	}
	for i := range nodes {
		for range 4 {
			put(i)
		}
	}
	high := int32(10)
	preempt := func() {
		uid++
		p := benchPod(uid, func(p *corev1.Pod) { p.Spec.Priority = &high })
		p.Spec.Containers[0].Resources.Requests = quantities("2", "1Mi")
		mod(uid, p)
		pod := scheduler.NewPod(p)
		d := e.Schedule(pod)
		room := e.Preempt(pod, &d)
		if room == nil || len(room.Victims) != 2 {
			b.Fatal(d.Message())
		}
		e.Nominate(pod, room.Node)
		for _, v := range room.Victims {
			e.Remove(v.Object.UID)
		}
		if d := e.Schedule(pod); d.Node != room.Node {
			b.Fatal(d.Message())
		}
		e.Remove(pod.Object.UID)
		var node int
		if _, err := fmt.Sscanf(room.Node, "n%d", &node); err != nil {
			b.Fatal(err)
		}
		put(node)
		put(node)
	}
	preempt()
	b.ReportAllocs()
	defer reportCPU(b)()
	for b.Loop() {
		preempt()
	}
}

// benchmarkHopeless tries to make room where there is none to be made: the pods that could go leave too little. One comes and goes between the attempts.
func benchmarkHopeless(b *testing.B, nodes int, mod func(i int, p *corev1.Pod)) {
	e := benchEngine(b, nodes)
	uid := 0
	pod := func(priority int32, cpu string) *scheduler.Pod {
		uid++
		p := benchPod(uid, func(p *corev1.Pod) { p.Spec.Priority = &priority })
		p.Spec.Containers[0].Resources.Requests = quantities(cpu, "1Mi")
		if priority == 10 {
			mod(uid, p)
		}
		return scheduler.NewPod(p)
	}
	for i := range nodes {
		e.Assign(pod(100, "3"), fmt.Sprint("n", i))
		e.Assign(pod(0, "500m"), fmt.Sprint("n", i))
	}
	attempt := func() {
		p := pod(10, "2")
		d := e.Schedule(p)
		if room := e.Preempt(p, &d); d.Fits() || room == nil || room.Node != "" {
			b.Fatal(d.Message())
		}
		p = pod(0, "500m")
		e.Assign(p, fmt.Sprint("n", uid%nodes))
		e.Remove(p.Object.UID)
	}
	attempt()
	b.ReportAllocs()
	defer reportCPU(b)()
	for b.Loop() {
		attempt()
	}
}

// benchmarkHeld makes room for pods that may only go to the zone where it costs most: in the others there are too many of their kind, which are as important.
func benchmarkHeld(b *testing.B, nodes int) {
	e := benchEngine(b, nodes)
	uid := 0
	put := func(node int, app string, priority int32) {
		uid++
		p := benchPod(uid, func(p *corev1.Pod) { p.Labels["app"], p.Spec.Priority = app, &priority })
		p.Spec.Containers[0].Resources.Requests = quantities("1", "1Mi")
		e.Assign(scheduler.NewPod(p), fmt.Sprint("n", node))
	}
	for i := range nodes {
		priority := int32(i % 3)
		if i%3 != 2 {
			put(i, "web", 10)
		} else {
			put(i, "other", priority)
		}
		for range 3 {
			put(i, "other", priority)
		}
	}
	high := int32(10)
	preempt := func() {
		uid++
		p := benchPod(uid, func(p *corev1.Pod) { p.Spec.Priority = &high })
		p.Spec.Containers[0].Resources.Requests = quantities("2", "1Mi")
		spreadOver("web", zoneKey)(p)
		pod := scheduler.NewPod(p)
		d := e.Schedule(pod)
		room := e.Preempt(pod, &d)
		if room == nil || len(room.Victims) != 2 || room.Victims[0].Priority != 2 {
			b.Fatal(d.Message())
		}
		e.Nominate(pod, room.Node)
		for _, v := range room.Victims {
			e.Remove(v.Object.UID)
		}
		if d := e.Schedule(pod); d.Node != room.Node {
			b.Fatal(d.Message())
		}
		e.Remove(pod.Object.UID)
		var node int
		if _, err := fmt.Sscanf(room.Node, "n%d", &node); err != nil {
			b.Fatal(err)
		}
		put(node, "other", 2)
		put(node, "other", 2)
	}
	preempt()
	b.ReportAllocs()
	defer reportCPU(b)()
	for b.Loop() {
		preempt()
	}
}

// BenchmarkMemory reports what the engine keeps for a node and for a pod, the API's objects left out: those are the informers'.
func BenchmarkMemory(b *testing.B) {
	for _, c := range workloads {
		b.Run(c.name, func(b *testing.B) {
			const nodes, pods = 5000, 20000
			for b.Loop() {
				objects := make([]*corev1.Node, nodes)
				for i := range objects {
					objects[i] = testNode(fmt.Sprint("n", i), fmt.Sprint("z", i%3))
					objects[i].Status.Allocatable = quantities("64", "256Gi", "pods", "110")
				}
				e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
				if err != nil {
					b.Fatal(err)
				}
				mods := c.mod
				if c.name == "hostantiaffinity" {
					mods = weighted(-1, term("web", corev1.LabelHostname)) // required, there would be room for one a node
				}
				waiting := make([]*corev1.Pod, pods)
				for i := range waiting {
					if waiting[i] = benchPod(i, mods); len(waiting[i].Spec.Volumes) > 0 {
						bindClaim(e, waiting[i])
					}
				}
				start := heap()
				for _, n := range objects {
					e.SetNode(n)
				}
				e.Decide(scheduler.NewPod(waiting[0]))
				empty := heap()
				for _, p := range waiting {
					e.Schedule(scheduler.NewPod(p))
				}
				full := heap()
				b.ReportMetric(float64(empty-start)/nodes, "B/node")
				b.ReportMetric(float64(full-empty)/pods, "B/pod")
				runtime.KeepAlive(objects)
				runtime.KeepAlive(waiting)
				runtime.KeepAlive(e)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
