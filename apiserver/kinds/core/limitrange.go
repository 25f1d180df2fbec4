package core

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func limitRange() *kind.Kind {
	return &kind.Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("LimitRange"),
		Resource:   "limitranges",
		Singular:   "limitrange",
		ShortNames: []string{"limits"},
		Namespaced: true,

		Default: typed.Default(func(l *corev1.LimitRange) {
			for i := range l.Spec.Limits {
				defaultLimits(&l.Spec.Limits[i])
			}
		}),
		PrepareForCreate:         asGiven,
		PrepareForUpdate:         asGivenUpdate,
		Validate:                 typed.Validate(validateLimitRange),
		ValidateUpdate:           typed.ValidateUpdate(func(l, _ *corev1.LimitRange) field.ErrorList { return validateLimitRange(l) }),
		AllowUnconditionalUpdate: true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(), {Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
		},
		Row: typed.Row(func(l *corev1.LimitRange, now time.Time) []any {
			return []any{l.Name, l.CreationTimestamp.Time.UTC().Format("2006-01-02T15:04:05Z")}
		}),
	}
}

// defaultLimits: for containers, the limit is the maximum, the request is the limit or else the minimum.
func defaultLimits(item *corev1.LimitRangeItem) {
	for _, list := range []corev1.ResourceList{item.Max, item.Min, item.Default, item.DefaultRequest, item.MaxLimitRequestRatio} {
		podspec.RoundResources(list)
	}
	if item.Type != corev1.LimitTypeContainer {
		return
	}
	fill := func(to *corev1.ResourceList, from corev1.ResourceList) {
		for name, quantity := range from {
			if _, set := (*to)[name]; set {
				continue
			}
			if *to == nil {
				*to = corev1.ResourceList{}
			}
			(*to)[name] = quantity.DeepCopy()
		}
	}
	fill(&item.Default, item.Max)
	fill(&item.DefaultRequest, item.Default)
	fill(&item.DefaultRequest, item.Min)
}

func validateLimitRange(l *corev1.LimitRange) field.ErrorList {
	e := &validate.Errors{}
	types := sets.New[corev1.LimitType]()
	for i := range l.Spec.Limits {
		item, p := &l.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		e.InvalidEach(p.Child("type"), item.Type, validation.IsQualifiedName(string(item.Type)))
		switch item.Type {
		case corev1.LimitTypePod, corev1.LimitTypeContainer, corev1.LimitTypePersistentVolumeClaim:
		default:
			if !validate.IsQualifiedWithPrefix(string(item.Type)) {
				e.Invalid(p.Child("type"), item.Type, "must be a standard limit type or fully qualified")
			}
		}
		if types.Has(item.Type) {
			e.Duplicate(p.Child("type"), item.Type)
		}
		types.Insert(item.Type)
		limitItem(e, item, p)
	}
	return e.List
}

func limitItem(e *validate.Errors, item *corev1.LimitRangeItem, p *field.Path) {
	names := sets.New[corev1.ResourceName]()
	list := func(name string, resources corev1.ResourceList) {
		for _, n := range sets.List(sets.KeySet(resources)) {
			e.ResourceName(n, p.Child(name).Key(string(n)))
			if item.Type == corev1.LimitTypePod || item.Type == corev1.LimitTypeContainer {
				limitResourceName(e, item.Type, n, p.Child(name).Key(string(n)))
			}
			names.Insert(n)
		}
	}
	list("max", item.Max)
	list("min", item.Min)
	if item.Type == corev1.LimitTypePod {
		if len(item.Default) > 0 {
			e.Forbidden(p.Child("default"), "may not be specified when `type` is 'Pod'")
		}
		if len(item.DefaultRequest) > 0 {
			e.Forbidden(p.Child("defaultRequest"), "may not be specified when `type` is 'Pod'")
		}
	} else {
		list("default", item.Default)
		list("defaultRequest", item.DefaultRequest)
	}
	if item.Type == corev1.LimitTypePersistentVolumeClaim {
		_, hasMin := item.Min[corev1.ResourceStorage]
		_, hasMax := item.Max[corev1.ResourceStorage]
		if !hasMin && !hasMax {
			e.Required(p, "either minimum or maximum storage value is required, but neither was provided")
		}
	}
	list("maxLimitRequestRatio", item.MaxLimitRequestRatio)
	for _, n := range sets.List(names) {
		limitOrder(e, item, n, p)
	}
}

func limitResourceName(e *validate.Errors, t corev1.LimitType, n corev1.ResourceName, p *field.Path) {
	if validate.IsStandardContainerResource(n) || validate.IsQualifiedWithPrefix(string(n)) {
		return
	}
	e.Invalid(p, n, "must be a standard resource for "+map[corev1.LimitType]string{corev1.LimitTypePod: "pods", corev1.LimitTypeContainer: "containers"}[t])
}

// limitOrder checks that min ≤ defaultRequest ≤ default ≤ max, and the ratio.
func limitOrder(e *validate.Errors, item *corev1.LimitRangeItem, n corev1.ResourceName, p *field.Path) {
	key := func(name string) *field.Path { return p.Child(name).Key(string(n)) }
	ordered := func(low, high corev1.ResourceList, at, what, other string) {
		a, hasA := low[n]
		b, hasB := high[n]
		if hasA && hasB && a.Cmp(b) > 0 {
			e.Invalid(key(at), a, fmt.Sprintf("%s value %s is greater than %s value %s", what, a.String(), other, b.String()))
		}
	}
	ordered(item.Min, item.Max, "min", "min", "max")
	ordered(item.Min, item.DefaultRequest, "defaultRequest", "min", "default request")
	ordered(item.DefaultRequest, item.Max, "defaultRequest", "default request", "max")
	ordered(item.DefaultRequest, item.Default, "defaultRequest", "default request", "default limit")
	ordered(item.Min, item.Default, "default", "min", "default")
	ordered(item.Default, item.Max, "default", "default", "max")
	ratio, hasRatio := item.MaxLimitRequestRatio[n]
	if !hasRatio {
		return
	}
	if ratio.Cmp(*resource.NewQuantity(1, resource.DecimalSI)) < 0 {
		e.Invalid(key("maxLimitRequestRatio"), ratio, fmt.Sprintf("ratio %s is less than 1", ratio.String()))
	}
	low, hasMin := item.Min[n]
	high, hasMax := item.Max[n]
	if hasMin && hasMax && low.Sign() > 0 {
		if bound := float64(high.MilliValue()) / float64(low.MilliValue()); float64(ratio.Value()) > bound {
			e.Invalid(key("maxLimitRequestRatio"), ratio, fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), bound))
		}
	}
	if !validate.OvercommitAllowed(n) {
		if d, r := item.Default[n], item.DefaultRequest[n]; d.Cmp(r) != 0 {
			e.Invalid(key("defaultRequest"), r, fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", d.String(), r.String(), n))
		}
	}
}
