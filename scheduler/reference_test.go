package scheduler_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// reference asks every plugin about every node for every pod, from the objects alone.
type reference struct {
	profile scheduler.Profile
	nodes   map[string]*corev1.Node
	pods    map[types.UID]*corev1.Pod // by UID, with the node's name set
	// namespaces' labels
	namespaces map[string]map[string]string
	// services' selectors and sets, by name; all are in namespace d
	services map[string]map[string]string
	sets     map[string]*metav1.LabelSelector
	// waiting pods, where those are nominated that are, and budgets, by name; all budgets are in namespace d
	waiting   map[types.UID]*corev1.Pod
	nominated map[types.UID]string
	pdbs      map[string]*policyv1.PodDisruptionBudget
	// began is the cluster before pods were removed on trial; aloof leaves affinity between pods out.
	began *reference
	aloof bool
}

func newReference() *reference {
	return &reference{
		profile: plugins.Default(), nodes: map[string]*corev1.Node{}, pods: map[types.UID]*corev1.Pod{}, namespaces: map[string]map[string]string{},
		services: map[string]map[string]string{}, sets: map[string]*metav1.LabelSelector{},
		waiting: map[types.UID]*corev1.Pod{}, nominated: map[types.UID]string{}, pdbs: map[string]*policyv1.PodDisruptionBudget{},
	}
}

func labelsOf(p *corev1.Pod) labels.Set { return p.Labels }

// invariants: the engine has the same pods on the same nodes, and no node is over what it has.
func (r *reference) invariants(t *testing.T, e *scheduler.Engine) {
	t.Helper()
	count := 0
	for name := range r.nodes {
		n := e.Node(name)
		var used scheduler.Resources
		n.Pods(func(p *scheduler.Pod) bool {
			count++
			if r.pods[p.Object.UID] == nil || r.pods[p.Object.UID].Spec.NodeName != name {
				t.Fatalf("%s is on %s", p.Object.UID, name)
			}
			used.Add(&p.Requests, 1)
			return true
		})
		if !n.Requested.Equal(&used) {
			t.Fatalf("%s: requested %v, counted %v", name, used, n.Requested)
		}
	}
	for _, p := range r.pods {
		if r.nodes[p.Spec.NodeName] != nil {
			count--
		}
	}
	if count != 0 {
		t.Fatalf("%d pods too many on nodes", count)
	}
}

// decide returns the feasible nodes with their scores, and the reasons of the others.
func (r *reference) decide(pod *corev1.Pod) (map[string]int64, map[string]int) {
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: r.profile})
	if err != nil {
		panic(err)
	}
	for _, n := range r.nodes {
		e.SetNode(n)
	}
	for _, p := range r.pods {
		e.Assign(scheduler.NewPod(p), p.Spec.NodeName)
	}
	p := scheduler.NewPod(pod)
	scores := map[string]int64{}
	why := map[string]int{}
	for name, n := range r.nodes {
		reasons := r.reasons(e, p, n)
		for _, reason := range reasons {
			why[reason]++
		}
		if reasons == nil {
			scores[name] = 0
		}
	}
	r.addAffinity(pod, scores)
	r.addSpread(pod, scores)
	r.addImages(pod, scores)
	for _, w := range r.profile {
		s, ok := w.Plugin.(scheduler.ScorePlugin)
		if !ok {
			continue
		}
		raw := map[string]int64{}
		for name := range scores {
			raw[name] = s.Score(p, e.Node(name))
		}
		if n, ok := w.Plugin.(scheduler.Normalizer); ok {
			if n.Indifferent(p) {
				continue
			}
			var all []int64
			for _, v := range raw {
				all = append(all, v)
			}
			for name := range raw {
				raw[name] = n.Normalize(raw[name], slices.Min(all), slices.Max(all))
			}
		}
		for name, v := range raw {
			scores[name] += max(w.Weight, 1) * v
		}
	}
	return scores, why
}

