package gpushare_test

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/scheduler/schedulertest"
	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/gpushare"
	"github.com/keelson/keelson/scheduler/sim/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newPlugin(t testing.TB, o gpushare.Options) *gpushare.Plugin {
	t.Helper()
	p, err := gpushare.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func with(list corev1.ResourceList, milli int64) corev1.ResourceList {
	if list == nil {
		list = corev1.ResourceList{}
	}
	if milli > 0 {
		list[gpushare.Resource] = *resource.NewQuantity(milli, resource.DecimalSI)
	}
	return list
}

// TestPlugin runs the suite for plugins on each way of scoring.
func TestPlugin(t *testing.T) {
	for _, s := range []gpushare.Scoring{gpushare.Packing, gpushare.Spreading, gpushare.LeastFragmentation} {
		t.Run(string(s), func(t *testing.T) {
			schedulertest.Run(t, func() scheduler.Plugin { return newPlugin(t, gpushare.Options{Scoring: s}) }, schedulertest.Options{
				Clusters: 6,
				Pod: func(r *rand.Rand, p *corev1.Pod) {
					c := &p.Spec.Containers[0].Resources
					c.Requests = with(c.Requests, []int64{0, 100, 250, 500, 700, 1000, 1500, 2000, 4000}[r.IntN(9)])
				},
				Node: func(r *rand.Rand, n *corev1.Node) {
					n.Status.Allocatable = with(n.Status.Allocatable, 1000*r.Int64N(5))
				},
			})
		})
	}
}

func gpuNode(name string, devices int64) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	n.Status.Allocatable = with(corev1.ResourceList{"cpu": resource.MustParse("64"), "memory": resource.MustParse("256Gi"), "pods": resource.MustParse("100")}, devices*1000)
	return n
}

func gpuPod(name string, milli int64) *scheduler.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name, UID: types.UID(name)}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: with(corev1.ResourceList{"cpu": resource.MustParse("1")}, milli)}}}
	return scheduler.NewPod(p)
}

// TestDevices puts pods on a node of two devices, one after the other.
func TestDevices(t *testing.T) {
	p := newPlugin(t, gpushare.Options{})
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: append(plugins.Default(), scheduler.Weighted{Plugin: p})})
	if err != nil {
		t.Fatal(err)
	}
	e.SetNode(gpuNode("n", 2))
	for i, step := range []struct {
		milli int64
		off   string // a pod that leaves first
		want  string
	}{
		{milli: 600, want: "[0]"},
		{milli: 600, want: "[1]"},
		{milli: 500, want: "0/1 nodes are available: 1 Insufficient room on GPUs."}, // 400 is free on each
		{milli: 400, want: "[0]"},
		{milli: 400, want: "[1]"},
		{milli: 500, off: "p0", want: "[0]"},
		{milli: 1000, off: "p1", want: "0/1 nodes are available: 1 Insufficient alibabacloud.com/gpu-milli."},
		{milli: 2000, off: "p3", want: "0/1 nodes are available: 1 Insufficient alibabacloud.com/gpu-milli."},
		{milli: 1000, off: "p4", want: "[1]"},
		{milli: 1000, off: "p5", want: "[0]"},
		{milli: 1500, off: "p8", want: "0/1 nodes are available: 1 Insufficient alibabacloud.com/gpu-milli."},
		{milli: 1500, off: "p9", want: "0/1 nodes are available: 1 GPUs are shared in parts of one or taken whole."},
		{milli: 0, want: "[]"},
	} {
		if step.off != "" {
			e.Remove(types.UID(step.off))
		}
		pod := gpuPod(fmt.Sprint("p", i), step.milli)
		d := e.Schedule(pod)
		got := d.Message()
		if d.Fits() {
			if err := e.Reserve(pod, d.Node); err != nil {
				t.Fatal(err)
			}
			got = fmt.Sprint(p.Devices(pod.Object.UID, d.Node))
		}
		if got != step.want {
			t.Errorf("step %d, %d: %s, want %s", i, step.milli, got, step.want)
		}
	}
	// What was reserved in vain is free again, and what moves away is forgotten.
	pod := gpuPod("again", 1000)
	if d := e.Schedule(pod); !d.Fits() || e.Reserve(pod, d.Node) != nil {
		t.Fatalf("%+v", d)
	}
	e.Unreserve(pod, "n")
	if p.Devices("again", "n") != nil {
		t.Error("it is still booked")
	}
}

