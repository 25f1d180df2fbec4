package plugins_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// list parses "cpu=1 memory=2Gi".
func list(t testing.TB, s string) corev1.ResourceList {
	t.Helper()
	l := corev1.ResourceList{}
	for _, f := range strings.Fields(s) {
		name, q, _ := strings.Cut(f, "=")
		l[corev1.ResourceName(name)] = resource.MustParse(q)
	}
	return l
}

func podOf(t testing.TB, requests string, mods ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "d", UID: "p"}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: list(t, requests)}}}
	for _, m := range mods {
		m(p)
	}
	return p
}

// oneNode has a node with pods on it.
func oneNode(t testing.TB, allocatable string, pods ...*corev1.Pod) *scheduler.Node {
	t.Helper()
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
	if err != nil {
		t.Fatal(err)
	}
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"disk": "ssd"}}}
	n.Status.Allocatable = list(t, allocatable+" pods=10")
	e.SetNode(n)
	for i, p := range pods {
		p.UID = types.UID(rune('a' + i))
		e.Assign(scheduler.NewPod(p), "n")
	}
	return e.Node("n")
}

func TestScoringStrategies(t *testing.T) {
	const half = "cpu=2 memory=4Gi"
	binpack := []plugins.ShapePoint{{Utilization: 0, Score: 0}, {Utilization: 100, Score: 10}}
	for _, c := range []struct {
		name     string
		strategy plugins.ScoringStrategy
		on, pod  string
		node     string
		want     int64
	}{
		{name: "least", on: half, pod: "cpu=1 memory=2Gi", want: (25 + 25) / 2},
		{name: "least, more than all", on: half, pod: "cpu=4 memory=1Gi", want: (0 + 37) / 2},
		{name: "least, no requests count a little", pod: "", want: (97 + 97) / 2}, // 100m of 4, 200Mi of 8Gi
		{name: "least, weighted", strategy: plugins.ScoringStrategy{Resources: []plugins.ResourceWeight{{Name: "cpu", Weight: 3}, {Name: "memory"}}}, pod: "cpu=1 memory=4Gi", want: (3*75 + 50) / 4},
		{name: "most", strategy: plugins.ScoringStrategy{Type: plugins.MostAllocated}, on: half, pod: "cpu=1 memory=2Gi", want: 75},
		{name: "most, more than all", strategy: plugins.ScoringStrategy{Type: plugins.MostAllocated}, on: half, pod: "cpu=4 memory=0", want: (100 + 50) / 2},
		{
			name: "extended resource of a pod that asks for it", node: "cpu=4 memory=8Gi example.com/gpu=4", on: "example.com/gpu=1", pod: "example.com/gpu=1",
			strategy: plugins.ScoringStrategy{Type: plugins.MostAllocated, Resources: []plugins.ResourceWeight{{Name: "example.com/gpu"}}}, want: 50,
		},
		{
			name: "extended resource of a pod that doesn't", node: "cpu=4 memory=8Gi example.com/gpu=4", on: "example.com/gpu=1", pod: "cpu=2",
			strategy: plugins.ScoringStrategy{Type: plugins.MostAllocated, Resources: []plugins.ResourceWeight{{Name: "example.com/gpu"}, {Name: "cpu"}}}, want: 52, // the other pod's container counts 100m
		},
		{
			name: "ephemeral storage", node: "ephemeral-storage=10Gi", on: "ephemeral-storage=1Gi", pod: "",
			strategy: plugins.ScoringStrategy{Resources: []plugins.ResourceWeight{{Name: "ephemeral-storage"}}}, want: 90,
		},
		{
			name: "huge pages", node: "hugepages-2Mi=8Mi", on: "hugepages-2Mi=2Mi", pod: "hugepages-2Mi=4Mi",
			strategy: plugins.ScoringStrategy{Resources: []plugins.ResourceWeight{{Name: "hugepages-2Mi"}}}, want: 25,
		},
		{name: "node without", strategy: plugins.ScoringStrategy{Resources: []plugins.ResourceWeight{{Name: "example.com/gpu"}}}, pod: "example.com/gpu=1", want: 0},
		{name: "ratio", strategy: plugins.ScoringStrategy{Type: plugins.RequestedToCapacityRatio, Shape: binpack}, on: half, pod: "cpu=1 memory=1Gi", want: (75 + 63 + 1) / 2}, // 62.5% is 62
		{
			name: "ratio leaves out what scores nothing", on: "", pod: "cpu=4 memory=0", want: 100,
			strategy: plugins.ScoringStrategy{Type: plugins.RequestedToCapacityRatio, Shape: binpack, Resources: []plugins.ResourceWeight{{Name: "cpu"}, {Name: "ephemeral-storage", Weight: 9}}},
			node:     "cpu=4 ephemeral-storage=1Gi",
		},
		{
			name: "ratio rounds", pod: "cpu=4 memory=4Gi", want: 67, // (2*75+50)/3
			strategy: plugins.ScoringStrategy{
				Type: plugins.RequestedToCapacityRatio, Shape: []plugins.ShapePoint{{Utilization: 50, Score: 5}, {Utilization: 100, Score: 10}},
				Resources: []plugins.ResourceWeight{{Name: "cpu", Weight: 2}, {Name: "memory"}},
			}, node: "cpu=5333m memory=8Gi",
		},
		{
			name: "falling shape", pod: "cpu=3 memory=6Gi", want: 30,
			strategy: plugins.ScoringStrategy{Type: plugins.RequestedToCapacityRatio, Shape: []plugins.ShapePoint{{Utilization: 10, Score: 10}, {Utilization: 70, Score: 4}, {Utilization: 80, Score: 2}}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plugins.NewNodeResourcesFit(plugins.NodeResourcesFitOptions{Scoring: c.strategy})
			if err != nil {
				t.Fatal(err)
			}
			if c.node == "" {
				c.node = "cpu=4 memory=8Gi"
			}
			var on []*corev1.Pod
			if c.on != "" {
				on = append(on, podOf(t, c.on))
			}
			if got := p.Score(scheduler.NewPod(podOf(t, c.pod)), oneNode(t, c.node, on...)); got != c.want {
				t.Errorf("score %d, want %d", got, c.want)
			}
		})
	}
}

