package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

const (
	zoneKey  = "topology.kubernetes.io/zone"
	affine   = "node(s) didn't match pod affinity rules"
	anti     = "node(s) didn't match pod anti-affinity rules"
	existing = "node(s) didn't satisfy existing pods anti-affinity rules"
	skewed   = "node(s) didn't match pod topology spread constraints"
	unkeyed  = "node(s) didn't match pod topology spread constraints (missing required label)"
)

type podMod func(*corev1.Pod)

func testPod(name, app string, mods ...podMod) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "d", UID: types.UID(name), Labels: map[string]string{"app": app}}}
	for _, m := range mods {
		m(p)
	}
	return p
}

func in(ns string) podMod        { return func(p *corev1.Pod) { p.Namespace = ns } }
func dying(p *corev1.Pod)        { p.DeletionTimestamp = &metav1.Time{} }
func rev(revision string) podMod { return func(p *corev1.Pod) { p.Labels["rev"] = revision } }

func term(app, key string) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, TopologyKey: key}
}

// weighted prefers, by the weight, to be where its terms say, or not there if it is negative.
func weighted(weight int32, terms ...corev1.PodAffinityTerm) podMod {
	return func(p *corev1.Pod) {
		var all []corev1.WeightedPodAffinityTerm
		for _, t := range terms {
			all = append(all, corev1.WeightedPodAffinityTerm{Weight: max(weight, -weight), PodAffinityTerm: t})
		}
		if p.Spec.Affinity = (&corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: all}}); weight < 0 {
			p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: all}}
		}
	}
}

func near(terms ...corev1.PodAffinityTerm) podMod {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
	}
}

func away(terms ...corev1.PodAffinityTerm) podMod {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
	}
}

func spreadOver(app, key string, mods ...func(*corev1.TopologySpreadConstraint)) podMod {
	return func(p *corev1.Pod) {
		c := corev1.TopologySpreadConstraint{MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: term(app, key).LabelSelector}
		for _, m := range mods {
			m(&c)
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
	}
}

func claiming(name string) podMod {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
	}
}

// rulesEngine has nodes a1, a2 in zone a, b1 in zone b, and x without zone.
func rulesEngine(t testing.TB) *scheduler.Engine {
	e, err := scheduler.NewEngine(scheduler.EngineOptions{Profile: plugins.Default()})
	if err != nil {
		t.Fatal(err)
	}
	for name, zone := range map[string]string{"a1": "a", "a2": "a", "b1": "b", "x": ""} {
		e.SetNode(testNode(name, zone))
	}
	return e
}

func testNode(name, zone string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	if zone != "" {
		n.Labels[zoneKey] = zone
	}
	n.Status.Allocatable = quantities("4", "8Gi", "pods", "100")
	return n
}

// fits tries each node alone, on a fork whose other nodes are cordoned, and so says where the pod could go.
func fits(e *scheduler.Engine, p *corev1.Pod) string {
	var ok []string
	for _, name := range []string{"a1", "a2", "b1", "x"} {
		f := e.Fork()
		for _, other := range []string{"a1", "a2", "b1", "x"} {
			if other != name {
				n := f.Node(other).Object.DeepCopy()
				n.Spec.Unschedulable = true
				f.SetNode(n)
			}
		}
		if d := f.Decide(scheduler.NewPod(p)); d.Fits() {
			ok = append(ok, d.Node)
		}
	}
	return strings.Join(ok, " ")
}