// devicesRight looks at what is booked with a rule of its own.
func devicesRight(p *gpushare.Plugin, n *scheduler.Node) error {
	used := make([]int64, n.Allocatable.Of(gpushare.Resource)/1000)
	alone := make([]bool, len(used))
	var err error
	n.Pods(func(pod *scheduler.Pod) bool {
		milli := pod.Requests.Of(gpushare.Resource)
		if milli == 0 {
			return true
		}
		devices := p.Devices(pod.Object.UID, n.Object.Name)
		if want := max(milli/1000, 1); int64(len(devices)) != want {
			err = fmt.Errorf("%s asks for %d and has devices %v", pod.Object.Name, milli, devices)
			return false
		}
		for _, d := range devices {
			used[d] += min(milli, 1000)
			if used[d] > 1000 || alone[d] {
				err = fmt.Errorf("device %d of %s has %d", d, n.Object.Name, used[d])
				return false
			}
			alone[d] = milli >= 1000
		}
		return true
	})
	return err
}

// TestTrace plays a generated day of GPUs, with preemption, gangs and failing nodes: at each sample every device has no more than it can, and LeastFragmentation
// wastes less than spreading does.
func TestTrace(t *testing.T) {
	day, err := trace.GPU(trace.Options{Nodes: 16, Pods: 900, Load: 0.45, Length: 12 * time.Hour})
	if err == nil {
		day, err = trace.Churn(day, trace.ChurnOptions{Length: 12 * time.Hour, Between: 48 * time.Hour, Drains: 0.5})
	}
	if err != nil {
		t.Fatal(err)
	}
	results := map[gpushare.Scoring]*sim.Result{}
	for _, s := range []gpushare.Scoring{gpushare.Packing, gpushare.Spreading, gpushare.LeastFragmentation} {
		p := newPlugin(t, gpushare.Options{Scoring: s})
		var wrong error
		measures := append(p.Measures(), sim.Measure{Name: "wrong", Of: func(nodes iter.Seq[*scheduler.Node]) float64 {
			for n := range nodes {
				wrong = errors.Join(wrong, devicesRight(p, n))
			}
			return 0
		}})
		x, err := sim.New(day, sim.Options{
			Policy: string(s), Engine: scheduler.EngineOptions{Profile: append(plugins.Default(), scheduler.Weighted{Plugin: p, Weight: 100})}, Measures: measures, GracePeriod: 10 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		r, err := x.Run(t.Context())
		if err = errors.Join(err, wrong); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if r.Summary.Finished < 700 || r.Summary.Preempted == 0 {
			t.Errorf("%s: %+v", s, r.Summary)
		}
		t.Logf("%s: %.3v, wait %v, %d preempted", s, r.Summary.Measures, r.Summary.Waits.Mean, r.Summary.Preempted)
		results[s] = r
	}
	waste := func(s gpushare.Scoring) float64 { return results[s].Summary.Measures[0] }
	if waste(gpushare.LeastFragmentation) >= waste(gpushare.Spreading) {
		t.Errorf("fragmentation %v with least fragmentation, %v with spreading", waste(gpushare.LeastFragmentation), waste(gpushare.Spreading))
	}
}

// TestOptions: what makes no sense is refused, naming the field.
func TestOptions(t *testing.T) {
	for want, o := range map[string]gpushare.Options{
		"Options.Scoring": {Scoring: "Best"},
		"Options.Pods[1]": {Pods: []gpushare.Kind{{Milli: 500}, {Milli: 1500}}},
	} {
		if _, err := gpushare.New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