func TestBalancedAllocation(t *testing.T) {
	gpus := []plugins.ResourceWeight{{Name: "cpu"}, {Name: "memory", Weight: 1}, {Name: "example.com/gpu"}}
	for _, c := range []struct {
		name      string
		resources []plugins.ResourceWeight
		on, pod   string
		want      int64
	}{
		{name: "nothing asked for", on: "cpu=4", want: 0},
		{name: "stays even", pod: "cpu=1 memory=2Gi", want: 75},
		{name: "gets uneven", pod: "cpu=4", want: 50 + (50+50-100)/2},
		{name: "gets even", on: "cpu=4", pod: "memory=8Gi", want: 100},
		{name: "a resource the pod doesn't ask for", resources: gpus, on: "example.com/gpu=4", pod: "cpu=1 memory=2Gi", want: 75},
		{name: "three resources", resources: gpus, pod: "example.com/gpu=4", want: 50 + (50+52-100)/2}, // deviation of 0, 0, 1: 0.471
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plugins.NewNodeResourcesBalancedAllocation(plugins.NodeResourcesBalancedAllocationOptions{Resources: c.resources})
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Score(scheduler.NewPod(podOf(t, c.pod)), oneNode(t, "cpu=4 memory=8Gi example.com/gpu=4", podOf(t, c.on))); got != c.want {
				t.Errorf("score %d, want %d", got, c.want)
			}
		})
	}
}

