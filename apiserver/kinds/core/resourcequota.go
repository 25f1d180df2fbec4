package core

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func resourceQuota() *kind.Kind {
	return &kind.Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("ResourceQuota"),
		Resource:   "resourcequotas",
		Singular:   "resourcequota",
		ShortNames: []string{"quota"},
		Namespaced: true,

		Default: typed.Default(func(q *corev1.ResourceQuota) {
			podspec.RoundResources(q.Spec.Hard)
			podspec.RoundResources(q.Status.Hard)
			podspec.RoundResources(q.Status.Used)
		}),
		PrepareForCreate: typed.Prepare(func(_ context.Context, q *corev1.ResourceQuota) { q.Status = corev1.ResourceQuotaStatus{} }),
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, q, old *corev1.ResourceQuota) { q.Status = old.Status }),
		Validate:         typed.Validate(validateResourceQuota),
		ValidateUpdate: typed.ValidateUpdate(func(q, old *corev1.ResourceQuota) field.ErrorList {
			e := &validate.Errors{}
			e.Add(validateResourceQuota(q))
			// Of which scope a quota is decides what it has counted.
			p := field.NewPath("spec", "scopes")
			scopes := func(list []corev1.ResourceQuotaScope) sets.Set[corev1.ResourceQuotaScope] { return sets.New(list...) }
			if !scopes(q.Spec.Scopes).Equal(scopes(old.Spec.Scopes)) {
				e.Invalid(p, q.Spec.Scopes, validate.ImmutableText)
			}
			if !equality.Semantic.DeepEqual(q.Spec.ScopeSelector, old.Spec.ScopeSelector) && (q.Spec.ScopeSelector == nil || old.Spec.ScopeSelector == nil) {
				e.Invalid(field.NewPath("spec", "scopeSelector"), q.Spec.ScopeSelector, validate.ImmutableText)
			}
			return e.List
		}),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		Status: &kind.Subresource{Validate: typed.ValidateUpdate(func(q, _ *corev1.ResourceQuota) field.ErrorList {
			e := &validate.Errors{}
			if q.ResourceVersion == "" {
				e.Required(field.NewPath("resourceVersion"), "")
			}
			quotaList(e, q.Status.Hard, field.NewPath("status", "hard"))
			quotaList(e, q.Status.Used, field.NewPath("status", "used"))
			return e.List
		})},
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
			table.Text("Limit", "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."),
			table.Age(),
		},
		Row: typed.Row(func(q *corev1.ResourceQuota, now time.Time) []any {
			var requests, limits []string
			for _, name := range sets.List(sets.KeySet(q.Status.Hard)) {
				used, hard := q.Status.Used[name], q.Status.Hard[name]
				text := fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String())
				if strings.HasPrefix(string(name), "limits.") {
					limits = append(limits, text)
				} else {
					requests = append(requests, text)
				}
			}
			return []any{q.Name, strings.Join(requests, ", "), strings.Join(limits, ", "), table.Since(q.CreationTimestamp, now)}
		}),
	}
}

func quotaList(e *validate.Errors, list corev1.ResourceList, p *field.Path) {
	for _, name := range sets.List(sets.KeySet(list)) {
		e.QuotaResourceName(name, p.Key(string(name)))
		e.ResourceQuantity(name, list[name], p.Key(string(name)))
	}
}

var (
	quotaScopes = []corev1.ResourceQuotaScope{
		corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeBestEffort,
		corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity,
		corev1.ResourceQuotaScopeVolumeAttributesClass,
	}
	// podScopeResources can be counted by scopes of pods, bestEffortResources by that of pods that ask for nothing.
	podScopeResources = sets.New(
		corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
	)
	bestEffortResources = sets.New(corev1.ResourcePods)
	storageResources    = sets.New(corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage)
	exclusiveScopes     = [][2]corev1.ResourceQuotaScope{
		{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort},
		{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating},
	}
)

func scopeCounts(scope corev1.ResourceQuotaScope, name corev1.ResourceName) bool {
	switch scope {
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffortResources.Has(name)
	case corev1.ResourceQuotaScopeVolumeAttributesClass:
		return storageResources.Has(name) || name == "storage"
	case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeNotBestEffort,
		corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return podScopeResources.Has(name)
	}
	return true
}

func validateResourceQuota(q *corev1.ResourceQuota) field.ErrorList {
	e := &validate.Errors{}
	spec := field.NewPath("spec")
	quotaList(e, q.Spec.Hard, spec.Child("hard"))
	hard := sets.List(sets.KeySet(q.Spec.Hard))
	check := func(scopes []corev1.ResourceQuotaScope, p *field.Path) {
		seen := sets.New[corev1.ResourceQuotaScope]()
		for _, scope := range scopes {
			if !slices.Contains(quotaScopes, scope) {
				e.Invalid(p, scopes, "unsupported scope")
			}
			for _, name := range hard {
				if !scopeCounts(scope, name) {
					e.Invalid(p, scopes, "unsupported scope applied to resource")
				}
			}
			seen.Insert(scope)
		}
		for _, pair := range exclusiveScopes {
			if seen.HasAll(pair[0], pair[1]) {
				e.Invalid(p, scopes, "conflicting scopes")
			}
		}
	}
	if len(q.Spec.Scopes) > 0 {
		check(q.Spec.Scopes, spec.Child("scopes"))
	}
	if q.Spec.ScopeSelector == nil {
		return e.List
	}
	p := spec.Child("scopeSelector", "matchExpressions")
	var scopes []corev1.ResourceQuotaScope
	for i, r := range q.Spec.ScopeSelector.MatchExpressions {
		p := p.Index(i)
		scopes = append(scopes, r.ScopeName)
		if !slices.Contains(quotaScopes, r.ScopeName) {
			e.Invalid(p.Child("scopeName"), r.ScopeName, "unsupported scope")
		}
		for _, name := range hard {
			if !scopeCounts(r.ScopeName, name) {
				e.Invalid(p, q.Spec.ScopeSelector, "unsupported scope applied to resource")
			}
		}
		switch r.ScopeName {
		case corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeVolumeAttributesClass:
		default:
			if r.Operator != corev1.ScopeSelectorOpExists {
				e.Invalid(p.Child("operator"), r.Operator, "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "+
					"ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity")
			}
		}
		switch r.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			if len(r.Values) == 0 {
				e.Required(p.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector")
			}
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				e.Invalid(p.Child("values"), r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector")
			}
		default:
			e.Invalid(p.Child("operator"), r.Operator, "not a valid selector operator")
		}
	}
	for _, pair := range exclusiveScopes {
		if slices.Contains(scopes, pair[0]) && slices.Contains(scopes, pair[1]) {
			e.Invalid(p, scopes, "conflicting scopes")
		}
	}
	return e.List
}
