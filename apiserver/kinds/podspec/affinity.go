package podspec

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

const weightRange = "must be in the range 1-100"

func (c *check) affinity(a *corev1.Affinity, p *field.Path) {
	if a == nil {
		return
	}
	if n := a.NodeAffinity; n != nil {
		p := p.Child("nodeAffinity")
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			c.nodeSelector(n.RequiredDuringSchedulingIgnoredDuringExecution, c.opts.AllowInvalidLabelValueInSelector,
				p.Child("requiredDuringSchedulingIgnoredDuringExecution"))
		}
		for i, term := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			p := p.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
			if term.Weight <= 0 || term.Weight > 100 {
				c.Invalid(p.Child("weight"), term.Weight, weightRange)
			}
			// Values of preferences were never checked, and stored ones are many.
			c.nodeSelectorTerm(&term.Preference, true, p.Child("preference"))
		}
	}
	if n := a.PodAffinity; n != nil {
		c.podAffinity(n.RequiredDuringSchedulingIgnoredDuringExecution, n.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAffinity"))
	}
	if n := a.PodAntiAffinity; n != nil {
		c.podAffinity(n.RequiredDuringSchedulingIgnoredDuringExecution, n.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAntiAffinity"))
	}
}

// ValidateNodeSelector returns every mistake of a node selector, as persistent volumes have one.
func ValidateNodeSelector(selector *corev1.NodeSelector, path *field.Path) field.ErrorList {
	c := &check{spec: &corev1.PodSpec{}}
	c.nodeSelector(selector, true, path)
	return c.List
}

func (c *check) nodeSelector(selector *corev1.NodeSelector, anyValue bool, p *field.Path) {
	terms := p.Child("nodeSelectorTerms")
	if len(selector.NodeSelectorTerms) == 0 {
		c.Required(terms, "must have at least one node selector term")
	}
	for i := range selector.NodeSelectorTerms {
		c.nodeSelectorTerm(&selector.NodeSelectorTerms[i], anyValue, terms.Index(i))
	}
}

func (c *check) nodeSelectorTerm(term *corev1.NodeSelectorTerm, anyValue bool, p *field.Path) {
	for i, r := range term.MatchExpressions {
		p := p.Child("matchExpressions").Index(i)
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) == 0 {
				c.Required(p.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
			}
		case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				c.Forbidden(p.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
			}
		case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
			if len(r.Values) != 1 {
				c.Required(p.Child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'")
			}
		default:
			c.Invalid(p.Child("operator"), r.Operator, "not a valid selector operator")
		}
		c.Add(metav1validation.ValidateLabelName(r.Key, p.Child("key")))
		if !anyValue {
			for j, value := range r.Values {
				c.InvalidEach(p.Child("values").Index(j), value, validation.IsValidLabelValue(value))
			}
		}
	}
	for i, r := range term.MatchFields {
		p := p.Child("matchFields").Index(i)
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) != 1 {
				c.Required(p.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
			}
		default:
			c.Invalid(p.Child("operator"), r.Operator, "not a valid selector operator")
		}
		if r.Key != metav1.ObjectNameField {
			c.Invalid(p.Child("key"), r.Key, "not a valid field selector key")
			continue
		}
		for j, value := range r.Values {
			c.Name(value, apivalidation.NameIsDNSSubdomain, p.Child("values").Index(j))
		}
	}
}

func (c *check) podAffinity(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, p *field.Path) {
	for i := range required {
		c.podAffinityTerm(&required[i], p.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i))
	}
	for i := range preferred {
		p := p.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
		if w := preferred[i].Weight; w <= 0 || w > 100 {
			c.Invalid(p.Child("weight"), w, weightRange)
		}
		c.podAffinityTerm(&preferred[i].PodAffinityTerm, p.Child("podAffinityTerm"))
	}
}