func TestFitRequests(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	ignoring, err := plugins.NewNodeResourcesFit(plugins.NodeResourcesFitOptions{IgnoredResources: []string{"example.com/gpu"}, IgnoredResourceGroups: []string{"vendor.io"}})
	if err != nil {
		t.Fatal(err)
	}
	container := func(name, requests string) corev1.Container {
		return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: list(t, requests)}}
	}
	for _, c := range []struct {
		name   string
		plugin plugins.NodeResourcesFit
		on     *corev1.Pod
		pod    *corev1.Pod
		why    string
		never  bool
	}{
		{name: "room", on: podOf(t, "cpu=3"), pod: podOf(t, "cpu=1")},
		{name: "no room", on: podOf(t, "cpu=3"), pod: podOf(t, "cpu=1001m"), why: "Insufficient cpu"},
		{name: "never room", pod: podOf(t, "cpu=5"), why: "Insufficient cpu", never: true},
		{name: "nothing asked for on a full node", on: podOf(t, "cpu=9 memory=9Gi"), pod: podOf(t, "cpu=0")},
		{name: "ephemeral storage", on: podOf(t, "ephemeral-storage=9Gi"), pod: podOf(t, "ephemeral-storage=2Gi"), why: "Insufficient ephemeral-storage"},
		{name: "huge pages", on: podOf(t, "hugepages-2Mi=6Mi"), pod: podOf(t, "hugepages-2Mi=4Mi"), why: "Insufficient hugepages-2Mi"},
		{name: "extended", pod: podOf(t, "example.com/gpu=1"), why: "Insufficient example.com/gpu", never: true},
		{name: "ignored", plugin: ignoring, pod: podOf(t, "example.com/gpu=1")},
		{name: "ignored group", plugin: ignoring, pod: podOf(t, "vendor.io/x=1 vendor.io/y=2")},
		{name: "core resources aren't ignored", plugin: ignoring, pod: podOf(t, "hugepages-1Gi=1Gi"), why: "Insufficient hugepages-1Gi", never: true},
		{name: "overhead", on: podOf(t, "cpu=3"), pod: podOf(t, "cpu=1", func(p *corev1.Pod) { p.Spec.Overhead = list(t, "cpu=1m") }), why: "Insufficient cpu"},
		{name: "init containers one by one", pod: podOf(t, "cpu=1", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{container("i", "cpu=4"), container("j", "cpu=4")}
		})},
		{name: "sidecars beside them", pod: podOf(t, "cpu=1", func(p *corev1.Pod) {
			side := container("s", "cpu=1")
			side.RestartPolicy = &always
			p.Spec.InitContainers = []corev1.Container{side, container("j", "cpu=4")}
		}), why: "Insufficient cpu", never: true},
		{name: "pod-level requests", pod: podOf(t, "cpu=1", func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: list(t, "cpu=5")}
		}), why: "Insufficient cpu", never: true},
		{name: "a resize takes the greater of old and new", on: podOf(t, "cpu=1", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", AllocatedResources: list(t, "cpu=3"), Resources: &corev1.ResourceRequirements{Requests: list(t, "cpu=3")}}}
		}), pod: podOf(t, "cpu=2"), why: "Insufficient cpu"},
		{name: "a resize that has been done", on: podOf(t, "cpu=1", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", AllocatedResources: list(t, "cpu=1"), Resources: &corev1.ResourceRequirements{Requests: list(t, "cpu=1")}}}
		}), pod: podOf(t, "cpu=3")},
		{name: "a resize that is infeasible", on: podOf(t, "cpu=4", func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodResizePending, Reason: corev1.PodReasonInfeasible}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", AllocatedResources: list(t, "cpu=1"), Resources: &corev1.ResourceRequirements{Requests: list(t, "cpu=1")}}}
		}), pod: podOf(t, "cpu=3")},
		{name: "a pod-level resize", on: podOf(t, "", func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: list(t, "cpu=1")}
			p.Status.Resources = &corev1.ResourceRequirements{Requests: list(t, "cpu=3")}
			p.Status.AllocatedResources = list(t, "cpu=3")
		}), pod: podOf(t, "cpu=2"), why: "Insufficient cpu"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var on []*corev1.Pod
			if c.on != nil {
				on = append(on, c.on)
			}
			r := c.plugin.Filter(scheduler.NewPod(c.pod), oneNode(t, "cpu=4 memory=8Gi ephemeral-storage=10Gi hugepages-2Mi=8Mi", on...))
			got, never := "", false
			if r != nil {
				got, never = strings.Join(r.Reasons, ", "), r.Unresolvable
			}
			if got != c.why || never != c.never {
				t.Errorf("%q (unresolvable: %v), want %q (%v)", got, never, c.why, c.never)
			}
		})
	}
}
