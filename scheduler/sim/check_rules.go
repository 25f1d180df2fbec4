package sim

import (
	"errors"
	"fmt"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// rules are Kubernetes' required ones, by the name of the plugin that should see to each.
var rules = []rule{
	{"NodeUnschedulable", func(_ *Simulation, pod *corev1.Pod, n *node) error {
		taint := corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
		if n.obj.Spec.Unschedulable && !corev1helpers.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, &taint, false) {
			return errors.New("the node is unschedulable")
		}
		return nil
	}},
	{"TaintToleration", func(_ *Simulation, pod *corev1.Pod, n *node) error {
		for i := range n.obj.Spec.Taints {
			t := &n.obj.Spec.Taints[i]
			if t.Effect != corev1.TaintEffectPreferNoSchedule && !corev1helpers.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, t, false) {
				return fmt.Errorf("taint %s is not tolerated", t.ToString())
			}
		}
		return nil
	}},
	{"NodeAffinity", func(_ *Simulation, pod *corev1.Pod, n *node) error {
		ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n.obj)
		if err == nil && !ok {
			err = errors.New("it does not match")
		}
		return err
	}},
	{"NodePorts", portsBroken},
	{"InterPodAffinity", affinityBroken},
	{"PodTopologySpread", spreadBroken},
	{"VolumeBinding", volumesBroken},
}

func portsBroken(_ *Simulation, pod *corev1.Pod, n *node) error {
	for _, p := range hostPorts(pod) {
		for _, other := range n.pods {
			for _, o := range hostPorts(other.spod.Object) {
				anyIP := p.HostIP == "" || o.HostIP == "" || p.HostIP == "0.0.0.0" || o.HostIP == "0.0.0.0"
				if p.HostPort == o.HostPort && (anyIP || p.HostIP == o.HostIP) && cmpProtocol(p.Protocol) == cmpProtocol(o.Protocol) {
					return fmt.Errorf("port %d is taken by %s", p.HostPort, other.key)
				}
			}
		}
	}
	return nil
}

func cmpProtocol(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}

// selects reports whether a term of a pod's affinity is about another pod.
func selects(s *Simulation, owner *corev1.Pod, t *corev1.PodAffinityTerm, other *corev1.Pod) bool {
	inNamespace := slices.Contains(t.Namespaces, other.Namespace)
	if t.NamespaceSelector != nil {
		sel, err := metav1.LabelSelectorAsSelector(t.NamespaceSelector)
		inNamespace = inNamespace || err == nil && sel.Matches(labels.Set(s.objects.namespaces[other.Namespace]))
	} else if len(t.Namespaces) == 0 {
		inNamespace = other.Namespace == owner.Namespace
	}
	return inNamespace && selected(t.LabelSelector, owner, t.MatchLabelKeys, other) && mismatched(owner, t.MismatchLabelKeys, other)
}

func selected(s *metav1.LabelSelector, owner *corev1.Pod, same []string, other *corev1.Pod) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil || !sel.Matches(labels.Set(other.Labels)) {
		return false
	}
	for _, k := range same {
		if v, ok := owner.Labels[k]; ok && other.Labels[k] != v {
			return false
		}
	}
	return true
}

func mismatched(owner *corev1.Pod, keys []string, other *corev1.Pod) bool {
	for _, k := range keys {
		if v, ok := owner.Labels[k]; ok && other.Labels[k] == v {
			return false
		}
	}
	return true
}

func antiAffinity(pod *corev1.Pod) []corev1.PodAffinityTerm {
	if a := pod.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		return a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	return nil
}

func affinityBroken(s *Simulation, pod *corev1.Pod, n *node) error {
	err := s.others(func(other *corev1.Pod, on *node) error {
		for _, pair := range [][2]*corev1.Pod{{pod, other}, {other, pod}} {
			terms := antiAffinity(pair[0])
			for i := range terms {
				if sameDomain(n.obj, on.obj, terms[i].TopologyKey) && selects(s, pair[0], &terms[i], pair[1]) {
					return fmt.Errorf("%s/%s on %s is to be kept apart", other.Namespace, other.Name, on.obj.Name)
				}
			}
		}
		return nil
	})
	if err != nil || pod.Spec.Affinity == nil || pod.Spec.Affinity.PodAffinity == nil {
		return err
	}
	terms := pod.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	near, self, matches := make([]bool, len(terms)), true, false
	for i := range terms {
		if _, ok := n.obj.Labels[terms[i].TopologyKey]; !ok {
			return fmt.Errorf("the node has no label %s", terms[i].TopologyKey)
		}
		self = self && selects(s, pod, &terms[i], pod)
	}
	_ = s.others(func(other *corev1.Pod, on *node) error {
		for i := range terms {
			if !selects(s, pod, &terms[i], other) {
				return nil // a pod counts only if all terms are about it
			}
		}
		for i := range terms {
			if _, ok := on.obj.Labels[terms[i].TopologyKey]; ok {
				matches = true
			}
			near[i] = near[i] || sameDomain(n.obj, on.obj, terms[i].TopologyKey)
		}
		return nil
	})
	if slices.Contains(near, false) && (matches || !self) {
		return errors.New("no pod that it wants to be near is near")
	}
	return nil
}

