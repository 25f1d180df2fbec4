package scheduler_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// TestBestCandidateIsBest compares what is found by looking at the most promising nodes first with looking at each node alone.
func TestBestCandidateIsBest(t *testing.T) {
	order := func(a, b *scheduler.Candidate) int {
		x, y := a.Victims[0], b.Victims[0]
		return cmp.Or(cmp.Compare(a.Violations, b.Violations), cmp.Compare(x.Priority, y.Priority), cmp.Compare(len(a.Victims), len(b.Victims)), y.Started().Compare(x.Started()))
	}
	found := 0
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 9))
		e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
		if err != nil {
			t.Fatal(err)
		}
		probe := &viewer{}
		other, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: append(plugins.Default(), scheduler.Weighted{Plugin: probe})})
		if err != nil {
			t.Fatal(err)
		}
		both := []*scheduler.Engine{e, other}
		for i := range 3 + r.IntN(8) {
			n := testNode(fmt.Sprint("n", i), pick(r, "a", "b"))
			n.Status.Allocatable = quantities(pick(r, "4", "6"), "8Gi", "pods", pick(r, "4", "110"), "example.com/gpu", "2")
			for _, e := range both {
				e.SetNode(n)
			}
		}
		if r.IntN(2) == 0 {
			b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "b"}}
			b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}
			for _, e := range both {
				e.SetPDB(b)
			}
		}
		pod := func(name string) *corev1.Pod {
			p := testPod(name, pick(r, "a", "b"))
			p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities(pick(r, "500m", "1", "2"), pick(r, "1Gi", "2Gi"))}}}
			if r.IntN(4) == 0 {
				p.Spec.Containers[0].Resources.Requests["example.com/gpu"] = quantities("1", "")[corev1.ResourceCPU]
			}
			priority := int32(r.IntN(3))
			p.Spec.Priority, p.Status.StartTime = &priority, &metav1.Time{Time: time.Unix(int64(r.IntN(5)), 0)}
			return p
		}
		for i := range 40 {
			p := scheduler.NewPod(pod(fmt.Sprint("p", i)))
			if d := e.Schedule(p); d.Fits() {
				other.Assign(p, d.Node)
			}
		}
		for i := range 10 {
			obj := pod(fmt.Sprint("q", i))
			if r.IntN(2) == 0 {
				away(term("a", pick(r, zoneKey, corev1.LabelHostname)))(obj)
			}
			high := int32(1 + r.IntN(3))
			obj.Spec.Priority = &high
			p := scheduler.NewPod(obj)
			d := other.Decide(p)
			if d.Fits() {
				continue
			}
			best, refused := probe.view.BestCandidate(p, &d, order)
			var want *scheduler.Candidate
			counts := map[string]int{}
			for name := range d.Resolvable.All() {
				alone := d
				for n := range d.Resolvable.All() {
					if n != name {
						alone.Resolvable = alone.Resolvable.Without(n)
					}
				}
				c, why := probe.view.BestCandidate(p, &alone, order)
				for reason, n := range why {
					counts[reason] += n
				}
				if c != nil && (want == nil || order(c, want) < 0) {
					want = c
				}
			}
			switch {
			case want == nil && best == nil:
				if fmt.Sprint(refused) != fmt.Sprint(counts) {
					t.Fatalf("seed %d: refused %v, node by node %v", seed, refused, counts)
				}
			case want == nil || best == nil || best.Node != want.Node || len(best.Victims) != len(want.Victims):
				t.Fatalf("seed %d: %+v, node by node %+v", seed, best, want)
			default:
				found++
			}
		}
	}
	if found < 50 {
		t.Errorf("%d candidates found: the cases say little", found)
	}
}

// TestNominatedPodOfNoConcern has pods with an anti-affinity to all pods: what is nominated is looked at only if one of them is in a topology domain.
func TestNominatedPodOfNoConcern(t *testing.T) {
	for _, within := range []bool{false, true} {
		e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
		if err != nil {
			t.Fatal(err)
		}
		nodes := []*corev1.Node{testNode("free", "a"), testNode("taken", "b")}
		nodes[0].Labels["rack"] = "1"
		if within {
			nodes[1].Labels["rack"] = "2"
		}
		for _, n := range nodes {
			e.SetNode(n)
		}
		apart := func(name string) *scheduler.Pod {
			p := testPod(name, "a")
			away(term("b", "rack"))(p)
			return scheduler.NewPod(p)
		}
		e.Assign(apart("there"), "taken")
		e.Nominate(apart("nominated"), "free")
		want := 2
		if within {
			want = 0
		}
		if d := e.Decide(scheduler.NewPod(testPod("asked", "b"))); d.Feasible != want {
			t.Errorf("another's node is in a domain: %v; %d nodes feasible (%s), want %d", within, d.Feasible, d.Message(), want)
		}
	}
}

// viewer keeps the view that it is given.
type viewer struct{ view *scheduler.View }

func (*viewer) Name() string { return "Viewer" }

func (v *viewer) Prepare(_ *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, _ *scheduler.Rejection) {
	v.view = view
	return j, nil
}
