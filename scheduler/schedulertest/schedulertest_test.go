package schedulertest_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/scheduler/schedulertest"
)

func must[P scheduler.Plugin](t *testing.T) func(P, error) func() scheduler.Plugin {
	return func(p P, err error) func() scheduler.Plugin {
		if err != nil {
			t.Fatal(err)
		}
		return func() scheduler.Plugin { return p }
	}
}

// TestPlugins runs the suite on all built-in rules, with default and other options.
func TestPlugins(t *testing.T) {
	for _, w := range plugins.Default() {
		t.Run(w.Plugin.Name(), func(t *testing.T) {
			t.Parallel()
			schedulertest.Run(t, func() scheduler.Plugin { return w.Plugin }, schedulertest.Options{Clusters: 4})
		})
	}
	five := int32(5)
	gpu := []plugins.ResourceWeight{{Name: "cpu"}, {Name: "example.com/gpu"}, {Name: "memory"}}
	for name, newPlugin := range map[string]func() scheduler.Plugin{
		"most allocated": must[plugins.NodeResourcesFit](t)(plugins.NewNodeResourcesFit(plugins.NodeResourcesFitOptions{
			IgnoredResources: []string{"example.com/gpu"}, Scoring: plugins.ScoringStrategy{Type: plugins.MostAllocated, Resources: gpu},
		})),
		"ratio": must[plugins.NodeResourcesFit](t)(plugins.NewNodeResourcesFit(plugins.NodeResourcesFitOptions{
			Scoring: plugins.ScoringStrategy{Type: plugins.RequestedToCapacityRatio, Resources: gpu, Shape: []plugins.ShapePoint{{Utilization: 30, Score: 1}, {Utilization: 60, Score: 10}}},
		})),
		"balanced": must[plugins.NodeResourcesBalancedAllocation](t)(plugins.NewNodeResourcesBalancedAllocation(plugins.NodeResourcesBalancedAllocationOptions{Resources: gpu})),
		"added affinity": must[plugins.NodeAffinity](t)(plugins.NewNodeAffinity(plugins.NodeAffinityOptions{AddedAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}}}},
			}},
		}})),
		"hard affinity": must[plugins.InterPodAffinity](t)(plugins.NewInterPodAffinity(plugins.InterPodAffinityOptions{HardPodAffinityWeight: &five, IgnorePreferredTermsOfExistingPods: true})),
		"spread by list": must[plugins.PodTopologySpread](t)(plugins.NewPodTopologySpread(plugins.PodTopologySpreadOptions{
			DefaultingType: plugins.ListDefaulting, DefaultConstraints: []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule}},
		})),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schedulertest.Run(t, newPlugin, schedulertest.Options{Clusters: 4})
		})
	}
}

// base is a rule that keeps its promises: pods go where their app's disk is, and prefer nodes with few pods.
type base struct{}

func (base) Name() string           { return "Base" }
func (base) Scope() scheduler.Scope { return scheduler.ScopeNodePods }

func (base) Sign(pod *scheduler.Pod, to []byte) []byte {
	return append(to, pod.Object.Labels["app"]...)
}

func (base) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	if (pod.Object.Labels["app"] == "a") == (node.Object.Labels["disk"] == "ssd") {
		return nil
	}
	return scheduler.Reject("another disk")
}

func (base) Score(_ *scheduler.Pod, node *scheduler.Node) int64 {
	return int64(max(100-10*node.Len(), 0))
}

func (base) Hint(_ *scheduler.Pod, c scheduler.ClusterChange) bool { return c.Node != nil }

type (
	nodeScope   struct{ base }
	signsLess   struct{ base }
	overwrites  struct{ base }
	deaf        struct{ base }
	tooMuch     struct{ base }
	zigzag      struct{ base }
	indifferent struct{ zigzag }
	random      struct{ base }
	modifies    struct{ base }
	panics      struct{ base }
	wild        struct{}
	relabels    struct{ base }
	sums        struct{}
	leaks       struct {
		base
		taken map[string]int64
	}
	stale struct {
		base
		seen map[string]int64
	}
)

func (nodeScope) Scope() scheduler.Scope                           { return scheduler.ScopeNode }
func (signsLess) Sign(_ *scheduler.Pod, to []byte) []byte          { return to }
func (overwrites) Sign(pod *scheduler.Pod, _ []byte) []byte        { return []byte(pod.Object.Labels["app"]) }
func (deaf) Hint(*scheduler.Pod, scheduler.ClusterChange) bool     { return false }
func (tooMuch) Score(_ *scheduler.Pod, node *scheduler.Node) int64 { return int64(101 * node.Len()) }
func (zigzag) Score(_ *scheduler.Pod, node *scheduler.Node) int64  { return int64(node.Len()) }
func (zigzag) Normalize(score, _, _ int64) int64                   { return 50 + score%2 }
func (zigzag) Indifferent(*scheduler.Pod) bool                     { return false }
func (indifferent) Normalize(score, _, greatest int64) int64       { return 100 * score / max(greatest, 1) }
func (indifferent) Indifferent(*scheduler.Pod) bool                { return true }
func (random) Score(*scheduler.Pod, *scheduler.Node) int64         { return rand.Int64N(100) }
func (panics) Score(_ *scheduler.Pod, node *scheduler.Node) int64  { return int64(1 / node.Len()) }
func (wild) Name() string                                          { return "Wild" }

