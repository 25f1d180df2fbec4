package scheduler_test

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// What follows computes affinity between pods and topology spread anew for each node from all objects, in the words of Kubernetes' documentation.

func asSelector(s *metav1.LabelSelector, own map[string]string, match, mismatch []string) labels.Selector {
	if s == nil {
		return labels.Nothing()
	}
	s = s.DeepCopy()
	for _, k := range match {
		if v, ok := own[k]; ok {
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: metav1.LabelSelectorOpIn, Values: []string{v}})
		}
	}
	for _, k := range mismatch {
		if v, ok := own[k]; ok {
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: metav1.LabelSelectorOpNotIn, Values: []string{v}})
		}
	}
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		panic(err)
	}
	return sel
}

// selects reports whether owner's term is about other.
func (r *reference) selects(owner *corev1.Pod, t *corev1.PodAffinityTerm, other *corev1.Pod) bool {
	in := slices.Contains(t.Namespaces, other.Namespace)
	if t.NamespaceSelector != nil {
		in = in || asSelector(t.NamespaceSelector, nil, nil, nil).Matches(labels.Set(r.namespaces[other.Namespace]))
	} else if len(t.Namespaces) == 0 {
		in = other.Namespace == owner.Namespace
	}
	return in && asSelector(t.LabelSelector, owner.Labels, t.MatchLabelKeys, t.MismatchLabelKeys).Matches(labels.Set(other.Labels))
}

func together(a, b *corev1.Node, key string) bool {
	va, oka := a.Labels[key]
	vb, okb := b.Labels[key]
	return oka && okb && va == vb
}

func requiredTerms(p *corev1.Pod) (near, away []corev1.PodAffinityTerm) {
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			near = a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		}
		if a.PodAntiAffinity != nil {
			away = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		}
	}
	return near, away
}

func preferredTerms(p *corev1.Pod) (near, away []corev1.WeightedPodAffinityTerm) {
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			near = a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		}
		if a.PodAntiAffinity != nil {
			away = a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		}
	}
	return near, away
}

// eachPlaced calls f for each pod on a node that exists.
func (r *reference) eachPlaced(f func(p *corev1.Pod, on *corev1.Node)) {
	for _, p := range r.pods {
		if n := r.nodes[p.Spec.NodeName]; n != nil {
			f(p, n)
		}
	}
}

// affinity says why node is not for pod, "" if it is.
func (r *reference) affinity(pod *corev1.Pod, node *corev1.Node) string {
	near, away := requiredTerms(pod)
	matchesAll := func(other *corev1.Pod) bool {
		for i := range near {
			if !r.selects(pod, &near[i], other) {
				return false
			}
		}
		return true
	}
	anyGroup := false
	r.eachPlaced(func(p *corev1.Pod, on *corev1.Node) {
		for i := range near {
			if _, ok := on.Labels[near[i].TopologyKey]; ok && matchesAll(p) {
				anyGroup = true
			}
		}
	})
	for i := range near {
		found := false
		r.eachPlaced(func(p *corev1.Pod, on *corev1.Node) {
			found = found || together(node, on, near[i].TopologyKey) && matchesAll(p)
		})
		_, has := node.Labels[near[i].TopologyKey]
		if !has || !found && (anyGroup || !matchesAll(pod)) {
			return "node(s) didn't match pod affinity rules"
		}
	}
	why := ""
	r.eachPlaced(func(p *corev1.Pod, on *corev1.Node) {
		_, others := requiredTerms(p)
		for i := range others {
			if why == "" && together(node, on, others[i].TopologyKey) && r.selects(p, &others[i], pod) {
				why = "node(s) didn't satisfy existing pods anti-affinity rules"
			}
		}
	})
	r.eachPlaced(func(p *corev1.Pod, on *corev1.Node) {
		for i := range away {
			if together(node, on, away[i].TopologyKey) && r.selects(pod, &away[i], p) {
				why = "node(s) didn't match pod anti-affinity rules"
			}
		}
	})
	return why
}

