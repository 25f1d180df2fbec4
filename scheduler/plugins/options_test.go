package plugins_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

func TestOptionsAreValidated(t *testing.T) {
	fit := func(o plugins.NodeResourcesFitOptions) error { _, err := plugins.NewNodeResourcesFit(o); return err }
	scoring := func(s plugins.ScoringStrategy) error { return fit(plugins.NodeResourcesFitOptions{Scoring: s}) }
	spread := func(o plugins.PodTopologySpreadOptions) error {
		_, err := plugins.NewPodTopologySpread(o)
		return err
	}
	near := func(weight int32) error {
		_, err := plugins.NewInterPodAffinity(plugins.InterPodAffinityOptions{HardPodAffinityWeight: &weight})
		return err
	}
	balanced := func(r ...plugins.ResourceWeight) error {
		_, err := plugins.NewNodeResourcesBalancedAllocation(plugins.NodeResourcesBalancedAllocationOptions{Resources: r})
		return err
	}
	affinity := func(a corev1.NodeAffinity) error {
		_, err := plugins.NewNodeAffinity(plugins.NodeAffinityOptions{AddedAffinity: &a})
		return err
	}
	constraint := corev1.TopologySpreadConstraint{MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.DoNotSchedule}
	with := func(mod func(*corev1.TopologySpreadConstraint)) error {
		c := constraint
		mod(&c)
		return spread(plugins.PodTopologySpreadOptions{DefaultingType: plugins.ListDefaulting, DefaultConstraints: []corev1.TopologySpreadConstraint{constraint, c}})
	}
	badTerm := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: "like"}}}
	for want, err := range map[string]error{
		`ignoredResourceGroups[0]: Invalid value: "a/b": resource group name can't contain '/'`:                                      fit(plugins.NodeResourcesFitOptions{IgnoredResourceGroups: []string{"a/b"}}),
		`ignoredResources[1]: Invalid value: "!"`:                                                                                    fit(plugins.NodeResourcesFitOptions{IgnoredResources: []string{"a/b", "!"}}),
		`scoringStrategy.type: Unsupported value: "Best": supported values: "LeastAllocated", "MostAllocated", "RequestedToCapacity`: scoring(plugins.ScoringStrategy{Type: "Best"}),
		`scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]`:                scoring(plugins.ScoringStrategy{Resources: []plugins.ResourceWeight{{Name: "cpu", Weight: 101}}}),
		`scoringStrategy.requestedToCapacityRatio.shape: Required value: at least one point must be specified`:                       scoring(plugins.ScoringStrategy{Type: plugins.RequestedToCapacityRatio}),
		`scoringStrategy.requestedToCapacityRatio: Forbidden: must be nil when type is not RequestedToCapacityRatio`:                 scoring(plugins.ScoringStrategy{Shape: []plugins.ShapePoint{{}}}),
		`shape[1].utilization: Invalid value: 5: values must be sorted in increasing order`:                                          scoring(plugins.ScoringStrategy{Type: plugins.RequestedToCapacityRatio, Shape: []plugins.ShapePoint{{Utilization: 5}, {Utilization: 5}}}),
		`shape[0].score: Invalid value: 11: not in valid range [0, 10]`:                                                              scoring(plugins.ScoringStrategy{Type: plugins.RequestedToCapacityRatio, Shape: []plugins.ShapePoint{{Score: 11}}}),
		`shape[0].utilization: Invalid value: 101: not in valid range [0, 100]`:                                                      scoring(plugins.ScoringStrategy{Type: plugins.RequestedToCapacityRatio, Shape: []plugins.ShapePoint{{Utilization: 101}}}),
		`resources[1].name: Duplicate value: "cpu"`:                                                                                  balanced(plugins.ResourceWeight{Name: "cpu"}, plugins.ResourceWeight{Name: "cpu"}),
		`resources[0].weight: Invalid value: 2: must be 1`:                                                                           balanced(plugins.ResourceWeight{Name: "cpu", Weight: 2}),
		`hardPodAffinityWeight: Invalid value: -1: not in valid range [0, 100]`:                                                      near(-1),
		`defaultingType: Unsupported value: "Some": supported values: "System", "List"`:                                              spread(plugins.PodTopologySpreadOptions{DefaultingType: "Some"}),
		`defaultingType: Invalid value: "System": when .defaultConstraints are not empty`:                                            spread(plugins.PodTopologySpreadOptions{DefaultConstraints: []corev1.TopologySpreadConstraint{constraint}}),
		`defaultConstraints[1]: Duplicate value: "{zone, DoNotSchedule}"`:                                                            with(func(*corev1.TopologySpreadConstraint) {}),
		`defaultConstraints[1].maxSkew: Invalid value: 0: not in valid range (0, inf)`:                                               with(func(c *corev1.TopologySpreadConstraint) { c.MaxSkew = 0 }),
		`defaultConstraints[1].topologyKey: Required value: can not be empty`:                                                        with(func(c *corev1.TopologySpreadConstraint) { c.TopologyKey = "" }),
		`defaultConstraints[1].whenUnsatisfiable: Required value: can not be empty`:                                                  with(func(c *corev1.TopologySpreadConstraint) { c.WhenUnsatisfiable = "" }),
		`defaultConstraints[1].whenUnsatisfiable: Unsupported value: "Never": supported values: "DoNotSchedule", "ScheduleAnyway"`:   with(func(c *corev1.TopologySpreadConstraint) { c.WhenUnsatisfiable = "Never" }),
		`defaultConstraints[1].labelSelector: Forbidden: constraint must not define a selector, as they deduced for each pod`:        with(func(c *corev1.TopologySpreadConstraint) { c.LabelSelector = &metav1.LabelSelector{} }),
		`addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Unsupported value: "like"`: affinity(corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{badTerm}},
		}),
		`addedAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].matchExpressions[0].operator: Unsupported value: "like"`: affinity(corev1.NodeAffinity{
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: badTerm}},
		}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant  %s", err, want)
		}
	}
}

