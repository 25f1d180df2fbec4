package decisions

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// groupCase is a cluster with one group that waits.
type groupCase struct {
	seed uint64
	// objects in the order in which they are told of, the group last.
	objects   []client.Object
	extenders []extenderCase
}

// groupNodes have few sizes, for groups that almost fit.
const groupNodes = 6

func (g *generator) groupNode(i int) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i), Labels: map[string]string{
		"disk": pick(g, "ssd", "hdd"), corev1.LabelTopologyZone: pick(g, "za", "zb"), corev1.LabelHostname: fmt.Sprint("n", i),
	}}}
	n.Spec.Unschedulable = g.once(15)
	if g.once(10) {
		n.Spec.Taints = []corev1.Taint{{Key: "k1", Effect: corev1.TaintEffectNoSchedule}}
	}
	n.Status.Allocatable = quantities("cpu", pick(g, "2", "3", "4"), "memory", "8Gi", "pods", pick(g, "3", "20"), "example.com/gpu", pick(g, "", "2"))
	return n
}

// groupPod is a pod with no more than one rule, and an order of nodes of its own, so that the choice isn't left to chance.
func (g *generator) groupPod(name string, priority int32) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "d", UID: types.UID("uid-" + name), Labels: map[string]string{"app": pick(g, "a", "b", "c")}}}
	p.Spec.Priority = &priority
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i", TerminationMessagePolicy: "File"}}
	r := quantities("cpu", pick(g, "500m", "1", "1", "2", "3"), "example.com/gpu", pick(g, "", "", "", "1"))
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: r}
	if q, ok := r["example.com/gpu"]; ok {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"example.com/gpu": q}
	}
	p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}}
	for i, at := range g.Perm(groupNodes) {
		p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution,
			corev1.PreferredSchedulingTerm{Weight: int32(12 * (at + 1)), Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{fmt.Sprint("n", i)}},
			}}})
	}
	term := []corev1.PodAffinityTerm{{TopologyKey: pick(g, corev1.LabelHostname, corev1.LabelTopologyZone), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(g, "a", "b", "c")}}}}
	switch g.IntN(14) {
	case 0:
		p.Spec.NodeSelector = map[string]string{"disk": pick(g, "ssd", "hdd")}
	case 1, 2:
		p.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term}
	case 3:
		p.Spec.Affinity.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term}
	case 4, 5:
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, WhenUnsatisfiable: corev1.DoNotSchedule, TopologyKey: term[0].TopologyKey, LabelSelector: term[0].LabelSelector}}
	case 6:
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8000, Protocol: corev1.ProtocolTCP}}
	}
	corev1defaults.SetObjectDefaults_Pod(p)
	return p
}

func inGroup(p *corev1.Pod, name string) {
	p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &name}
}

func (g *generator) group(name string, pods int) *schedulingv1beta1.PodGroup {
	o := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name, UID: types.UID("group-" + name), Generation: 3}}
	if g.once(4) {
		o.Spec.SchedulingPolicy.Basic = &schedulingv1beta1.BasicSchedulingPolicy{}
	} else {
		o.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: int32(1 + g.IntN(pods))}
	}
	if !g.once(6) {
		o.Spec.Priority = ptr.To(int32(g.IntN(4) * 10))
	}
	if g.once(2) {
		o.Spec.DisruptionMode = pick(g, &schedulingv1beta1.DisruptionMode{All: &schedulingv1beta1.AllDisruptionMode{}},
			&schedulingv1beta1.DisruptionMode{Single: &schedulingv1beta1.SingleDisruptionMode{}})
	}
	return o
}