// addAffinity adds the scores of InterPodAffinity to those of the feasible nodes.
func (r *reference) addAffinity(pod *corev1.Pod, scores map[string]int64) {
	raw := map[string]int64{}
	least, greatest := int64(math.MaxInt64), int64(math.MinInt64)
	for name := range scores {
		node := r.nodes[name]
		r.eachPlaced(func(p *corev1.Pod, on *corev1.Node) {
			for _, pair := range [][2]*corev1.Pod{{pod, p}, {p, pod}} {
				near, away := preferredTerms(pair[0])
				for i := range near {
					if together(node, on, near[i].PodAffinityTerm.TopologyKey) && r.selects(pair[0], &near[i].PodAffinityTerm, pair[1]) {
						raw[name] += int64(near[i].Weight)
					}
				}
				for i := range away {
					if together(node, on, away[i].PodAffinityTerm.TopologyKey) && r.selects(pair[0], &away[i].PodAffinityTerm, pair[1]) {
						raw[name] -= int64(away[i].Weight)
					}
				}
			}
			must, _ := requiredTerms(p)
			for i := range must {
				if together(node, on, must[i].TopologyKey) && r.selects(p, &must[i], pod) {
					raw[name]++
				}
			}
		})
		least, greatest = min(least, raw[name]), max(greatest, raw[name])
	}
	for name := range scores {
		if greatest > least {
			scores[name] += 2 * int64(100*(float64(raw[name]-least)/float64(greatest-least)))
		}
	}
}

// spreadCount counts the pods that constraint c of pod is about in value's domain, over the nodes that count; known is false if it has none.
func (r *reference) spreadCount(pod *corev1.Pod, all []corev1.TopologySpreadConstraint, c *corev1.TopologySpreadConstraint, value string) (count int64, known bool) {
	for _, n := range r.nodes {
		if v, ok := n.Labels[c.TopologyKey]; ok && v == value && r.counted(pod, all, c, n) {
			known = true
			count += r.spreadOn(pod, c, n.Name)
		}
	}
	return count, known
}

func (r *reference) counted(pod *corev1.Pod, all []corev1.TopologySpreadConstraint, c *corev1.TopologySpreadConstraint, n *corev1.Node) bool {
	if !hasKeys(all, n) {
		return false
	}
	if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n); err != nil || !ok {
			return false
		}
	}
	if c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
		for _, taint := range n.Spec.Taints {
			if taint.Effect == corev1.TaintEffectPreferNoSchedule {
				continue
			}
			if !slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
				return (t.Key == "" || t.Key == taint.Key) && (t.Effect == "" || t.Effect == taint.Effect) // the test's tolerations are all Exists
			}) {
				return false
			}
		}
	}
	return true
}

func (r *reference) spreadOn(pod *corev1.Pod, c *corev1.TopologySpreadConstraint, node string) (count int64) {
	sel := asSelector(c.LabelSelector, pod.Labels, c.MatchLabelKeys, nil)
	for _, p := range r.pods {
		if p.Spec.NodeName == node && p.Namespace == pod.Namespace && p.DeletionTimestamp == nil && !sel.Empty() && sel.Matches(labels.Set(p.Labels)) {
			count++
		}
	}
	return count
}

func hasKeys(all []corev1.TopologySpreadConstraint, n *corev1.Node) bool {
	for i := range all {
		if _, ok := n.Labels[all[i].TopologyKey]; !ok {
			return false
		}
	}
	return true
}

func constraintsOf(pod *corev1.Pod, action corev1.UnsatisfiableConstraintAction) (out []corev1.TopologySpreadConstraint) {
	for _, c := range pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == action {
			out = append(out, c)
		}
	}
	return out
}

// defaultConstraints are those of pods of Services and sets that have none of their own.
func (r *reference) defaultConstraints(pod *corev1.Pod) []corev1.TopologySpreadConstraint {
	sel := &metav1.LabelSelector{MatchLabels: map[string]string{}}
	for _, s := range r.services {
		if pod.Namespace == "d" && labels.SelectorFromSet(s).Matches(labels.Set(pod.Labels)) {
			maps.Copy(sel.MatchLabels, s)
		}
	}
	for _, ref := range pod.OwnerReferences {
		if set := r.sets[ref.Name]; set != nil && pod.Namespace == "d" {
			sel.MatchExpressions = set.MatchExpressions
		}
	}
	if len(sel.MatchLabels)+len(sel.MatchExpressions) == 0 {
		return nil
	}
	return []corev1.TopologySpreadConstraint{
		{MaxSkew: 3, TopologyKey: corev1.LabelHostname, LabelSelector: sel, WhenUnsatisfiable: corev1.ScheduleAnyway},
		{MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone, LabelSelector: sel, WhenUnsatisfiable: corev1.ScheduleAnyway},
	}
}

func changeService(r *rand.Rand, ref *reference, e *scheduler.Engine) {
	name := pick(r, "s1", "s2")
	if delete(ref.services, name); r.IntN(4) == 0 {
		e.DeleteService("d", name)
		return
	}
	ref.services[name] = pick(r, map[string]string{"app": "a"}, map[string]string{"app": "b"}, map[string]string{"rev": "1"})
	e.SetService(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name}, Spec: corev1.ServiceSpec{Selector: ref.services[name]}})
}