func TestAddedAffinity(t *testing.T) {
	ssd := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}}}}
	hdd := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"hdd"}}}}
	required := func(terms ...corev1.NodeSelectorTerm) *corev1.NodeSelector {
		return &corev1.NodeSelector{NodeSelectorTerms: terms}
	}
	p, err := plugins.NewNodeAffinity(plugins.NodeAffinityOptions{AddedAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution:  required(hdd),
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 7, Preference: ssd}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	n, pod := oneNode(t, "cpu=1"), scheduler.NewPod(podOf(t, ""))
	if r := p.Filter(pod, n); r == nil || r.Reasons[0] != "node(s) didn't match scheduler-enforced node affinity" || !r.Unresolvable {
		t.Errorf("rejection %+v", r)
	}
	if got := p.Score(pod, n); got != 7 || p.Indifferent(pod) {
		t.Errorf("score %d", got)
	}
	named := func(names ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"n"}},
			{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: names},
		}}
	}
	for _, c := range []struct {
		terms    []corev1.NodeSelectorTerm
		conflict bool
	}{
		{[]corev1.NodeSelectorTerm{named("m")}, true},
		{[]corev1.NodeSelectorTerm{named("m"), named("o")}, true},
		{[]corev1.NodeSelectorTerm{named("m"), named("n")}, false},
		{[]corev1.NodeSelectorTerm{named("m"), ssd}, false},
	} {
		pod := podOf(t, "")
		pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required(c.terms...)}}
		if r := (plugins.NodeAffinity{}).PreFilter(scheduler.NewPod(pod)); (r != nil) != c.conflict {
			t.Errorf("%v: %+v", c.terms, r)
		}
	}
}