func (modifies) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	node.Object.Annotations["seen"] = pod.Object.Name
	return nil
}

func (relabels) Score(pod *scheduler.Pod, _ *scheduler.Node) int64 {
	pod.Object.Labels["scored"] = "yes"
	return 0
}

// The sums are of something that depends on the pod, under an ID that doesn't tell: what was counted for another pod is used.
func (sums) Name() string { return "Sums" }

func (sums) Prepare(pod *scheduler.Pod, _ *scheduler.View) (scheduler.Judgement, *scheduler.Rejection) {
	mine := int64(len(pod.Object.Labels["app"]) + int(pod.Priority)%7 + len(pod.Object.Spec.Tolerations))
	return scheduler.Judgement{Domains: &scheduler.DomainJudgement{
		ID:   "sums",
		Sums: []scheduler.DomainSum{{Key: corev1.LabelTopologyZone, Amount: func(n *scheduler.Node) (int64, bool) { return mine * int64(n.Len()), true }}},
		Scores: func(places []scheduler.Place, scores []int64) {
			for i := range places {
				sum, _ := places[i].Sum(0)
				scores[i] = min(sum, scheduler.MaxScore)
			}
		},
	}}, nil
}

func (l leaks) Score(_ *scheduler.Pod, node *scheduler.Node) int64 {
	return max(100-l.taken[node.Object.Name], 0)
}

func (l leaks) Reserve(_ *scheduler.Pod, node *scheduler.Node, _ *scheduler.View) error {
	l.taken[node.Object.Name]++
	return nil
}

func (leaks) Unreserve(*scheduler.Pod, string, *scheduler.View) {}

func (s stale) Score(_ *scheduler.Pod, node *scheduler.Node) int64 {
	if _, ok := s.seen[node.Object.Name]; !ok {
		s.seen[node.Object.Name] = int64(node.Len())
	}
	return s.seen[node.Object.Name]
}

func (wild) Prepare(*scheduler.Pod, *scheduler.View) (scheduler.Judgement, *scheduler.Rejection) {
	return scheduler.Judgement{Scores: func(_ []*scheduler.Node, scores []int64) { scores[0] = -1 }}, nil
}

// TestBroken runs the suite on plugins that break one promise each, and on one that keeps them.
func TestBroken(t *testing.T) {
	for _, c := range []struct {
		plugin func() scheduler.Plugin
		want   string
	}{
		{func() scheduler.Plugin { return base{} }, ""},
		{func() scheduler.Plugin { return nodeScope{} }, "Scope: cluster"},
		{func() scheduler.Plugin { return nodeScope{} }, "CachedAsPlain: cluster"},
		{func() scheduler.Plugin { return signsLess{} }, "Sign: cluster"},
		{func() scheduler.Plugin { return signsLess{} }, "CachedAsPlain: cluster"},
		{func() scheduler.Plugin { return overwrites{} }, "Sign must append"},
		{func() scheduler.Plugin { return deaf{} }, "Hint says that nothing of what happened could help: Node"},
		{func() scheduler.Plugin { return tooMuch{} }, "want 0 to 100, or a Normalizer"},
		{func() scheduler.Plugin { return zigzag{} }, "is not monotonic"},
		{func() scheduler.Plugin { return indifferent{} }, "Indifferent to a pod, but scores nodes from"},
		{func() scheduler.Plugin { return random{} }, "Deterministic: cluster"},
		{func() scheduler.Plugin { return modifies{} }, "ModifiesNothing: cluster"},
		{func() scheduler.Plugin { return panics{} }, "panic: runtime error: integer divide by zero"},
		{func() scheduler.Plugin { return wild{} }, "scores from -1 to"},
		{func() scheduler.Plugin { return relabels{} }, "ModifiesNothing: cluster"},
		{func() scheduler.Plugin { return sums{} }, "AsExplained: cluster"},
		{func() scheduler.Plugin { return leaks{taken: map[string]int64{}} }, "Reserve: cluster"},
		{func() scheduler.Plugin { return stale{seen: map[string]int64{}} }, "CachedAsPlain: cluster"},
	} {
		p := c.plugin()
		err := schedulertest.Check(c.plugin, schedulertest.Options{Clusters: 5, Pod: func(_ *rand.Rand, p *corev1.Pod) { p.Spec.NodeName = "" }})
		if c.want == "" {
			if err != nil {
				t.Errorf("%T: %v", p, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%T: %v, want %s", p, err, c.want)
		}
	}
	if err := schedulertest.Check(nil, schedulertest.Options{Events: -1}); err == nil || !strings.Contains(err.Error(), "Options.Clusters") {
		t.Error(err)
	}
}
