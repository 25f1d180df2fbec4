package decisions

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// generator makes objects of which many have to do with each other: few names, labels and amounts, of every field that scheduling looks at.
type generator struct {
	*rand.Rand
	made int
}

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

// once in n times.
func (g *generator) once(n int) bool { return g.IntN(n) == 0 }

func (g *generator) nodeName() string { return fmt.Sprint("n", g.IntN(6)) }

func (g *generator) labels() map[string]string {
	out := map[string]string{"app": pick(g, "a", "b", "c"), "rev": pick(g, "1", "2")}
	if g.once(4) {
		delete(out, pick(g, "app", "rev"))
	}
	return out
}

func quantities(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
		}
	}
	return l
}

func (g *generator) node() *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: g.nodeName(), Labels: map[string]string{
		"disk": pick(g, "ssd", "hdd"), "size": pick(g, "1", "5", "x"), corev1.LabelTopologyZone: pick(g, "za", "zb", "zc"), corev1.LabelTopologyRegion: pick(g, "r1", "r2"),
	}}}
	n.Labels[corev1.LabelHostname] = n.Name
	if g.once(6) {
		delete(n.Labels, pick(g, "disk", corev1.LabelTopologyZone, corev1.LabelHostname, corev1.LabelTopologyRegion))
	}
	n.Spec.Unschedulable = g.once(10)
	for range max(0, g.IntN(5)-2) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{
			Key: pick(g, "k1", "k2", corev1.TaintNodeUnschedulable), Value: pick(g, "", "v"),
			Effect: pick(g, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute),
		})
	}
	n.Status.Allocatable = quantities("cpu", pick(g, "1", "2", "4"), "memory", pick(g, "1Gi", "4Gi", "8Gi"), "pods", pick(g, "3", "20", "110"), "ephemeral-storage", pick(g, "", "10Gi"),
		"example.com/gpu", pick(g, "", "", "2"), "example.com/nic", pick(g, "", "", "1"), "hugepages-2Mi", pick(g, "", "64Mi"))
	for i, name := range []string{"app:latest", "other:1", "reg.example.com:5000/app:latest"} {
		if g.once(3) { // of one size everywhere: kube-scheduler goes on with the first one it hears of
			n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: []string{fmt.Sprint("x@sha256:", i), name}, SizeBytes: []int64{700 << 20, 1900 << 20, 20 << 20}[i]})
		}
	}
	return n
}

func (g *generator) selector() *metav1.LabelSelector {
	switch g.IntN(8) {
	case 0:
		return nil
	case 1:
		return &metav1.LabelSelector{}
	case 2:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{pick(g, "a", "b")}}}}
	case 3:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "rev", Operator: pick(g, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}}}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(g, "a", "b", "c")}}
}

// has reports that a selector can't have keys of a pod's labels beside it.
func has(s *metav1.LabelSelector, key string) bool {
	return s == nil || slices.ContainsFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Key == key })
}

func (g *generator) topologyKey() string {
	return pick(g, corev1.LabelTopologyZone, corev1.LabelHostname, corev1.LabelTopologyRegion, "disk")
}

func (g *generator) affinityTerm() corev1.PodAffinityTerm {
	t := corev1.PodAffinityTerm{TopologyKey: g.topologyKey(), LabelSelector: g.selector()}
	if g.once(5) {
		t.Namespaces = pick(g, []string{"d"}, []string{"e"}, []string{"d", "e"})
	}
	if g.once(5) {
		t.NamespaceSelector = pick(g, &metav1.LabelSelector{}, &metav1.LabelSelector{MatchLabels: map[string]string{"team": pick(g, "x", "y")}})
	}
	if g.once(5) && !has(t.LabelSelector, "rev") {
		if g.once(2) {
			t.MatchLabelKeys = []string{"rev"}
		} else {
			t.MismatchLabelKeys = []string{"rev"}
		}
	}
	return t
}

func (g *generator) podAffinity(p *corev1.Pod) {
	a := p.Spec.Affinity
	must := func() (out []corev1.PodAffinityTerm) {
		for range 1 + g.IntN(5)/4 {
			out = append(out, g.affinityTerm())
		}
		return out
	}
	may := func() (out []corev1.WeightedPodAffinityTerm) {
		for range 1 + g.IntN(3)/2 {
			out = append(out, corev1.WeightedPodAffinityTerm{Weight: int32(1 + g.IntN(100)), PodAffinityTerm: g.affinityTerm()})
		}
		return out
	}
	if g.once(9) {
		a.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: must()}
	} else if g.once(6) {
		a.PodAffinity = &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: may()}
	}
	if g.once(9) {
		a.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: must()}
	}
	if g.once(6) {
		if a.PodAntiAffinity == nil {
			a.PodAntiAffinity = &corev1.PodAntiAffinity{}
		}
		a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution = may()
	}
}