// TestEngineAgainstReference mixes all features on small clusters and compares every decision.
func TestEngineAgainstReference(t *testing.T) {
	for seed := range seeds(t, 600) {
		r := rand.New(rand.NewPCG(seed, 99))
		ref := newReference()
		e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default(), Seed: seed + 1, AnswerBytes: 600})
		if err != nil {
			t.Fatal(err)
		}
		for step := range 150 {
			switch r.IntN(14) {
			case 0, 1:
				n := randomNode(r)
				ref.nodes[n.Name] = n
				e.SetNode(n)
			case 2:
				name := fmt.Sprint("n", r.IntN(8))
				delete(ref.nodes, name)
				e.DeleteNode(name)
			case 3:
				for uid := range ref.pods {
					delete(ref.pods, uid)
					e.Remove(uid)
					break
				}
			case 4:
				ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: pick(r, "d", "e"), Labels: map[string]string{"team": pick(r, "x", "y")}}}
				ref.namespaces[ns.Name] = ns.Labels
				e.SetNamespace(ns)
			case 5:
				for uid, p := range ref.pods {
					p = p.DeepCopy()
					p.Labels, p.DeletionTimestamp = randomLabels(r), pick(r, nil, &metav1.Time{})
					ref.pods[uid] = p
					e.Assign(scheduler.NewPod(p), p.Spec.NodeName)
					break
				}
			case 6:
				changeService(r, ref, e)
			case 7:
				changeSet(r, ref, e)
			default:
				obj := randomPod(r, step)
				addPodRules(r, obj)
				want, why := ref.decide(obj)
				if r.IntN(20) == 0 {
					e = e.Fork()
				}
				pod := scheduler.NewPod(obj)
				d := e.Schedule(pod)
				if d.Nodes != len(ref.nodes) || d.Fits() != (len(want) > 0) || d.Fits() && d.Feasible != len(want) {
					t.Fatalf("seed %d step %d: %+v, want feasible %v", seed, step, d, want)
				}
				if !d.Fits() {
					if len(ref.nodes) > 0 && !maps.Equal(d.Reasons, why) {
						t.Fatalf("seed %d step %d: reasons %v, want %v", seed, step, d.Reasons, why)
					}
					continue
				}
				best := int64(-1)
				for _, v := range want {
					best = max(best, v)
				}
				if d.Score != best || want[d.Node] != best {
					t.Fatalf("seed %d step %d: chose %s with %d (reference %d), best is %d of %v", seed, step, d.Node, d.Score, want[d.Node], best, want)
				}
				obj.Spec.NodeName = d.Node
				ref.pods[obj.UID] = obj
			}
		}
	}
}

// seeds is how many histories a test goes through: KEELSON_CASES times as many as it does without, a tenth in a short run.
func seeds(t *testing.T, n uint64) uint64 {
	t.Helper()
	if testing.Short() {
		n /= 10
	}
	s := os.Getenv("KEELSON_CASES")
	if s == "" {
		return n
	}
	times, err := strconv.ParseUint(s, 10, 32)
	if err != nil || times == 0 {
		t.Fatalf("KEELSON_CASES: want a positive number, got %q", s)
	}
	return n * times
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func quantities(cpu, mem string, extra ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for name, q := range map[corev1.ResourceName]string{corev1.ResourceCPU: cpu, corev1.ResourceMemory: mem} {
		if q != "" {
			l[name] = resource.MustParse(q)
		}
	}
	for i := 0; i+1 < len(extra); i += 2 {
		l[corev1.ResourceName(extra[i])] = resource.MustParse(extra[i+1])
	}
	return l
}

func randomNode(r *rand.Rand) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", r.IntN(8)), Labels: map[string]string{
		"zone": pick(r, "a", "b"), "disk": pick(r, "ssd", "hdd"), "size": pick(r, "1", "5"),
	}}}
	n.Spec.Unschedulable = r.IntN(8) == 0
	for range r.IntN(3) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{
			Key: pick(r, "k1", "k2"), Value: pick(r, "", "v"),
			Effect: pick(r, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute),
		})
	}
	n.Status.Allocatable = quantities(pick(r, "1", "4"), pick(r, "1Gi", "8Gi"), "pods", pick(r, "3", "20"))
	if r.IntN(3) == 0 {
		n.Status.Allocatable["example.com/gpu"] = resource.MustParse("2")
	}
	if r.IntN(2) == 0 {
		n.Status.Images = []corev1.ContainerImage{{Names: []string{"app:latest"}, SizeBytes: int64(r.IntN(2000)) << 20}}
	}
	n.Labels[corev1.LabelTopologyZone] = pick(r, "za", "zb", "zc")
	if r.IntN(8) == 0 {
		delete(n.Labels, pick(r, "zone", "disk", corev1.LabelTopologyZone))
	}
	if r.IntN(8) > 0 {
		n.Labels[corev1.LabelHostname] = n.Name
	}
	return n
}

