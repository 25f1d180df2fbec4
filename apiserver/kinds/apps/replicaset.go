package apps

import (
	"context"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func replicaSet() *kind.Kind {
	return &kind.Kind{
		GVK:        appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		Resource:   "replicasets",
		Singular:   "replicaset",
		ShortNames: []string{"rs"},
		Categories: []string{"all"},
		Namespaced: true,

		Default: typed.Default(func(r *appsv1.ReplicaSet) {
			podspec.DefaultTemplate(&r.Spec.Template)
			rules.SetNil(&r.Spec.Replicas, 1)
		}),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, r *appsv1.ReplicaSet) {
			r.Status = appsv1.ReplicaSetStatus{}
			r.Generation = 1
			podspec.PrepareTemplate(ctx, &r.Spec.Template, nil, templatePath())
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(ctx context.Context, r, old *appsv1.ReplicaSet) {
			r.Status = old.Status
			podspec.PrepareTemplate(ctx, &r.Spec.Template, &old.Spec.Template, templatePath())
			r.Generation = old.Generation
			if !apiequality.Semantic.DeepEqual(r.Spec, old.Spec) {
				r.Generation++
			}
		}),
		Validate: typed.Validate(func(r *appsv1.ReplicaSet) field.ErrorList {
			return validateReplicaSetSpec(&r.Spec, field.NewPath("spec"), podspec.OptionsFor(&r.Spec.Template.Spec, nil))
		}),
		ValidateUpdate: typed.ValidateUpdate(func(r, old *appsv1.ReplicaSet) field.ErrorList {
			errs := validateReplicaSetSpec(&r.Spec, field.NewPath("spec"), podspec.OptionsFor(&r.Spec.Template.Spec, &old.Spec.Template.Spec))
			return append(errs, rules.Immutable(r.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
		}),
		Warnings: typed.Warnings(func(ctx context.Context, obj, old *appsv1.ReplicaSet) []string {
			if old == nil {
				return append(rules.NameForPods(obj.Name), podspec.TemplateWarnings(ctx, &obj.Spec.Template, nil, templatePath())...)
			}
			if obj.Generation == old.Generation {
				return nil
			}
			return podspec.TemplateWarnings(ctx, &obj.Spec.Template, &old.Spec.Template, templatePath())
		}),
		AllowUnconditionalUpdate: true,
		Status:                   &kind.Subresource{Validate: typed.ValidateUpdate(validateReplicaSetStatus)},
		Scale: &kind.Scale{
			Get: typed.ScaleGet(func(r *appsv1.ReplicaSet) (int32, int32, string) {
				return replicasOf(r.Spec.Replicas), r.Status.Replicas, selectorText(r.Spec.Selector)
			}),
			Set: typed.ScaleSet(func(r *appsv1.ReplicaSet, n int32) { r.Spec.Replicas = &n }),
		},
		Fields: map[string]func(client.Object) string{
			"status.replicas": typed.Field(func(r *appsv1.ReplicaSet) string { return strconv.Itoa(int(r.Status.Replicas)) }),
		},
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Number("Desired", appsv1.ReplicaSetSpec{}.SwaggerDoc()["replicas"]),
			table.Number("Current", appsv1.ReplicaSetStatus{}.SwaggerDoc()["replicas"]),
			table.Number("Ready", appsv1.ReplicaSetStatus{}.SwaggerDoc()["readyReplicas"]),
			table.Age(),
		}, table.TemplateColumns()...),
		Row: typed.Row(func(r *appsv1.ReplicaSet, now time.Time) []any {
			names, images := table.Containers(r.Spec.Template.Spec.Containers)
			return []any{
				r.Name, int64(replicasOf(r.Spec.Replicas)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas),
				table.Since(r.CreationTimestamp, now), names, images, metav1.FormatLabelSelector(r.Spec.Selector),
			}
		}),
	}
}

func validateReplicaSetSpec(spec *appsv1.ReplicaSetSpec, path *field.Path, opts podspec.Options) field.ErrorList {
	errs := rules.NonNegativePointer(spec.Replicas, path.Child("replicas"))
	errs = append(errs, rules.NonNegative(spec.MinReadySeconds, path.Child("minReadySeconds"))...)
	// Kubernetes says "deployment" here too.
	errs = append(errs, validateSelector(spec.Selector, path.Child("selector"), "empty selector is invalid for deployment")...)
	if selector, err := metav1.LabelSelectorAsSelector(spec.Selector); err != nil {
		errs = append(errs, field.Invalid(path.Child("selector"), spec.Selector, "invalid label selector"))
	} else {
		errs = append(errs, podspec.ValidateReplicatedTemplate(&spec.Template, selector, "ReplicaSet", path.Child("template"), opts)...)
	}
	return errs
}

func validateReplicaSetStatus(r, _ *appsv1.ReplicaSet) field.ErrorList {
	s, path := &r.Status, field.NewPath("status")
	errs := rules.NonNegative(s.Replicas, path.Child("replicas"))
	errs = append(errs, rules.NonNegative(s.FullyLabeledReplicas, path.Child("fullyLabeledReplicas"))...)
	errs = append(errs, rules.NonNegative(s.ReadyReplicas, path.Child("readyReplicas"))...)
	errs = append(errs, rules.NonNegative(s.AvailableReplicas, path.Child("availableReplicas"))...)
	errs = append(errs, rules.NonNegativePointer(s.TerminatingReplicas, path.Child("terminatingReplicas"))...)
	errs = append(errs, rules.NonNegative(s.ObservedGeneration, path.Child("observedGeneration"))...)
	const above = "cannot be greater than status.replicas"
	errs = append(errs, rules.NotAbove(s.FullyLabeledReplicas, s.Replicas, path.Child("fullyLabeledReplicas"), above)...)
	errs = append(errs, rules.NotAbove(s.ReadyReplicas, s.Replicas, path.Child("readyReplicas"), above)...)
	errs = append(errs, rules.NotAbove(s.AvailableReplicas, s.Replicas, path.Child("availableReplicas"), above)...)
	return append(errs, rules.NotAbove(s.AvailableReplicas, s.ReadyReplicas, path.Child("availableReplicas"), "cannot be greater than readyReplicas")...)
}