func (c *check) podAffinityTerm(term *corev1.PodAffinityTerm, p *field.Path) {
	selectorOptions := metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: c.opts.AllowInvalidLabelValueInSelector}
	c.Add(metav1validation.ValidateLabelSelector(term.LabelSelector, selectorOptions, p.Child("labelSelector")))
	c.Add(metav1validation.ValidateLabelSelector(term.NamespaceSelector, selectorOptions, p.Child("namespaceSelector")))
	for _, name := range term.Namespaces {
		c.Name(name, apivalidation.ValidateNamespaceName, p.Child("namespace"))
	}
	c.matchLabelKeys(term.MatchLabelKeys, term.LabelSelector, p.Child("matchLabelKeys"), false)
	c.matchLabelKeys(term.MismatchLabelKeys, term.LabelSelector, p.Child("mismatchLabelKeys"), false)
	both := sets.New(term.MatchLabelKeys...).Intersection(sets.New(term.MismatchLabelKeys...))
	if both.Len() > 0 {
		c.Invalid(p, sets.List(both), "exists in both matchLabelKeys and mismatchLabelKeys")
	}
	if term.TopologyKey == "" {
		c.Required(p.Child("topologyKey"), "can not be empty")
	}
	c.Add(metav1validation.ValidateLabelName(term.TopologyKey, p.Child("topologyKey")))
}

// matchLabelKeys checks keys whose values of the incoming pod are added to a selector.
func (c *check) matchLabelKeys(keys []string, selector *metav1.LabelSelector, p *field.Path, exclusive bool) {
	if len(keys) == 0 {
		return
	}
	if selector == nil {
		c.Forbidden(p, "must not be specified when labelSelector is not set")
	}
	for i, key := range keys {
		c.Add(metav1validation.ValidateLabelName(key, p.Index(i)))
		if exclusive && selector != nil {
			_, labelled := selector.MatchLabels[key]
			if labelled || slices.ContainsFunc(selector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Key == key }) {
				c.Invalid(p.Index(i), key, "exists in both matchLabelKeys and labelSelector")
			}
		}
	}
}

func (c *check) topologySpread(path *field.Path) {
	type pair struct {
		key  string
		when corev1.UnsatisfiableConstraintAction
	}
	seen := sets.New[pair]()
	for i := range c.spec.TopologySpreadConstraints {
		t, p := &c.spec.TopologySpreadConstraints[i], path.Index(i)
		if t.MaxSkew <= 0 {
			c.Invalid(p.Child("maxSkew"), t.MaxSkew, validate.NotPositive)
		}
		if t.TopologyKey == "" {
			c.Required(p.Child("topologyKey"), "can not be empty")
		} else {
			c.Add(metav1validation.ValidateLabelName(t.TopologyKey, p.Child("topologyKey")))
		}
		validate.OneOfOrEmptyRefused(&c.Errors, p.Child("whenUnsatisfiable"), t.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
		if k := (pair{t.TopologyKey, t.WhenUnsatisfiable}); seen.Has(k) {
			c.Duplicate(p.Child("{topologyKey, whenUnsatisfiable}"), "{"+k.key+", "+string(k.when)+"}")
		} else {
			seen.Insert(k)
		}
		if t.MinDomains != nil {
			if *t.MinDomains <= 0 {
				c.Invalid(p.Child("minDomains"), *t.MinDomains, validate.NotPositive)
			} else if t.WhenUnsatisfiable != corev1.DoNotSchedule {
				c.Invalid(p.Child("minDomains"), *t.MinDomains, "can only use minDomains if whenUnsatisfiable="+string(corev1.DoNotSchedule)+", not "+string(t.WhenUnsatisfiable))
			}
		}
		for _, policy := range []struct {
			name  string
			value *corev1.NodeInclusionPolicy
		}{{"nodeAffinityPolicy", t.NodeAffinityPolicy}, {"nodeTaintsPolicy", t.NodeTaintsPolicy}} {
			if policy.value != nil {
				validate.OneOfOrEmptyRefused(&c.Errors, p.Child(policy.name), *policy.value, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
			}
		}
		c.matchLabelKeys(t.MatchLabelKeys, t.LabelSelector, p.Child("matchLabelKeys"), true)
		if !c.opts.AllowInvalidSpreadSelector {
			c.Add(metav1validation.ValidateLabelSelector(t.LabelSelector, metav1validation.LabelSelectorValidationOptions{}, p.Child("labelSelector")))
		}
	}
}
