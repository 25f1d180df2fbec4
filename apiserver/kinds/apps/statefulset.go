package apps

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func statefulSet() *kind.Kind {
	columns := append([]metav1.TableColumnDefinition{
		table.Name(),
		table.Text("Ready", "Number of the pod with ready state"),
		table.Age(),
	}, table.TemplateColumns()[:2]...)
	return &kind.Kind{
		GVK:        appsv1.SchemeGroupVersion.WithKind("StatefulSet"),
		Resource:   "statefulsets",
		Singular:   "statefulset",
		ShortNames: []string{"sts"},
		Categories: []string{"all"},
		Namespaced: true,

		Default: typed.Default(defaultStatefulSet),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, s *appsv1.StatefulSet) {
			s.Status = appsv1.StatefulSetStatus{}
			s.Generation = 1
			podspec.PrepareTemplate(ctx, &s.Spec.Template, nil, templatePath())
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(ctx context.Context, s, old *appsv1.StatefulSet) {
			s.Status = old.Status
			podspec.PrepareTemplate(ctx, &s.Spec.Template, &old.Spec.Template, templatePath())
			s.Generation = old.Generation
			if !apiequality.Semantic.DeepEqual(s.Spec, old.Spec) {
				s.Generation++
			}
		}),
		Validate: typed.Validate(func(s *appsv1.StatefulSet) field.ErrorList {
			return validateStatefulSetSpec(&s.Spec, field.NewPath("spec"), podspec.OptionsFor(&s.Spec.Template.Spec, nil), false)
		}),
		ValidateUpdate: typed.ValidateUpdate(validateStatefulSetUpdate),
		Warnings: typed.Warnings(func(ctx context.Context, obj, old *appsv1.StatefulSet) []string {
			if old != nil && obj.Generation == old.Generation {
				return nil
			}
			var before *corev1.PodTemplateSpec
			if old != nil {
				before = &old.Spec.Template
			}
			warnings := podspec.TemplateWarnings(ctx, &obj.Spec.Template, before, templatePath())
			if limit := obj.Spec.RevisionHistoryLimit; limit != nil && *limit < 0 {
				warnings = append(warnings, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
			}
			return warnings
		}),
		AllowUnconditionalUpdate: true,
		Status:                   &kind.Subresource{Validate: typed.ValidateUpdate(validateStatefulSetStatus)},
		Scale: &kind.Scale{
			Get: typed.ScaleGet(func(s *appsv1.StatefulSet) (int32, int32, string) {
				return replicasOf(s.Spec.Replicas), s.Status.Replicas, selectorText(s.Spec.Selector)
			}),
			Set: typed.ScaleSet(func(s *appsv1.StatefulSet, n int32) { s.Spec.Replicas = &n }),
		},
		Columns: columns,
		Row: typed.Row(func(s *appsv1.StatefulSet, now time.Time) []any {
			names, images := table.Containers(s.Spec.Template.Spec.Containers)
			return []any{
				s.Name, fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, replicasOf(s.Spec.Replicas)),
				table.Since(s.CreationTimestamp, now), names, images,
			}
		}),
	}
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	podspec.DefaultTemplate(&s.Spec.Template)
	for i := range s.Spec.VolumeClaimTemplates {
		claim := &s.Spec.VolumeClaimTemplates[i]
		// The v1 API has always answered with these filled in.
		claim.APIVersion, claim.Kind = "v1", "PersistentVolumeClaim"
		podspec.DefaultClaimSpec(&claim.Spec)
		rules.SetZero(&claim.Status.Phase, corev1.ClaimPending)
	}
	rules.SetZero(&s.Spec.PodManagementPolicy, appsv1.OrderedReadyPodManagement)
	strategy := &s.Spec.UpdateStrategy
	if strategy.Type == "" {
		strategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		rules.SetNil(&strategy.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
	}
	if strategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && strategy.RollingUpdate != nil {
		rules.SetNil(&strategy.RollingUpdate.Partition, 0)
		rules.SetNil(&strategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
	}
	rules.SetNil(&s.Spec.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	rules.SetZero(&s.Spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	rules.SetZero(&s.Spec.PersistentVolumeClaimRetentionPolicy.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	rules.SetNil(&s.Spec.Replicas, 1)
	rules.SetNil(&s.Spec.RevisionHistoryLimit, 10)
}

// validateStatefulSetSpec checks the template and claims unless they are lenient: those of a set that was let in before they were checked.
func validateStatefulSetSpec(spec *appsv1.StatefulSetSpec, path *field.Path, opts podspec.Options, lenient bool) field.ErrorList {
	var errs field.ErrorList
	switch spec.PodManagementPolicy {
	case "":
		errs = append(errs, field.Required(path.Child("podManagementPolicy"), ""))
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		errs = append(errs, field.Invalid(path.Child("podManagementPolicy"), spec.PodManagementPolicy,
			fmt.Sprintf("must be '%s' or '%s'", appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)))
	}
	errs = append(errs, validateStatefulSetStrategy(&spec.UpdateStrategy, path.Child("updateStrategy"))...)
	if p := spec.PersistentVolumeClaimRetentionPolicy; p != nil {
		at := path.Child("persistentVolumeClaimRetentionPolicy")
		const keep, remove = appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		errs = append(errs, rules.OneOf(p.WhenDeleted, at.Child("whenDeleted"), keep, remove)...)
		errs = append(errs, rules.OneOf(p.WhenScaled, at.Child("whenScaled"), keep, remove)...)
	}
	for i := range spec.VolumeClaimTemplates {
		errs = append(errs, podspec.ValidateClaimSpec(&spec.VolumeClaimTemplates[i].Spec, path.Child("volumeClaimTemplates").Index(i).Child("spec"))...)
	}
	errs = append(errs, rules.NonNegativePointer(spec.Replicas, path.Child("replicas"))...)
	errs = append(errs, rules.NonNegative(spec.MinReadySeconds, path.Child("minReadySeconds"))...)
	if spec.Ordinals != nil {
		errs = append(errs, rules.NonNegative(spec.Ordinals.Start, path.Child("ordinals", "start"))...)
	}
	errs = append(errs, validateSelector(spec.Selector, path.Child("selector"), "empty selector is invalid for statefulset")...)
	if selector, err := metav1.LabelSelectorAsSelector(spec.Selector); err != nil {
		errs = append(errs, field.Invalid(path.Child("selector"), spec.Selector, ""))
	} else {
		errs = append(errs, validateStatefulSetTemplate(templateWithClaims(spec), selector, path.Child("template"), opts, lenient)...)
	}
	if spec.Template.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(path.Child("template", "spec", "restartPolicy"), spec.Template.Spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if spec.Template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("template", "spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in StatefulSet is not Supported"))
	}
	return errs
}

// templateWithClaims is the template as pods will have it: with volumes for the claims, and without the names that each gets its own of.
func templateWithClaims(spec *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	template := spec.Template.DeepCopy()
	template.Spec.Subdomain, template.Spec.Hostname = "", ""
	var volumes []corev1.Volume
	for _, c := range spec.VolumeClaimTemplates {
		volumes = append(volumes, corev1.Volume{Name: c.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Name},
		}})
	}
	for _, v := range template.Spec.Volumes {
		if !slices.ContainsFunc(spec.VolumeClaimTemplates, func(c corev1.PersistentVolumeClaim) bool { return c.Name == v.Name }) {
			volumes = append(volumes, v)
		}
	}
	template.Spec.Volumes = volumes
	return template
}

func validateStatefulSetTemplate(template *corev1.PodTemplateSpec, selector labels.Selector, path *field.Path, opts podspec.Options, lenient bool) field.ErrorList {
	var errs field.ErrorList
	if !selector.Empty() && !selector.Matches(labels.Set(template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("metadata", "labels"), template.Labels, "`selector` does not match template `labels`"))
	}
	if !lenient {
		return append(errs, podspec.ValidateTemplate(template, path, opts)...)
	}
	errs = append(errs, metav1validation.ValidateLabels(template.Labels, path.Child("labels"))...)
	return append(errs, apivalidation.ValidateAnnotations(template.Annotations, path.Child("annotations"))...)
}