func (g *generator) groupCase(seed uint64) *groupCase {
	c := &groupCase{seed: seed}
	var last []client.Object
	nodes := 2 + g.IntN(groupNodes-1)
	for i := range nodes {
		c.objects = append(c.objects, g.groupNode(i))
	}
	whole := g.group("h", 3)
	wait := 1 + g.IntN(6)
	group := g.group("g", wait)
	last = append(last, whole, group)
	ports := map[string]bool{} // that are taken, by node
	for i := range min(g.IntN(11), nodes*4) {
		p := g.groupPod(fmt.Sprint("r", i), int32(g.IntN(4)*10))
		switch g.IntN(5) {
		case 0:
			inGroup(p, "h")
			p.Spec.Priority = ptr.To(ptr.Deref(whole.Spec.Priority, 0))
		case 1:
			if i < 2 {
				inGroup(p, "g")
				p.Spec.Priority = ptr.To(ptr.Deref(group.Spec.Priority, 0))
			}
		}
		if *p.Spec.Priority < ptr.Deref(group.Spec.Priority, 0) {
			p.Spec.Affinity.PodAntiAffinity = nil // kube-scheduler doesn't look at that of victims it spares
		}
		p.Spec.NodeName = fmt.Sprint("n", g.IntN(nodes))
		if ports[p.Spec.NodeName] {
			p.Spec.Containers[0].Ports = nil
		}
		ports[p.Spec.NodeName] = ports[p.Spec.NodeName] || len(p.Spec.Containers[0].Ports) > 0
		p.Status.StartTime = &metav1.Time{Time: time.Unix(int64(5000+g.IntN(1000)*100+i), 0)}
		if g.once(25) && len(p.Spec.TopologySpreadConstraints) == 0 {
			p.DeletionTimestamp = &metav1.Time{Time: time.Unix(9000, 0)}
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler}}
		}
		c.objects = append(c.objects, p)
	}
	if g.once(2) {
		c.objects = append(c.objects, &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "b"},
			Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(g, "a", "b")}}},
			Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: int32(g.IntN(2))},
		})
	}
	never := g.once(12)
	for i := range wait {
		p := g.groupPod(fmt.Sprint("p", i), ptr.Deref(group.Spec.Priority, 0))
		inGroup(p, "g")
		if never {
			p.Spec.PreemptionPolicy = ptr.To(corev1.PreemptNever)
		}
		switch g.IntN(60) {
		case 0:
			p.Spec.Priority = ptr.To(int32(77))
		case 1:
			p.Spec.PreemptionPolicy = ptr.To(corev1.PreemptNever)
		case 2, 3, 4:
			p.Status.NominatedNodeName = fmt.Sprint("n", g.IntN(groupNodes))
		}
		c.objects = append(c.objects, p)
	}
	c.objects = append(c.objects, last...)
	for i := range g.IntN(3) {
		c.extenders = append(c.extenders, g.extender(i))
	}
	nominated := slices.ContainsFunc(c.objects, func(o client.Object) bool { p, ok := o.(*corev1.Pod); return ok && p.Status.NominatedNodeName != "" })
	for _, o := range c.objects {
		// In kube-scheduler those of a group that are nominated are pods without requests or rules while it decides.
		if n, ok := o.(*corev1.Node); ok && nominated {
			n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("20")
		}
	}
	for i, o := range c.objects {
		o.SetResourceVersion(fmt.Sprint(i + 1))
		if o.GetUID() == "" {
			o.SetUID(types.UID(keyOf(o)))
		}
	}
	return c
}

// extenderCase is what an extender does, by chance that depends on what it is asked only.
type extenderCase struct {
	Filter, Prioritize, Bind, Ignorable, Cache, Managed bool
	// Rejects one in so many nodes, and fails for one in so many pods.
	Rejects, Fails uint64
}

func (g *generator) extender(i int) extenderCase {
	return extenderCase{
		Filter: !g.once(4), Prioritize: i == 0 && g.once(2), Bind: i == 0 && g.once(4), Ignorable: g.once(3), Cache: g.once(2), Managed: g.once(3),
		Rejects: pick[uint64](g, 2, 4, 9), Fails: pick[uint64](g, 7, 30, 1000, 1000),
	}
}