func TestPodRules(t *testing.T) {
	minDomains := int32(3)
	teamX := term("web", zoneKey)
	teamX.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}}
	sameRev := term("web", zoneKey)
	sameRev.MatchLabelKeys = []string{"rev"}
	for _, c := range []struct {
		name   string
		placed map[string][]*corev1.Pod
		pod    *corev1.Pod
		fits   string
		// message of what doesn't fit at all
		message string
	}{
		{name: "affinity", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web")}}, pod: testPod("p", "db", near(term("web", zoneKey))), fits: "a1 a2"},
		{name: "affinity to nobody", pod: testPod("p", "db", near(term("web", zoneKey))), message: "4 " + affine},
		{name: "first of a group", pod: testPod("p", "web", near(term("web", zoneKey))), fits: "a1 a2 b1"},
		{
			name: "group exists", placed: map[string][]*corev1.Pod{"b1": {testPod("1", "web")}},
			pod: testPod("p", "web", near(term("web", zoneKey))), fits: "b1",
		},
		{
			name: "group exists where there is no domain: still the first", placed: map[string][]*corev1.Pod{"x": {testPod("1", "web")}},
			pod: testPod("p", "web", near(term("web", zoneKey))), fits: "a1 a2 b1",
		},
		{
			name: "other namespace", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web", in("e"))}},
			pod: testPod("p", "db", near(term("web", zoneKey))), message: "4 " + affine,
		},
		{
			name: "namespace selector", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web", in("e"))}, "b1": {testPod("2", "web", in("f"))}},
			pod: testPod("p", "db", near(teamX)), fits: "a1 a2",
		},
		{
			name: "matchLabelKeys", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web", rev("1"))}, "b1": {testPod("2", "web", rev("2"))}},
			pod: testPod("p", "web", rev("2"), away(sameRev)), fits: "a1 a2 x",
		},
		{name: "anti-affinity", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web")}}, pod: testPod("p", "db", away(term("web", zoneKey))), fits: "b1 x"},
		{
			name: "anti-affinity counts those that end", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web", dying)}},
			pod: testPod("p", "db", away(term("web", zoneKey))), fits: "b1 x",
		},
		{
			name: "existing anti-affinity", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web", away(term("db", zoneKey)))}},
			pod: testPod("p", "db"), fits: "b1 x",
		},
		{
			name: "all three", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web", away(term("db", corev1.LabelHostname)))}, "a2": {testPod("2", "db")}},
			pod: testPod("p", "db", near(term("web", zoneKey)), func(p *corev1.Pod) {
				p.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term("db", corev1.LabelHostname)}}
			}),
			message: "1 " + anti + ", 1 " + existing + ", 2 " + affine,
		},
		{name: "spread", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web")}}, pod: testPod("p", "web", spreadOver("web", zoneKey)), fits: "b1"},
		{
			name: "spread ignores those that end", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web", dying)}},
			pod: testPod("p", "web", spreadOver("web", zoneKey)), fits: "a1 a2 b1",
		},
		{
			name: "spread of others", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web")}},
			pod: testPod("p", "db", spreadOver("web", zoneKey)), fits: "a1 a2 b1",
		},
		{
			name: "minDomains", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web")}, "b1": {testPod("2", "web")}},
			pod:     testPod("p", "web", spreadOver("web", zoneKey, func(c *corev1.TopologySpreadConstraint) { c.MinDomains = &minDomains })),
			message: "1 " + unkeyed + ", 3 " + skewed,
		},
		{
			name: "node affinity is honoured", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web")}},
			pod: testPod("p", "web", spreadOver("web", zoneKey), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{zoneKey: "a"} }), fits: "a1 a2",
		},
		{
			name: "node affinity is ignored", placed: map[string][]*corev1.Pod{"a1": {testPod("1", "web")}},
			pod: testPod("p", "web", spreadOver("web", zoneKey, func(c *corev1.TopologySpreadConstraint) {
				ignore := corev1.NodeInclusionPolicyIgnore
				c.NodeAffinityPolicy = &ignore
			}), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{zoneKey: "a"} }),
			message: "2 node(s) didn't match Pod's node affinity/selector, 2 " + skewed,
		},
		{name: "no claim", pod: testPod("p", "web", claiming("none")), message: `persistentvolumeclaim "none" not found`},
		{name: "unbound claim", pod: testPod("p", "web", claiming("unbound")), message: "pod has unbound immediate PersistentVolumeClaims"},
		{name: "waiting claim", pod: testPod("p", "web", claiming("late")), message: "4 node(s) didn't find available persistent volumes to bind"},
		{name: "bound claim", pod: testPod("p", "web", claiming("local")), fits: "b1"},
		{
			name: "bound elsewhere", pod: testPod("p", "web", claiming("local"), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{zoneKey: "a"} }),
			message: "2 node(s) didn't match PersistentVolume's node affinity, 2 node(s) didn't match Pod's node affinity/selector",
		},
		{
			name: "claim for one pod", placed: map[string][]*corev1.Pod{"b1": {testPod("1", "web", claiming("single"))}},
			pod: testPod("p", "web", claiming("single")), message: "4 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
		},
		{
			name: "claim for many", placed: map[string][]*corev1.Pod{"b1": {testPod("1", "web", claiming("local"))}},
			pod: testPod("p", "web", claiming("local")), fits: "b1",
		},
		{name: "no volume", pod: testPod("p", "web", claiming("broken")), message: `persistentvolume "gone" not found`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := rulesEngine(t)
			for name, team := range map[string]string{"d": "z", "e": "x", "f": "y"} {
				e.SetNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team}}})
			}
			setVolumes(e)
			for node, pods := range c.placed {
				for _, p := range pods {
					e.Assign(scheduler.NewPod(p), node)
				}
			}
			if c.message == "" {
				// Cordoned nodes still count for affinity and spread: only the choice is narrowed.
				if got := fits(e, c.pod); got != c.fits {
					t.Errorf("fits %q, want %q", got, c.fits)
				}
				return
			}
			d := e.Decide(scheduler.NewPod(c.pod))
			if want := "0/4 nodes are available: " + c.message + "."; d.Message() != want {
				t.Errorf("got  %s\nwant %s", d.Message(), want)
			}
		})
	}
}