func (g *generator) nodeTerm() corev1.NodeSelectorTerm {
	if g.once(8) {
		return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: pick(g, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn), Values: []string{g.nodeName()}}}}
	}
	var t corev1.NodeSelectorTerm
	for range 1 + g.IntN(4)/3 {
		t.MatchExpressions = append(t.MatchExpressions, pick(g,
			corev1.NodeSelectorRequirement{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{pick(g, "ssd", "hdd")}},
			corev1.NodeSelectorRequirement{Key: "size", Operator: pick(g, corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt), Values: []string{"2"}},
			corev1.NodeSelectorRequirement{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpNotIn, Values: []string{"za"}},
			corev1.NodeSelectorRequirement{Key: corev1.LabelTopologyZone, Operator: pick(g, corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist)},
		))
	}
	if g.once(10) {
		t.MatchFields = []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{g.nodeName()}}}
	}
	if g.once(20) {
		t.MatchExpressions, t.MatchFields = nil, nil // matches nothing
	}
	return t
}

func (g *generator) nodeAffinity(p *corev1.Pod) {
	if g.once(6) {
		p.Spec.NodeSelector = map[string]string{"disk": pick(g, "ssd", "hdd")}
	}
	if g.once(6) {
		s := &corev1.NodeSelector{}
		for range 1 + g.IntN(2) {
			s.NodeSelectorTerms = append(s.NodeSelectorTerms, g.nodeTerm())
		}
		p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: s}
	}
	if g.once(5) {
		if p.Spec.Affinity.NodeAffinity == nil {
			p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
		}
		for range 1 + g.IntN(3) {
			p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution,
				corev1.PreferredSchedulingTerm{Weight: int32(1 + g.IntN(100)), Preference: g.nodeTerm()})
		}
	}
}

func (g *generator) tolerations(p *corev1.Pod) {
	for range max(0, g.IntN(5)-3) {
		t := corev1.Toleration{Key: pick(g, "k1", "k2", corev1.TaintNodeUnschedulable), Effect: pick(g, "", corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)}
		switch g.IntN(3) {
		case 0:
			t.Operator = corev1.TolerationOpExists
		case 1:
			t.Value = pick(g, "", "v")
		default:
			t.Key, t.Operator = "", corev1.TolerationOpExists
		}
		if t.Effect == corev1.TaintEffectNoExecute && g.once(2) {
			t.TolerationSeconds = ptr.To(int64(30))
		}
		p.Spec.Tolerations = append(p.Spec.Tolerations, t)
	}
}

func (g *generator) requests() corev1.ResourceList {
	switch g.IntN(6) {
	case 0, 1:
		return quantities("cpu", pick(g, "100m", "500m", "1500m"), "memory", pick(g, "100Mi", "700Mi", "2Gi"))
	case 2:
		return quantities(pick(g, "cpu", "memory"), pick(g, "1", "0"))
	case 3:
		return quantities("cpu", "200m", pick(g, "example.com/gpu", "example.com/nic"), pick(g, "1", "2", "0"))
	case 4:
		return quantities("cpu", "100m", "hugepages-2Mi", "32Mi", "ephemeral-storage", pick(g, "", "4Gi"))
	}
	return nil
}

func (g *generator) container(name string) corev1.Container {
	c := corev1.Container{Name: name, Image: pick(g, "app", "other:1", "reg.example.com:5000/app", "none"), TerminationMessagePolicy: "File"}
	c.Resources.Requests = g.requests()
	c.Resources.Limits = corev1.ResourceList{}
	for name, q := range c.Resources.Requests {
		if name != corev1.ResourceCPU && name != corev1.ResourceMemory {
			c.Resources.Limits[name] = q
		}
	}
	if g.once(8) {
		c.Resources.Limits[corev1.ResourceCPU] = resource.MustParse("2") // without a request it is one
	}
	if g.once(7) {
		c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: int32(8000 + g.IntN(2)), HostIP: pick(g, "", "10.0.0.1", "10.0.0.2"), Protocol: pick(g, "", corev1.ProtocolTCP, corev1.ProtocolUDP)}}
	}
	return c
}