func changeSet(r *rand.Rand, ref *reference, e *scheduler.Engine) {
	name := pick(r, "set1", "set2")
	if delete(ref.sets, name); r.IntN(4) == 0 {
		e.DeleteReplicaSet("d", name)
		return
	}
	ref.sets[name] = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: "app", Operator: metav1.LabelSelectorOpIn, Values: pick(r, []string{"a"}, []string{"b", "c"}),
	}}}
	e.SetReplicaSet(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name}, Spec: appsv1.ReplicaSetSpec{Selector: ref.sets[name]}})
}

// spread says why node is not for pod, "" if it is.
func (r *reference) spread(pod *corev1.Pod, node *corev1.Node) string {
	all := constraintsOf(pod, corev1.DoNotSchedule)
	for i := range all {
		c := &all[i]
		value, ok := node.Labels[c.TopologyKey]
		if !ok {
			return "node(s) didn't match pod topology spread constraints (missing required label)"
		}
		domains := map[string]int64{}
		for _, n := range r.nodes {
			if v, ok := n.Labels[c.TopologyKey]; ok {
				if count, known := r.spreadCount(pod, all, c, v); known {
					domains[v] = count
				}
			}
		}
		least := int64(math.MaxInt64)
		for _, n := range domains {
			least = min(least, n)
		}
		want := 1
		if c.MinDomains != nil {
			want = int(*c.MinDomains)
		}
		if len(domains) < want {
			least = 0
		}
		skew := domains[value] - least
		if asSelector(c.LabelSelector, pod.Labels, c.MatchLabelKeys, nil).Matches(labels.Set(pod.Labels)) {
			skew++
		}
		if skew > int64(c.MaxSkew) {
			return "node(s) didn't match pod topology spread constraints"
		}
	}
	return ""
}

// addSpread adds the scores of PodTopologySpread to those of the feasible nodes.
func (r *reference) addSpread(pod *corev1.Pod, scores map[string]int64) {
	all := constraintsOf(pod, corev1.ScheduleAnyway)
	must := all // the constraints whose topology keys nodes must have
	if len(pod.Spec.TopologySpreadConstraints) == 0 {
		all, must = r.defaultConstraints(pod), nil
	}
	if len(all) == 0 {
		return
	}
	raw := map[string]int64{}
	least, greatest := int64(math.MaxInt64), int64(math.MinInt64)
	for name := range scores {
		node := r.nodes[name]
		if !hasKeys(must, node) {
			continue
		}
		var sum float64
		for i := range all {
			c := &all[i]
			if !hasKeys(all[i:i+1], node) {
				continue
			}
			values, size := map[string]bool{}, 0
			for other := range scores {
				if hasKeys(must, r.nodes[other]) {
					values[r.nodes[other].Labels[c.TopologyKey]] = true
					size++
				}
			}
			var count int64
			if c.TopologyKey == corev1.LabelHostname {
				count = r.spreadOn(pod, c, name)
			} else {
				size = len(values)
				count, _ = r.spreadCount(pod, must, c, node.Labels[c.TopologyKey])
			}
			sum += float64(float64(count)*math.Log(float64(size+2))) + float64(c.MaxSkew-1)
		}
		raw[name] = int64(math.Round(sum))
		least, greatest = min(least, raw[name]), max(greatest, raw[name])
	}
	for name, v := range raw {
		if greatest == 0 {
			scores[name] += 2 * 100
		} else {
			scores[name] += 2 * (100 * (greatest + least - v) / greatest)
		}
	}
}

// reasons says why node is not for pod: the first plugin's words.
func (r *reference) reasons(e *scheduler.Engine, p *scheduler.Pod, node *corev1.Node) []string {
	for _, w := range r.profile {
		switch f := w.Plugin.(type) {
		case scheduler.FilterPlugin:
			if why := f.Filter(p, e.Node(node.Name)); why != nil {
				return why.Reasons
			}
		case plugins.InterPodAffinity:
			if why := r.affinity(p.Object, node); why != "" && !r.aloof {
				return []string{why}
			}
		case plugins.PodTopologySpread:
			if why := r.spread(p.Object, node); why != "" {
				return []string{why}
			}
		}
	}
	return nil
}

func randomLabels(r *rand.Rand) map[string]string {
	l := map[string]string{"app": pick(r, "a", "b", "c")}
	if r.IntN(2) == 0 {
		l["rev"] = pick(r, "1", "2")
	}
	return l
}

func randomSelector(r *rand.Rand) *metav1.LabelSelector {
	switch r.IntN(8) {
	case 0:
		return nil
	case 1:
		return &metav1.LabelSelector{}
	case 2:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"a", "b"}}}}
	default:
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(r, "a", "b", "c")}}
	}
}

