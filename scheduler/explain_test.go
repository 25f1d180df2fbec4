package scheduler_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// randomCluster has nodes, namespaces and assigned pods with all features mixed.
func randomCluster(t testing.TB, r *rand.Rand, opts scheduler.EngineOptions) *scheduler.Engine {
	e, err := scheduler.NewEngine(opts)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 + r.IntN(12) {
		e.SetNode(randomNode(r))
	}
	for i := range r.IntN(30) {
		obj := randomPod(r, 1000+i)
		addPodRules(r, obj)
		e.Schedule(scheduler.NewPod(obj))
	}
	return e
}

// TestExplainAgrees compares explanations with decisions: the feasible set, the scores, the winner, and why others were rejected.
func TestExplainAgrees(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		e := randomCluster(t, r, scheduler.EngineOptions{Profile: plugins.Default(), Seed: seed + 1})
		for i := range 5 {
			obj := randomPod(r, i)
			addPodRules(r, obj)
			pod := scheduler.NewPod(obj)
			x := e.Explain(pod)
			if s := x.String(); !strings.HasPrefix(s, x.Pod.String()) {
				t.Fatalf("text: %s", s)
			}
			d := e.Schedule(pod)
			if err := agrees(x, &d); err != nil {
				t.Fatalf("seed %d: %v\n%+v\n%s", seed, err, d, x)
			}
		}
	}
}

// TestExplainInOrder: with the plugins in any order, the first of the profile that rejects a node says why.
func TestExplainInOrder(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 8))
		profile := plugins.Default()
		r.Shuffle(len(profile), func(i, k int) { profile[i], profile[k] = profile[k], profile[i] })
		e := randomCluster(t, r, scheduler.EngineOptions{Profile: profile, Seed: seed + 1})
		for i := range 5 {
			obj := randomPod(r, i)
			addPodRules(r, obj)
			pod := scheduler.NewPod(obj)
			x, d := e.Explain(pod), e.Decide(pod)
			if err := agrees(x, &d); err != nil {
				t.Fatalf("seed %d: %v\n%+v\n%s", seed, err, d, x)
			}
			if x.Rejection == nil && !d.Fits() {
				reasons := map[string]int{}
				for _, n := range x.Nodes {
					first := slices.IndexFunc(n.Verdicts, func(v scheduler.Verdict) bool { return v.Rejection != nil })
					for _, reason := range n.Verdicts[first].Rejection.Reasons {
						reasons[reason]++
					}
				}
				if !maps.Equal(reasons, d.Reasons) {
					t.Fatalf("seed %d: %v are the first reasons, decided by %v", seed, reasons, d.Reasons)
				}
			}
		}
	}
}

func agrees(x *scheduler.Explanation, d *scheduler.Decision) error {
	if x.Decision.Node != d.Node || x.Decision.Score != d.Score {
		return fmt.Errorf("explains %s with %d", x.Decision.Node, x.Decision.Score)
	}
	if x.Rejection != nil {
		if d.Fits() || d.Feasible > 0 {
			return fmt.Errorf("rejected by %s", x.Rejection.Plugin)
		}
		return nil
	}
	feasible := 0
	reasons := map[string]int{}
	for _, n := range x.Nodes {
		var sum int64
		first := true
		for _, v := range n.Verdicts {
			if v.Rejection != nil && first {
				first = false
				for _, reason := range v.Rejection.Reasons {
					reasons[reason]++
				}
			}
			if v.Normalized < 0 || v.Normalized > scheduler.MaxScore {
				return fmt.Errorf("%s: normalized %d", n.Node, v.Normalized)
			}
			sum += v.Weighted
		}
		if n.Feasible {
			feasible++
		}
		if n.Score != sum || n.Feasible && n.Score > d.Score {
			return fmt.Errorf("%s: score %d, plugins' sum %d", n.Node, n.Score, sum)
		}
	}
	if feasible != d.Feasible || len(x.Nodes) != d.Nodes {
		return fmt.Errorf("%d of %d feasible", feasible, len(x.Nodes))
	}
	if !d.Fits() {
		if x.Winner() != nil || fmt.Sprint(reasons) != fmt.Sprint(d.Reasons) {
			return fmt.Errorf("reasons %v", reasons)
		}
		return nil
	}
	if w := x.Winner(); w == nil || w.Node != d.Node || w.Score != d.Score {
		return fmt.Errorf("winner %+v", w)
	}
	if x.Margin() < 0 || x.Margin() == 0 && x.Best() < 2 && feasible > 1 || x.Margin() > 0 && x.Best() != 1 {
		return fmt.Errorf("margin %d, best %d", x.Margin(), x.Best())
	}
	n := 0
	for _, c := range x.Classes() {
		n += len(c.Nodes)
	}
	if n != len(x.Nodes) {
		return fmt.Errorf("%d nodes in classes", n)
	}
	return nil
}