func setVolumes(e *scheduler.Engine) {
	late := storagev1.VolumeBindingWaitForFirstConsumer
	e.SetStorageClass(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "late"}, VolumeBindingMode: &late})
	for name, volume := range map[string]string{"unbound": "", "late": "", "local": "pv", "single": "pv", "broken": "gone"} {
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name}}
		claim.Spec.VolumeName = volume
		if volume != "" {
			claim.Annotations = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
		}
		if name == "single" {
			claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
		}
		if name == "late" {
			claim.Spec.StorageClassName = &claim.Name
		}
		e.SetClaim(claim)
	}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}}
	pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"b1"}}},
	}}}}
	e.SetVolume(pv)
}

// TestPodRuleHints says which changes wake a pod that the rules about other pods rejected.
func TestPodRuleHints(t *testing.T) {
	e := rulesEngine(t)
	affinePod := scheduler.NewPod(testPod("p", "db", near(term("web", zoneKey))))
	antiPod := scheduler.NewPod(testPod("q", "db", away(term("web", zoneKey))))
	spreadPod := scheduler.NewPod(testPod("r", "web", spreadOver("web", zoneKey)))
	volumePod := scheduler.NewPod(testPod("s", "web", claiming("c")))
	plain := scheduler.NewPod(testPod("t", "db"))
	web, other := scheduler.NewPod(testPod("w", "web")), scheduler.NewPod(testPod("o", "other"))
	hostile := scheduler.NewPod(testPod("h", "other", away(term("db", zoneKey))))
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "c"}}
	for i, c := range []struct {
		pod    *scheduler.Pod
		plugin string
		change scheduler.ClusterChange
		want   bool
	}{
		{affinePod, "InterPodAffinity", scheduler.ClusterChange{AssignedPod: web}, true},
		{affinePod, "InterPodAffinity", scheduler.ClusterChange{AssignedPod: other}, false},
		{affinePod, "InterPodAffinity", scheduler.ClusterChange{AssignedPod: web, OldPod: other}, true},
		{affinePod, "InterPodAffinity", scheduler.ClusterChange{FreedPod: other}, false},
		{antiPod, "InterPodAffinity", scheduler.ClusterChange{FreedPod: web}, true},
		{antiPod, "InterPodAffinity", scheduler.ClusterChange{AssignedPod: web}, false},
		{plain, "InterPodAffinity", scheduler.ClusterChange{FreedPod: hostile}, true},
		{plain, "InterPodAffinity", scheduler.ClusterChange{FreedPod: web}, false},
		{affinePod, "InterPodAffinity", e.SetNode(testNode("new", "c")), true},
		{affinePod, "InterPodAffinity", e.SetNode(testNode("unzoned", "")), false},
		{spreadPod, "PodTopologySpread", scheduler.ClusterChange{AssignedPod: web}, true},
		{spreadPod, "PodTopologySpread", scheduler.ClusterChange{AssignedPod: other}, false},
		{spreadPod, "PodTopologySpread", scheduler.ClusterChange{AssignedPod: scheduler.NewPod(testPod("w", "web", dying)), OldPod: web}, true},
		{spreadPod, "PodTopologySpread", e.DeleteNode("new"), true},
		{spreadPod, "PodTopologySpread", e.DeleteNode("unzoned"), false},
		{volumePod, "VolumeBinding", e.SetClaim(claim), true},
		{volumePod, "VolumeRestrictions", scheduler.ClusterChange{FreedPod: scheduler.NewPod(testPod("v", "web", claiming("c")))}, true},
		{volumePod, "VolumeRestrictions", scheduler.ClusterChange{FreedPod: web}, false},
		{plain, "VolumeBinding", e.SetClaim(claim), false},
	} {
		if got := e.Hint(c.pod, []string{c.plugin}, c.change); got != c.want {
			t.Errorf("%d: %s for %s: %v, want %v", i, c.plugin, c.pod.Object.Name, got, c.want)
		}
	}
}

// TestUnresolvable says of which nodes removing pods would help.
func TestUnresolvable(t *testing.T) {
	e := rulesEngine(t)
	for _, node := range []string{"a1", "b1"} {
		e.Assign(scheduler.NewPod(testPod(node, "web")), node)
	}
	d := e.Decide(scheduler.NewPod(testPod("p", "web", away(term("web", zoneKey)), spreadOver("web", zoneKey))))
	if got := fmt.Sprint(slices.Sorted(d.Resolvable.All()), d.Plugins); got != "[a1 a2 b1] [InterPodAffinity PodTopologySpread]" {
		t.Error(got, d.Message())
	}
}