func randomKey(r *rand.Rand) string { return pick(r, "zone", "zone", "disk", corev1.LabelHostname) }

func randomTerm(r *rand.Rand) corev1.PodAffinityTerm {
	t := corev1.PodAffinityTerm{LabelSelector: randomSelector(r), TopologyKey: randomKey(r)}
	switch r.IntN(5) {
	case 0:
		t.Namespaces = []string{pick(r, "d", "e")}
	case 1:
		t.NamespaceSelector = pick(r, &metav1.LabelSelector{}, &metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}})
	case 2:
		t.Namespaces, t.NamespaceSelector = []string{"e"}, &metav1.LabelSelector{MatchLabels: map[string]string{"team": "y"}}
	}
	switch r.IntN(5) {
	case 0:
		t.MatchLabelKeys = []string{"rev"}
	case 1:
		t.MismatchLabelKeys = []string{"rev"}
	}
	return t
}

// addPodRules gives some pods rules about other pods.
func addPodRules(r *rand.Rand, p *corev1.Pod) {
	p.Namespace, p.Labels = pick(r, "d", "d", "e"), randomLabels(r)
	if r.IntN(3) == 0 {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: pick(r, "set1", "set2"), Controller: &yes}}
	}
	if r.IntN(3) == 0 {
		if p.Spec.Affinity == nil {
			p.Spec.Affinity = &corev1.Affinity{}
		}
		near, away := &corev1.PodAffinity{}, &corev1.PodAntiAffinity{}
		p.Spec.Affinity.PodAffinity, p.Spec.Affinity.PodAntiAffinity = near, away
		for range 1 + r.IntN(2) {
			t, weight := randomTerm(r), int32(1+r.IntN(100))
			switch r.IntN(4) {
			case 0:
				near.RequiredDuringSchedulingIgnoredDuringExecution = append(near.RequiredDuringSchedulingIgnoredDuringExecution, t)
			case 1:
				away.RequiredDuringSchedulingIgnoredDuringExecution = append(away.RequiredDuringSchedulingIgnoredDuringExecution, t)
			case 2:
				near.PreferredDuringSchedulingIgnoredDuringExecution = append(near.PreferredDuringSchedulingIgnoredDuringExecution, corev1.WeightedPodAffinityTerm{Weight: weight, PodAffinityTerm: t})
			case 3:
				away.PreferredDuringSchedulingIgnoredDuringExecution = append(away.PreferredDuringSchedulingIgnoredDuringExecution, corev1.WeightedPodAffinityTerm{Weight: weight, PodAffinityTerm: t})
			}
		}
	}
	if r.IntN(3) == 0 {
		for range 1 + r.IntN(2) {
			c := corev1.TopologySpreadConstraint{
				MaxSkew: int32(1 + r.IntN(2)), TopologyKey: randomKey(r), LabelSelector: randomSelector(r),
				WhenUnsatisfiable: pick(r, corev1.DoNotSchedule, corev1.ScheduleAnyway),
			}
			honor, ignore := corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore
			c.NodeAffinityPolicy, c.NodeTaintsPolicy = pick(r, nil, &honor, &ignore), pick(r, nil, &honor, &ignore)
			if c.WhenUnsatisfiable == corev1.DoNotSchedule && r.IntN(3) == 0 {
				n := int32(1 + r.IntN(3))
				c.MinDomains = &n
			}
			if r.IntN(3) == 0 {
				c.MatchLabelKeys = []string{"rev"}
			}
			p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
		}
	}
}

// addImages adds the scores of ImageLocality: what the nodes have of the pod's images, the more of it the more nodes have it.
func (r *reference) addImages(pod *corev1.Pod, scores map[string]int64) {
	size := func(n *corev1.Node, image string) int64 {
		if !strings.Contains(image, ":") {
			image += ":latest"
		}
		for _, i := range n.Status.Images {
			if slices.Contains(i.Names, image) {
				return i.SizeBytes
			}
		}
		return -1
	}
	for name := range scores {
		var sum, count int64
		for _, c := range append(slices.Clone(pod.Spec.InitContainers), pod.Spec.Containers...) {
			count++
			here := size(r.nodes[name], c.Image)
			if here < 0 {
				continue
			}
			with := 0
			for _, n := range r.nodes {
				if size(n, c.Image) >= 0 {
					with++
				}
			}
			sum += int64(float64(here) * (float64(with) / float64(len(r.nodes))))
		}
		const mega = 1 << 20
		sum = min(max(sum, 23*mega), 1000*mega*count)
		scores[name] += 100 * (sum - 23*mega) / (1000*mega*count - 23*mega)
	}
}
