package policy

import (
	"context"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

// Group returns the declarations of API group policy.
func Group() kind.Group {
	return kind.Group{
		Name:        policyv1.GroupName,
		AddToScheme: policyv1.AddToScheme,
		Versions:    []string{"v1"},
		Kinds:       []*kind.Kind{podDisruptionBudget()},
	}
}

func podDisruptionBudget() *kind.Kind {
	return &kind.Kind{
		GVK:        policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"),
		Resource:   "poddisruptionbudgets",
		Singular:   "poddisruptionbudget",
		ShortNames: []string{"pdb"},
		Namespaced: true,

		PrepareForCreate: typed.Prepare(func(_ context.Context, p *policyv1.PodDisruptionBudget) {
			p.Status = policyv1.PodDisruptionBudgetStatus{}
			p.Generation = 1
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, p, old *policyv1.PodDisruptionBudget) {
			p.Status = old.Status
			p.Generation = old.Generation
			if !apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
				p.Generation++
			}
		}),
		Validate:       typed.Validate(func(p *policyv1.PodDisruptionBudget) field.ErrorList { return validateSpec(&p.Spec) }),
		ValidateUpdate: typed.ValidateUpdate(func(p, _ *policyv1.PodDisruptionBudget) field.ErrorList { return validateSpec(&p.Spec) }),
		Warnings: typed.Warnings(func(_ context.Context, p, _ *policyv1.PodDisruptionBudget) []string {
			if s := p.Spec.Selector; s != nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
				return []string{"spec.selector: an empty selector matches all pods in the namespace"}
			}
			return nil
		}),
		Status:  &kind.Subresource{Validate: typed.ValidateUpdate(validateStatus)},
		Columns: columns(),
		Row: typed.Row(func(p *policyv1.PodDisruptionBudget, now time.Time) []any {
			min, max := "N/A", "N/A"
			if p.Spec.MinAvailable != nil {
				min = p.Spec.MinAvailable.String()
			}
			if p.Spec.MaxUnavailable != nil {
				max = p.Spec.MaxUnavailable.String()
			}
			return []any{p.Name, min, max, int64(p.Status.DisruptionsAllowed), table.Since(p.CreationTimestamp, now)}
		}),
	}
}

func columns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		table.Name(),
		table.Text("Min Available", "The minimum number of pods that must be available."),
		table.Text("Max Unavailable", "The maximum number of pods that may be unavailable."),
		table.Number("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
		table.Age(),
	}
}

func validateSpec(spec *policyv1.PodDisruptionBudgetSpec) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if spec.MinAvailable != nil && spec.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(path, spec, "minAvailable and maxUnavailable cannot be both set"))
	}
	if spec.MinAvailable != nil {
		errs = append(errs, rules.IntOrPercent(*spec.MinAvailable, path.Child("minAvailable"))...)
		errs = append(errs, rules.AtMost100Percent(*spec.MinAvailable, path.Child("minAvailable"))...)
	}
	if spec.MaxUnavailable != nil {
		errs = append(errs, rules.IntOrPercent(*spec.MaxUnavailable, path.Child("maxUnavailable"))...)
		errs = append(errs, rules.AtMost100Percent(*spec.MaxUnavailable, path.Child("maxUnavailable"))...)
	}
	if spec.UnhealthyPodEvictionPolicy != nil {
		errs = append(errs, rules.OneOf(*spec.UnhealthyPodEvictionPolicy, path.Child("unhealthyPodEvictionPolicy"), policyv1.AlwaysAllow, policyv1.IfHealthyBudget)...)
	}
	return append(errs, rules.LabelSelector(spec.Selector, path.Child("selector"))...)
}

func validateStatus(p, _ *policyv1.PodDisruptionBudget) field.ErrorList {
	path := field.NewPath("status")
	errs := rules.Conditions(p.Status.Conditions, path.Child("conditions"))
	errs = append(errs, rules.NonNegative(p.Status.DisruptionsAllowed, path.Child("disruptionsAllowed"))...)
	errs = append(errs, rules.NonNegative(p.Status.CurrentHealthy, path.Child("currentHealthy"))...)
	errs = append(errs, rules.NonNegative(p.Status.DesiredHealthy, path.Child("desiredHealthy"))...)
	return append(errs, rules.NonNegative(p.Status.ExpectedPods, path.Child("expectedPods"))...)
}