func randomPod(r *rand.Rand, i int) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Namespace: "d", UID: types.UID(fmt.Sprint("u", i))}}
	c := corev1.Container{Image: pick(r, "app", "other:1")}
	switch r.IntN(4) {
	case 0:
	case 1:
		c.Resources.Requests = quantities(pick(r, "100m", "1500m"), pick(r, "100Mi", "2Gi"))
	case 2:
		c.Resources.Requests = quantities("", "300Mi")
	case 3:
		c.Resources.Requests = quantities("200m", "", "example.com/gpu", "1")
	}
	if r.IntN(6) == 0 {
		c.Ports = []corev1.ContainerPort{{HostPort: int32(8000 + r.IntN(2)), HostIP: pick(r, "", "10.0.0.1", "10.0.0.2")}}
	}
	p.Spec.Containers = []corev1.Container{c}
	if r.IntN(5) == 0 {
		p.Spec.InitContainers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities("2", "")}}}
	}
	if r.IntN(5) == 0 {
		p.Spec.NodeSelector = map[string]string{"zone": pick(r, "a", "b")}
	}
	if r.IntN(4) == 0 {
		p.Spec.Tolerations = []corev1.Toleration{{Key: pick(r, "k1", "k2", ""), Operator: corev1.TolerationOpExists, Effect: pick(r, "", corev1.TaintEffectNoSchedule)}}
	}
	term := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{pick(r,
		corev1.NodeSelectorRequirement{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}},
		corev1.NodeSelectorRequirement{Key: "size", Operator: corev1.NodeSelectorOpGt, Values: []string{"2"}},
		corev1.NodeSelectorRequirement{Key: "zone", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"a"}},
	)}}
	if r.IntN(5) == 0 {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}}}}
	} else if r.IntN(4) == 0 {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: int32(1 + r.IntN(100)), Preference: term}}}}
	}
	return p
}

// TestMessages compares what is said of pods that fit nowhere with kube-scheduler's words.
func TestMessages(t *testing.T) {
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
	if err != nil {
		t.Fatal(err)
	}
	for i, mod := range []func(*corev1.Node){
		func(n *corev1.Node) { n.Spec.Unschedulable = true },
		func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}} },
		func(n *corev1.Node) { n.Status.Allocatable = quantities("1", "1Mi", "pods", "10") },
		func(n *corev1.Node) { n.Status.Allocatable = quantities("1", "1Gi", "pods", "0") },
		func(n *corev1.Node) { n.Labels["disk"] = "hdd" },
	} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i), Labels: map[string]string{"disk": "ssd"}}}
		n.Status.Allocatable = quantities("4", "4Gi", "pods", "10")
		mod(n)
		e.SetNode(n)
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}
	p.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities("2", "1Gi")}}}
	d := e.Decide(scheduler.NewPod(p))
	want := "0/5 nodes are available: 1 Insufficient memory, 1 Too many pods, 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu."
	if got := d.Message(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}}
	d = e.Decide(scheduler.NewPod(p))
	if d.Fits() || len(d.Plugins) != 1 || d.Plugins[0] != "SchedulingGates" {
		t.Errorf("gated: %+v", d)
	}
}