func (g *generator) spread(p *corev1.Pod) {
	for range max(0, g.IntN(5)-2) {
		c := corev1.TopologySpreadConstraint{
			MaxSkew: int32(1 + g.IntN(3)), TopologyKey: g.topologyKey(), WhenUnsatisfiable: pick(g, corev1.DoNotSchedule, corev1.ScheduleAnyway), LabelSelector: g.selector(),
			NodeAffinityPolicy: pick(g, nil, ptr.To(corev1.NodeInclusionPolicyHonor), ptr.To(corev1.NodeInclusionPolicyIgnore)),
			NodeTaintsPolicy:   pick(g, nil, ptr.To(corev1.NodeInclusionPolicyHonor), ptr.To(corev1.NodeInclusionPolicyIgnore)),
		}
		for _, o := range p.Spec.TopologySpreadConstraints {
			if o.TopologyKey == c.TopologyKey && o.WhenUnsatisfiable == c.WhenUnsatisfiable {
				c.TopologyKey = "none-" + o.TopologyKey // a pair may be there once
			}
		}
		if c.WhenUnsatisfiable == corev1.DoNotSchedule && g.once(3) {
			c.MinDomains = ptr.To(int32(1 + g.IntN(3)))
		}
		if g.once(4) && !has(c.LabelSelector, "rev") {
			c.MatchLabelKeys = []string{"rev"}
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
	}
}

func (g *generator) pod() *corev1.Pod {
	g.made++
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", g.made), Namespace: pick(g, "d", "d", "e"), UID: types.UID(fmt.Sprint("u", g.made)), Labels: g.labels()}}
	p.CreationTimestamp = metav1.Time{Time: time.Unix(int64(1000+g.made), 0)}
	p.Spec.Affinity = &corev1.Affinity{}
	for i := range 1 + g.IntN(5)/4 {
		p.Spec.Containers = append(p.Spec.Containers, g.container(fmt.Sprint("c", i)))
	}
	for i := range max(0, g.IntN(6)-4) {
		c := g.container(fmt.Sprint("i", i))
		if g.once(2) {
			c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	}
	if g.once(8) {
		p.Spec.Overhead = quantities("cpu", "250m", "memory", "120Mi")
	}
	if g.once(8) {
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: quantities(pick(g, "cpu", "memory"), pick(g, "2", "3"))}
	}
	g.nodeAffinity(p)
	g.podAffinity(p)
	g.tolerations(p)
	g.spread(p)
	if *p.Spec.Affinity == (corev1.Affinity{}) {
		p.Spec.Affinity = nil
	}
	p.Spec.Priority = ptr.To(int32(g.IntN(4)) * 10)
	if g.once(10) {
		p.Spec.PreemptionPolicy = ptr.To(corev1.PreemptNever)
	}
	if g.once(40) {
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}, {Name: "example.com/more"}}
	}
	if g.once(3) {
		p.OwnerReferences = []metav1.OwnerReference{pick(g,
			metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "set1", UID: "set1", Controller: ptr.To(true)},
			metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "set1", UID: "set1", Controller: ptr.To(true)},
			metav1.OwnerReference{APIVersion: "v1", Kind: "ReplicationController", Name: "set1", UID: "set1", Controller: ptr.To(true)},
			metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "ReplicaSet", Name: "set1", UID: "set1", Controller: ptr.To(true)},
		)}
	}
	g.volumes(p)
	corev1defaults.SetObjectDefaults_Pod(p)
	return p
}

// owner is a Service or a set.
func (g *generator) owner() client.Object {
	meta := metav1.ObjectMeta{Namespace: pick(g, "d", "d", "e"), Name: "set1"}
	sel := &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(g, "a", "b")}}
	if g.once(3) {
		sel = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"a", "c"}}}}
	}
	switch g.IntN(5) {
	case 0:
		return &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Selector: sel}}
	case 1:
		return &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Selector: sel}}
	case 2:
		return &corev1.ReplicationController{ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{Selector: map[string]string{"app": pick(g, "a", "b")}}}
	}
	meta.Name = pick(g, "s1", "s2")
	return &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: pick(g, nil, map[string]string{"app": "a"}, map[string]string{"app": "b"}, map[string]string{"rev": "1"})}}
}

func (g *generator) budget() *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: pick(g, "d", "d", "e"), Name: pick(g, "b1", "b2")}}
	b.Spec.Selector = g.selector()
	b.Status.DisruptionsAllowed = int32(g.IntN(2))
	if g.once(5) && g.made > 0 {
		b.Status.DisruptedPods = map[string]metav1.Time{fmt.Sprint("p", 1+g.IntN(g.made)): {}}
	}
	return b
}

func (g *generator) namespace() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: pick(g, "d", "e"), Labels: map[string]string{"team": pick(g, "x", "y")}}}
}