func spreadBroken(s *Simulation, pod *corev1.Pod, n *node) error {
	var hard []*corev1.TopologySpreadConstraint
	for i := range pod.Spec.TopologySpreadConstraints {
		if c := &pod.Spec.TopologySpreadConstraints[i]; c.WhenUnsatisfiable == corev1.DoNotSchedule {
			hard = append(hard, c)
		}
	}
	for _, c := range hard {
		there, least := spreadOver(s, pod, n, c, hard)
		if there < 0 {
			return fmt.Errorf("the node has no label %s", c.TopologyKey)
		}
		if selected(c.LabelSelector, pod, c.MatchLabelKeys, pod) {
			there++
		}
		if there-least > int(c.MaxSkew) {
			return fmt.Errorf("%d pods would be in its domain of %s, %d in another", there, c.TopologyKey, least)
		}
	}
	return nil
}

// spreadOver counts the pods in the node's domain (-1: it has none) and the least in any.
func spreadOver(s *Simulation, pod *corev1.Pod, n *node, c *corev1.TopologySpreadConstraint, hard []*corev1.TopologySpreadConstraint) (there, least int) {
	counts := map[string]int{}
	for _, o := range s.order {
		if o.down || slices.ContainsFunc(hard, func(h *corev1.TopologySpreadConstraint) bool { _, ok := o.obj.Labels[h.TopologyKey]; return !ok }) {
			continue
		}
		if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
			if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(o.obj); err != nil || !ok {
				continue
			}
		}
		if c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
			_, untolerated := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), o.obj.Spec.Taints, pod.Spec.Tolerations, func(t *corev1.Taint) bool { return t.Effect != corev1.TaintEffectPreferNoSchedule }, false)
			if untolerated {
				continue
			}
		}
		domain := o.obj.Labels[c.TopologyKey]
		counts[domain] += 0
		for _, p := range o.pods {
			// A selector of all pods counts none.
			if c.LabelSelector.Size() > 0 && p.Namespace == pod.Namespace && !p.ending && selected(c.LabelSelector, pod, c.MatchLabelKeys, p.spod.Object) {
				counts[domain]++
			}
		}
	}
	least = math.MaxInt
	for _, v := range counts {
		least = min(least, v)
	}
	if c.MinDomains != nil && len(counts) < int(*c.MinDomains) || least == math.MaxInt {
		least = 0
	}
	domain, ok := n.obj.Labels[c.TopologyKey]
	if !ok {
		return -1, least
	}
	return counts[domain], least
}

// volumesBroken looks whether the pod's claims that have volumes can be used on the node, and those that have none can get them.
func volumesBroken(s *Simulation, pod *corev1.Pod, n *node) error {
	for i := range pod.Spec.Volumes {
		var name string
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			name = v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil:
			name = pod.Name + "-" + v.Name
		default:
			continue
		}
		claim := s.objects.claims[pod.Namespace+"/"+name]
		if claim == nil {
			return fmt.Errorf("there is no claim %s", name)
		}
		if claim.Spec.VolumeName == "" {
			continue
		}
		volume := s.objects.volumes[claim.Spec.VolumeName]
		if volume == nil || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID {
			return fmt.Errorf("claim %s has volume %s, which has another", name, claim.Spec.VolumeName)
		}
		if size, wanted := volume.Spec.Capacity.Storage(), claim.Spec.Resources.Requests.Storage(); size.Cmp(*wanted) < 0 {
			return fmt.Errorf("claim %s for %s has a volume of %s", name, wanted, size)
		}
		if a := volume.Spec.NodeAffinity; a != nil && a.Required != nil {
			selector, err := nodeaffinity.NewNodeSelector(a.Required)
			if err == nil && !selector.Match(n.obj) {
				err = fmt.Errorf("volume %s can't be reached from there", volume.Name)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
