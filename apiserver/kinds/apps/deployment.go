package apps

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func deployment() *kind.Kind {
	return &kind.Kind{
		GVK:        appsv1.SchemeGroupVersion.WithKind("Deployment"),
		Resource:   "deployments",
		Singular:   "deployment",
		ShortNames: []string{"deploy"},
		Categories: []string{"all"},
		Namespaced: true,

		Default:          typed.Default(defaultDeployment),
		PrepareForCreate: typed.Prepare(prepareDeployment),
		PrepareForUpdate: typed.PrepareUpdate(prepareDeploymentUpdate),
		Validate:         typed.Validate(validateDeployment),
		ValidateUpdate:   typed.ValidateUpdate(validateDeploymentUpdate),
		Warnings: typed.Warnings(func(ctx context.Context, obj, old *appsv1.Deployment) []string {
			if old == nil {
				return append(rules.NameForPods(obj.Name), podspec.TemplateWarnings(ctx, &obj.Spec.Template, nil, templatePath())...)
			}
			if obj.Generation == old.Generation {
				return nil
			}
			return podspec.TemplateWarnings(ctx, &obj.Spec.Template, &old.Spec.Template, templatePath())
		}),
		AllowCreateOnUpdate:      false,
		AllowUnconditionalUpdate: true,
		Status:                   &kind.Subresource{Validate: typed.ValidateUpdate(validateDeploymentStatus)},
		Scale: &kind.Scale{
			Get: typed.ScaleGet(func(d *appsv1.Deployment) (int32, int32, string) {
				return replicasOf(d.Spec.Replicas), d.Status.Replicas, selectorText(d.Spec.Selector)
			}),
			Set: typed.ScaleSet(func(d *appsv1.Deployment, n int32) { d.Spec.Replicas = &n }),
		},
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Ready", "Number of the pod with ready state"),
			table.Text("Up-to-date", appsv1.DeploymentStatus{}.SwaggerDoc()["updatedReplicas"]),
			table.Text("Available", appsv1.DeploymentStatus{}.SwaggerDoc()["availableReplicas"]),
			table.Age(),
		}, table.TemplateColumns()...),
		Row: typed.Row(func(d *appsv1.Deployment, now time.Time) []any {
			names, images := table.Containers(d.Spec.Template.Spec.Containers)
			return []any{
				d.Name,
				fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, replicasOf(d.Spec.Replicas)),
				int64(d.Status.UpdatedReplicas),
				int64(d.Status.AvailableReplicas),
				table.Since(d.CreationTimestamp, now),
				names, images, metav1.FormatLabelSelector(d.Spec.Selector),
			}
		}),
	}
}

func templatePath() *field.Path { return field.NewPath("spec", "template") }

// replicasOf reads a replica count that defaulting has set.
func replicasOf(replicas *int32) int32 {
	if replicas == nil {
		return 0
	}
	return *replicas
}