// TestExplainNominated: pods yield to those for which room is being made, which go there; explanations say so, too.
func TestExplainNominated(t *testing.T) {
	yielded, nominated := 0, 0
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 8))
		e := randomCluster(t, r, scheduler.EngineOptions{Profile: plugins.Default(), Seed: seed + 1})
		for i := range 6 {
			obj := randomPod(r, 100+i)
			addPodRules(r, obj)
			pod := scheduler.NewPod(obj)
			before := e.Explain(pod)
			d := e.Decide(pod)
			if x := before; x.Decision.Node != d.Node {
				t.Fatalf("seed %d: explained %s, decided %s", seed, x.Decision.Node, d.Node)
			}
			if !d.Fits() {
				continue
			}
			e.Nominate(pod, d.Node)
			if x := e.Explain(pod); !x.Nominated || x.Winner() == nil || x.Winner().Node != d.Node || !strings.Contains(x.String(), "room was made") {
				t.Fatalf("seed %d: nominated for %s: %s", seed, d.Node, x)
			}
			nominated++
			other := randomPod(r, 200+i)
			addPodRules(r, other)
			p := scheduler.NewPod(other)
			x, alone := e.Explain(p), e.Fork()
			for _, n := range x.Nodes {
				for _, rival := range alone.NominatedPods(n.Node) {
					alone.Nominate(rival, "")
				}
			}
			if alone.Explain(p).Decision.Feasible > x.Decision.Feasible {
				yielded++
			}
			if err := agrees(x, new(e.Decide(p))); err != nil && x.Decision.Fits() {
				t.Fatalf("seed %d: %v\n%s", seed, err, x)
			}
		}
	}
	if yielded < 10 || nominated < 50 {
		t.Errorf("%d nominated, %d yielded", nominated, yielded)
	}
}

// TestExplainNobody: a pod that is no profile's, and a cluster without nodes.
func TestExplainNobody(t *testing.T) {
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profiles: []scheduler.NamedProfile{{Name: "mine", Plugins: plugins.Default()}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mine", "other"} {
		p := testPod("p", "web", func(p *corev1.Pod) { p.Spec.SchedulerName = name })
		if x := e.Explain(scheduler.NewPod(p)); x.Winner() != nil || !strings.HasPrefix(x.String(), "d/p ") {
			t.Errorf("%s: %s", name, x)
		}
	}
}

func TestExplainText(t *testing.T) {
	e := rulesEngine(t)
	e.Assign(scheduler.NewPod(testPod("1", "web")), "a1")
	cordoned := testNode("c1", "c")
	cordoned.Spec.Unschedulable = true
	e.SetNode(cordoned)
	p := testPod("p", "web", spreadOver("web", zoneKey), func(p *corev1.Pod) {
		p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: quantities("1", "2Gi")}}}
	})
	want := `d/p goes to b1, the only one of 5 nodes that can take it

Scores: the plugin's own figure > 0 to 100 x weight = points
PLUGIN                            b1
TaintToleration                   0 > 100 x 3 = 300
NodeResourcesFit                  75
NodeResourcesBalancedAllocation   75
total                             450

Rejected
NODES    PLUGIN              REASON                                                                          IF PODS LEFT
a1, a2   PodTopologySpread   node(s) didn't match pod topology spread constraints                            perhaps
c1       NodeUnschedulable   node(s) were unschedulable                                                      no
x        PodTopologySpread   node(s) didn't match pod topology spread constraints (missing required label)   no
`
	if got := e.Explain(scheduler.NewPod(p)).String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestFit: what-if sees the pods one after another, and nothing changes.
func TestFit(t *testing.T) {
	e := rulesEngine(t)
	var pods []*scheduler.Pod
	for i := range 6 {
		pods = append(pods, scheduler.NewPod(testPod(fmt.Sprint("p", i), "web", away(term("web", corev1.LabelHostname)))))
	}
	for range 2 {
		fit := 0
		seen := map[string]bool{}
		for _, d := range e.Fit(pods) {
			if d.Fits() {
				fit++
				seen[d.Node] = true
			}
		}
		if fit != 4 || len(seen) != 4 {
			t.Errorf("%d fit on %v, want 4 on 4 nodes", fit, seen)
		}
	}
	// The decisions are those that follow.
	would := e.Fit(pods[:3])
	for i, d := range would {
		if got := e.Schedule(pods[i]); got.Node != d.Node {
			t.Errorf("pod %d goes to %s, what-if said %s", i, got.Node, d.Node)
		}
	}
}