func validateStatefulSetStrategy(strategy *appsv1.StatefulSetUpdateStrategy, path *field.Path) field.ErrorList {
	rolling := path.Child("rollingUpdate")
	switch strategy.Type {
	case "":
		return field.ErrorList{field.Required(path, "")}
	case appsv1.OnDeleteStatefulSetStrategyType:
		if strategy.RollingUpdate != nil {
			return field.ErrorList{field.Invalid(rolling, strategy.RollingUpdate,
				fmt.Sprintf("only allowed for updateStrategy '%s'", appsv1.RollingUpdateStatefulSetStrategyType))}
		}
		return nil
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if strategy.RollingUpdate == nil {
			return nil
		}
		errs := rules.NonNegativePointer(strategy.RollingUpdate.Partition, rolling.Child("partition"))
		if max := strategy.RollingUpdate.MaxUnavailable; max != nil {
			errs = append(errs, rules.IntOrPercent(*max, rolling.Child("maxUnavailable"))...)
			if rules.Amount(*max) == 0 {
				errs = append(errs, field.Invalid(rolling.Child("maxUnavailable"), *max, "cannot be 0"))
			}
			errs = append(errs, rules.AtMost100Percent(*max, rolling.Child("maxUnavailable"))...)
		}
		return errs
	default:
		return field.ErrorList{field.Invalid(path, strategy, fmt.Sprintf("must be '%s' or '%s'",
			appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType))}
	}
}

func validateStatefulSetUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	opts, path := podspec.OptionsFor(&s.Spec.Template.Spec, &old.Spec.Template.Spec), field.NewPath("spec")
	lenient := len(validateStatefulSetSpec(&old.Spec, nil, opts, false)) > 0
	errs := validateStatefulSetSpec(&s.Spec, path, opts, lenient)
	errs = append(errs, rules.Immutable(s.Spec.Selector, old.Spec.Selector, path.Child("selector"))...)
	errs = append(errs, rules.Immutable(s.Spec.VolumeClaimTemplates, old.Spec.VolumeClaimTemplates, path.Child("volumeClaimTemplates"))...)
	errs = append(errs, rules.Immutable(s.Spec.ServiceName, old.Spec.ServiceName, path.Child("serviceName"))...)
	return append(errs, rules.Immutable(s.Spec.PodManagementPolicy, old.Spec.PodManagementPolicy, path.Child("podManagementPolicy"))...)
}

func validateStatefulSetStatus(s, old *appsv1.StatefulSet) field.ErrorList {
	st, path := &s.Status, field.NewPath("status")
	errs := rules.NonNegative(st.Replicas, path.Child("replicas"))
	errs = append(errs, rules.NonNegative(st.ReadyReplicas, path.Child("readyReplicas"))...)
	errs = append(errs, rules.NonNegative(st.CurrentReplicas, path.Child("currentReplicas"))...)
	errs = append(errs, rules.NonNegative(st.UpdatedReplicas, path.Child("updatedReplicas"))...)
	errs = append(errs, rules.NonNegative(st.AvailableReplicas, path.Child("availableReplicas"))...)
	errs = append(errs, rules.NonNegative(st.ObservedGeneration, path.Child("observedGeneration"))...)
	errs = append(errs, rules.NonNegativePointer(st.CollisionCount, path.Child("collisionCount"))...)
	const above = "cannot be greater than status.replicas"
	errs = append(errs, rules.NotAbove(st.ReadyReplicas, st.Replicas, path.Child("readyReplicas"), above)...)
	errs = append(errs, rules.NotAbove(st.CurrentReplicas, st.Replicas, path.Child("currentReplicas"), above)...)
	errs = append(errs, rules.NotAbove(st.UpdatedReplicas, st.Replicas, path.Child("updatedReplicas"), above)...)
	errs = append(errs, rules.NotAbove(st.AvailableReplicas, st.Replicas, path.Child("availableReplicas"), above)...)
	errs = append(errs, rules.NotAbove(st.AvailableReplicas, st.ReadyReplicas, path.Child("availableReplicas"), "cannot be greater than status.readyReplicas")...)
	return append(errs, rules.NotDecremented(st.CollisionCount, old.Status.CollisionCount, path.Child("collisionCount"))...)
}
