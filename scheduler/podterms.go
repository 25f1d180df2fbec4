package scheduler

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// PodSelector is a set of pods: those of some namespaces with some labels.
type PodSelector struct {
	// Namespaces by name, sorted, and those that NamespaceSelector matches beside them; nil for none.
	Namespaces        []string
	NamespaceSelector labels.Selector
	Labels            labels.Selector
	// Live leaves out the pods that are being deleted.
	Live bool

	id string
}

// Matches reports whether pod is in the set.
func (s *PodSelector) Matches(pod *Pod, view *View) bool {
	return s.matchesPod(pod) && (slices.Contains(s.Namespaces, pod.Object.Namespace) ||
		s.NamespaceSelector != nil && s.NamespaceSelector.Matches(view.NamespaceLabels(pod.Object.Namespace)))
}

// MayMatch is Matches where the namespaces' labels are not known.
func (s *PodSelector) MayMatch(pod *Pod) bool {
	return s.matchesPod(pod) && (slices.Contains(s.Namespaces, pod.Object.Namespace) || s.NamespaceSelector != nil)
}

func (s *PodSelector) matchesPod(pod *Pod) bool {
	return !(s.Live && pod.Object.DeletionTimestamp != nil) && s.Labels.Matches(labels.Set(pod.Object.Labels))
}

// ID is the same for selectors that are the same.
func (s *PodSelector) ID() string { return s.id }

func (s *PodSelector) identify() {
	var b strings.Builder
	if s.Live {
		b.WriteByte('+')
	}
	b.WriteString(strings.Join(s.Namespaces, ","))
	for _, sel := range []labels.Selector{s.NamespaceSelector, s.Labels} {
		b.WriteByte(0)
		if sel == nil {
			b.WriteByte('-')
		} else if _, selectable := sel.Requirements(); selectable {
			b.WriteByte('=')
			b.WriteString(sel.String())
		}
	}
	s.id = b.String()
}

// PodTerm is a term of a pod's affinity or anti-affinity to other pods.
type PodTerm struct {
	PodSelector
	TopologyKey string
	Weight      int64 // of a preferred term

	full string
}

// ID is the same for terms that are the same.
func (t *PodTerm) ID() string { return t.full }

// TermKind distinguishes the four lists of terms.
type TermKind int

// The kinds of terms of affinity between pods.
const (
	RequiredAffinity TermKind = iota
	RequiredAntiAffinity
	PreferredAffinity
	PreferredAntiAffinity
	termKinds
)

// Terms are a pod's terms of affinity to other pods, by kind.
type Terms [termKinds][]PodTerm

// termsOf is nil for pods without such terms, which are nearly all.
func termsOf(pod *corev1.Pod) *Terms {
	a := pod.Spec.Affinity
	if a == nil || a.PodAffinity == nil && a.PodAntiAffinity == nil {
		return nil
	}
	t := &Terms{}
	if a := a.PodAffinity; a != nil {
		t.add(pod, RequiredAffinity, PreferredAffinity, a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := a.PodAntiAffinity; a != nil {
		t.add(pod, RequiredAntiAffinity, PreferredAntiAffinity, a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return t
}

func (t *Terms) add(pod *corev1.Pod, required, preferred TermKind, must []corev1.PodAffinityTerm, should []corev1.WeightedPodAffinityTerm) {
	for i := range must {
		t[required] = append(t[required], podTerm(pod, &must[i], 0))
	}
	for i := range should {
		t[preferred] = append(t[preferred], podTerm(pod, &should[i].PodAffinityTerm, int64(should[i].Weight)))
	}
}

func podTerm(pod *corev1.Pod, from *corev1.PodAffinityTerm, weight int64) PodTerm {
	t := PodTerm{TopologyKey: from.TopologyKey, Weight: weight}
	t.Labels = withKeys(selector(from.LabelSelector), pod.Labels, from.MatchLabelKeys, metav1.LabelSelectorOpIn)
	t.Labels = withKeys(t.Labels, pod.Labels, from.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	t.Namespaces = slices.Sorted(slices.Values(from.Namespaces))
	if from.NamespaceSelector != nil {
		t.NamespaceSelector = selector(from.NamespaceSelector)
	} else if len(t.Namespaces) == 0 {
		t.Namespaces = []string{pod.Namespace}
	}
	t.identify()
	t.full = strconv.FormatInt(t.Weight, 10) + " " + t.TopologyKey + " " + t.id
	return t
}

// selector matches nothing where there is none, or an invalid one that no API server lets through.
func selector(s *metav1.LabelSelector) labels.Selector {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}

// withKeys adds a requirement for each of keys that the pod has a label of, but for those that are in the selector already.
func withKeys(sel labels.Selector, own map[string]string, keys []string, op metav1.LabelSelectorOperator) labels.Selector {
	reqs, _ := sel.Requirements()
	return withAllKeys(sel, own, slices.DeleteFunc(slices.Clone(keys), func(k string) bool {
		return slices.ContainsFunc(reqs, func(r labels.Requirement) bool { return r.Key() == k })
	}), op)
}

// withAllKeys adds a requirement for each of keys that the pod has a label of. API servers do so, too, when a pod is created; of affinity terms kube-scheduler
// leaves it at that, in spread constraints it adds the labels as they are now.
func withAllKeys(sel labels.Selector, own map[string]string, keys []string, op metav1.LabelSelectorOperator) labels.Selector {
	if len(keys) == 0 {
		return sel
	}
	if _, selectable := sel.Requirements(); !selectable {
		return sel
	}
	ls := &metav1.LabelSelector{}
	for _, k := range keys {
		if v, ok := own[k]; ok {
			ls.MatchExpressions = append(ls.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: op, Values: []string{v}})
		}
	}
	more, _ := selector(ls).Requirements()
	return sel.Add(more...)
}

// SpreadConstraint is one of a pod's topology spread constraints.
type SpreadConstraint struct {
	MaxSkew, MinDomains int64
	TopologyKey         string
	// Selector of the pods that are counted.
	Selector PodSelector
	// Hard: DoNotSchedule; otherwise ScheduleAnyway.
	Hard bool
	// HonorAffinity and HonorTaints leave out nodes that the pod can't be on for its node affinity or for its lack of tolerations.
	HonorAffinity, HonorTaints bool
	// Self: the pod itself is counted, once it is placed.
	Self bool
}

func spreadOf(pod *corev1.Pod) (out []SpreadConstraint) {
	for i := range pod.Spec.TopologySpreadConstraints {
		from := &pod.Spec.TopologySpreadConstraints[i]
		c := SpreadConstraint{
			MaxSkew: int64(from.MaxSkew), MinDomains: 1, TopologyKey: from.TopologyKey,
			Hard:          from.WhenUnsatisfiable == corev1.DoNotSchedule,
			HonorAffinity: from.NodeAffinityPolicy == nil || *from.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor,
			HonorTaints:   from.NodeTaintsPolicy != nil && *from.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor,
		}
		if from.MinDomains != nil {
			c.MinDomains = int64(*from.MinDomains)
		}
		sel := withAllKeys(selector(from.LabelSelector), pod.Labels, from.MatchLabelKeys, metav1.LabelSelectorOpIn)
		c.Self = sel.Matches(labels.Set(pod.Labels))
		// Kubernetes counts no pod for a selector that selects all.
		if sel.Empty() {
			sel = labels.Nothing()
		}
		c.Selector = PodSelector{Namespaces: []string{pod.Namespace}, Labels: sel, Live: true}
		c.Selector.identify()
		out = append(out, c)
	}
	return out
}