func defaultDeployment(d *appsv1.Deployment) {
	podspec.DefaultTemplate(&d.Spec.Template)
	rules.SetNil(&d.Spec.Replicas, 1)
	rules.SetZero(&d.Spec.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
	if d.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		rules.SetNil(&d.Spec.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		rules.SetNil(&d.Spec.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		rules.SetNil(&d.Spec.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	rules.SetNil(&d.Spec.RevisionHistoryLimit, 10)
	rules.SetNil(&d.Spec.ProgressDeadlineSeconds, 600)
}

func prepareDeployment(ctx context.Context, d *appsv1.Deployment) {
	d.Status = appsv1.DeploymentStatus{}
	d.Generation = 1
	podspec.PrepareTemplate(ctx, &d.Spec.Template, nil, templatePath())
}

func prepareDeploymentUpdate(ctx context.Context, d, old *appsv1.Deployment) {
	d.Status = old.Status
	podspec.PrepareTemplate(ctx, &d.Spec.Template, &old.Spec.Template, templatePath())
	// The deployment controller acts on annotations (rollout, revisions), so their change counts as a new generation.
	d.Generation = old.Generation
	if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) || !apiequality.Semantic.DeepEqual(d.Annotations, old.Annotations) {
		d.Generation++
	}
}

func validateDeployment(d *appsv1.Deployment) field.ErrorList {
	return validateDeploymentSpec(&d.Spec, field.NewPath("spec"), podspec.OptionsFor(&d.Spec.Template.Spec, nil))
}

func validateDeploymentSpec(spec *appsv1.DeploymentSpec, path *field.Path, opts podspec.Options) field.ErrorList {
	errs := rules.NonNegativePointer(spec.Replicas, path.Child("replicas"))
	errs = append(errs, validateSelector(spec.Selector, path.Child("selector"), "empty selector is invalid for deployment")...)
	if selector, err := metav1.LabelSelectorAsSelector(spec.Selector); err != nil {
		errs = append(errs, field.Invalid(path.Child("selector"), spec.Selector, "invalid label selector"))
	} else {
		errs = append(errs, podspec.ValidateReplicatedTemplate(&spec.Template, selector, "ReplicaSet", path.Child("template"), opts)...)
	}
	errs = append(errs, validateDeploymentStrategy(&spec.Strategy, path.Child("strategy"))...)
	errs = append(errs, rules.NonNegative(spec.MinReadySeconds, path.Child("minReadySeconds"))...)
	errs = append(errs, rules.NonNegativePointer(spec.RevisionHistoryLimit, path.Child("revisionHistoryLimit"))...)
	if deadline := spec.ProgressDeadlineSeconds; deadline != nil {
		errs = append(errs, rules.NonNegative(*deadline, path.Child("progressDeadlineSeconds"))...)
		if *deadline <= spec.MinReadySeconds {
			errs = append(errs, field.Invalid(path.Child("progressDeadlineSeconds"), *deadline, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func validateDeploymentStrategy(strategy *appsv1.DeploymentStrategy, path *field.Path) field.ErrorList {
	switch strategy.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if strategy.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(path.Child("rollingUpdate"), "may not be specified when strategy `type` is '"+string(appsv1.RecreateDeploymentStrategyType)+"'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
		if strategy.RollingUpdate == nil {
			return field.ErrorList{field.Required(path.Child("rollingUpdate"), "this should be defaulted and never be nil")}
		}
		return validateRollingUpdate(strategy.RollingUpdate, path.Child("rollingUpdate"))
	default:
		return field.ErrorList{field.NotSupported(path.Child("type"), strategy.Type,
			[]appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
	}
}

func validateRollingUpdate(r *appsv1.RollingUpdateDeployment, path *field.Path) field.ErrorList {
	var unavailable, surge intstr.IntOrString
	if r.MaxUnavailable != nil {
		unavailable = *r.MaxUnavailable
	}
	if r.MaxSurge != nil {
		surge = *r.MaxSurge
	}
	errs := rules.IntOrPercent(unavailable, path.Child("maxUnavailable"))
	errs = append(errs, rules.IntOrPercent(surge, path.Child("maxSurge"))...)
	if rules.Amount(unavailable) == 0 && rules.Amount(surge) == 0 {
		errs = append(errs, field.Invalid(path.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, rules.AtMost100Percent(unavailable, path.Child("maxUnavailable"))...)
}

func validateDeploymentUpdate(d, old *appsv1.Deployment) field.ErrorList {
	errs := validateDeploymentSpec(&d.Spec, field.NewPath("spec"), podspec.OptionsFor(&d.Spec.Template.Spec, &old.Spec.Template.Spec))
	return append(errs, rules.Immutable(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
}

func validateDeploymentStatus(d, old *appsv1.Deployment) field.ErrorList {
	s, path := &d.Status, field.NewPath("status")
	errs := rules.NonNegative(s.ObservedGeneration, path.Child("observedGeneration"))
	errs = append(errs, rules.NonNegative(s.Replicas, path.Child("replicas"))...)
	errs = append(errs, rules.NonNegative(s.UpdatedReplicas, path.Child("updatedReplicas"))...)
	errs = append(errs, rules.NonNegative(s.ReadyReplicas, path.Child("readyReplicas"))...)
	errs = append(errs, rules.NonNegative(s.AvailableReplicas, path.Child("availableReplicas"))...)
	errs = append(errs, rules.NonNegative(s.UnavailableReplicas, path.Child("unavailableReplicas"))...)
	errs = append(errs, rules.NonNegativePointer(s.TerminatingReplicas, path.Child("terminatingReplicas"))...)
	errs = append(errs, rules.NonNegativePointer(s.CollisionCount, path.Child("collisionCount"))...)
	const above = "cannot be greater than status.replicas"
	errs = append(errs, rules.NotAbove(s.UpdatedReplicas, s.Replicas, path.Child("updatedReplicas"), above)...)
	errs = append(errs, rules.NotAbove(s.ReadyReplicas, s.Replicas, path.Child("readyReplicas"), above)...)
	errs = append(errs, rules.NotAbove(s.AvailableReplicas, s.Replicas, path.Child("availableReplicas"), above)...)
	errs = append(errs, rules.NotAbove(s.AvailableReplicas, s.ReadyReplicas, path.Child("availableReplicas"), "cannot be greater than readyReplicas")...)
	return append(errs, rules.NotDecremented(s.CollisionCount, old.Status.CollisionCount, path.Child("collisionCount"))...)
}