// zones has an engine with nodes a and b in zones of their names.
func zones(t *testing.T, p ...scheduler.Plugin) *scheduler.Engine {
	t.Helper()
	profile := scheduler.Profile{}
	for _, p := range p {
		profile = append(profile, scheduler.Weighted{Plugin: p})
	}
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: profile})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		e.SetNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"zone": name}}})
	}
	return e
}

func labelled(name string, mods ...func(*corev1.Pod)) *scheduler.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Namespace: "d", Labels: map[string]string{"app": "web"}}}
	for _, m := range mods {
		m(p)
	}
	return scheduler.NewPod(p)
}

func TestInterPodAffinityOptions(t *testing.T) {
	term := corev1.PodAffinityTerm{TopologyKey: "zone", LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}
	hard := labelled("hard", func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}
	})
	soft := func(weight int32) *scheduler.Pod {
		return labelled("soft", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: weight, PodAffinityTerm: term}}}}
		})
	}
	weight := func(n int32) *int32 { return &n }
	for _, c := range []struct {
		name string
		opts plugins.InterPodAffinityOptions
		pod  *scheduler.Pod
		want string // where it goes for sure
	}{
		{name: "a hard term weighs 1 by default", pod: labelled("p"), want: "b"},
		{name: "a hard term can weigh more", opts: plugins.InterPodAffinityOptions{HardPodAffinityWeight: weight(3)}, pod: labelled("p"), want: "a"},
		{name: "existing preferences are ignored", opts: plugins.InterPodAffinityOptions{IgnorePreferredTermsOfExistingPods: true}, pod: labelled("p"), want: ""},
		{name: "but not for pods with their own", opts: plugins.InterPodAffinityOptions{IgnorePreferredTermsOfExistingPods: true}, pod: soft(1), want: "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plugins.NewInterPodAffinity(c.opts)
			if err != nil {
				t.Fatal(err)
			}
			e := zones(t, p)
			e.Assign(hard, "a")
			e.Assign(soft(2), "b")
			d := e.Decide(c.pod)
			if c.want == "" {
				if d.Score != 0 {
					t.Errorf("score %d", d.Score)
				}
			} else if d.Node != c.want || d.Score != 100 {
				t.Errorf("chose %s with %d, want %s", d.Node, d.Score, c.want)
			}
		})
	}
}

func TestDefaultSpreadConstraints(t *testing.T) {
	p, err := plugins.NewPodTopologySpread(plugins.PodTopologySpreadOptions{DefaultingType: plugins.ListDefaulting, DefaultConstraints: []corev1.TopologySpreadConstraint{
		{MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.DoNotSchedule},
	}})
	if err != nil {
		t.Fatal(err)
	}
	e := zones(t, p)
	yes := true
	owned := func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "set", Controller: &yes}}
	}
	e.SetReplicaSet(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "set"}, Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}})
	e.Assign(labelled("1", owned), "a")
	waits := labelled("2", owned)
	if d := e.Decide(waits); d.Node != "b" || d.Feasible != 1 {
		t.Errorf("%+v", d)
	}
	if d := e.Decide(labelled("3")); d.Feasible != 2 {
		t.Errorf("of no set: %+v", d)
	}
	if !p.Hint(waits, scheduler.ClusterChange{FreedPod: labelled("1")}) || p.Hint(waits, scheduler.ClusterChange{FreedPod: labelled("1", func(p *corev1.Pod) { p.Namespace = "e" })}) {
		t.Error("pods of the same namespace count, of others they don't")
	}
	none, err := plugins.NewPodTopologySpread(plugins.PodTopologySpreadOptions{DefaultingType: plugins.ListDefaulting})
	if err != nil {
		t.Fatal(err)
	}
	e = zones(t, none)
	e.SetReplicaSet(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "set"}, Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}})
	e.Assign(labelled("1", owned), "a")
	if d := e.Decide(waits); d.Score != 0 || d.Feasible != 2 {
		t.Errorf("without defaults: %+v", d)
	}
}
