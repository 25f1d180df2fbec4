package apps

import (
	"context"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func daemonSet() *kind.Kind {
	return &kind.Kind{
		GVK:        appsv1.SchemeGroupVersion.WithKind("DaemonSet"),
		Resource:   "daemonsets",
		Singular:   "daemonset",
		ShortNames: []string{"ds"},
		Categories: []string{"all"},
		Namespaced: true,

		Default: typed.Default(defaultDaemonSet),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, d *appsv1.DaemonSet) {
			d.Status = appsv1.DaemonSetStatus{}
			d.Generation = 1
			setTemplateGeneration(d, 1)
			podspec.PrepareTemplate(ctx, &d.Spec.Template, nil, templatePath())
		}),
		PrepareForUpdate: typed.PrepareUpdate(prepareDaemonSetUpdate),
		Validate: typed.Validate(func(d *appsv1.DaemonSet) field.ErrorList {
			return validateDaemonSetSpec(&d.Spec, field.NewPath("spec"), podspec.OptionsFor(&d.Spec.Template.Spec, nil))
		}),
		ValidateUpdate: typed.ValidateUpdate(func(d, old *appsv1.DaemonSet) field.ErrorList {
			errs := validateDaemonSetSpec(&d.Spec, field.NewPath("spec"), podspec.OptionsFor(&d.Spec.Template.Spec, &old.Spec.Template.Spec))
			return append(errs, rules.Immutable(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
		}),
		Warnings: typed.Warnings(func(ctx context.Context, obj, old *appsv1.DaemonSet) []string {
			if old == nil {
				return podspec.TemplateWarnings(ctx, &obj.Spec.Template, nil, templatePath())
			}
			if obj.Generation == old.Generation {
				return nil
			}
			return podspec.TemplateWarnings(ctx, &obj.Spec.Template, &old.Spec.Template, templatePath())
		}),
		AllowUnconditionalUpdate: true,
		Status:                   &kind.Subresource{Validate: typed.ValidateUpdate(validateDaemonSetStatus)},
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Number("Desired", appsv1.DaemonSetStatus{}.SwaggerDoc()["desiredNumberScheduled"]),
			table.Number("Current", appsv1.DaemonSetStatus{}.SwaggerDoc()["currentNumberScheduled"]),
			table.Number("Ready", appsv1.DaemonSetStatus{}.SwaggerDoc()["numberReady"]),
			table.Number("Up-to-date", appsv1.DaemonSetStatus{}.SwaggerDoc()["updatedNumberScheduled"]),
			table.Number("Available", appsv1.DaemonSetStatus{}.SwaggerDoc()["numberAvailable"]),
			table.Text("Node Selector", "Labels of the nodes that run the daemon pod."),
			table.Age(),
		}, table.TemplateColumns()...),
		Row: typed.Row(func(d *appsv1.DaemonSet, now time.Time) []any {
			names, images := table.Containers(d.Spec.Template.Spec.Containers)
			return []any{
				d.Name,
				int64(d.Status.DesiredNumberScheduled), int64(d.Status.CurrentNumberScheduled), int64(d.Status.NumberReady),
				int64(d.Status.UpdatedNumberScheduled), int64(d.Status.NumberAvailable),
				labels.FormatLabels(d.Spec.Template.Spec.NodeSelector),
				table.Since(d.CreationTimestamp, now),
				names, images, metav1.FormatLabelSelector(d.Spec.Selector),
			}
		}),
	}
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	podspec.DefaultTemplate(&d.Spec.Template)
	rules.SetZero(&d.Spec.UpdateStrategy.Type, appsv1.RollingUpdateDaemonSetStrategyType)
	if d.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		rules.SetNil(&d.Spec.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		rules.SetNil(&d.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		rules.SetNil(&d.Spec.UpdateStrategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	rules.SetNil(&d.Spec.RevisionHistoryLimit, 10)
}

func prepareDaemonSetUpdate(ctx context.Context, d, old *appsv1.DaemonSet) {
	d.Status = old.Status
	podspec.PrepareTemplate(ctx, &d.Spec.Template, &old.Spec.Template, templatePath())
	generation := templateGeneration(old)
	d.Generation = old.Generation
	if !apiequality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
		generation++
		d.Generation++
	} else if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) {
		d.Generation++
	}
	setTemplateGeneration(d, generation)
}

// The template's own generation is a field of older API versions that v1 shows as an annotation.
func templateGeneration(d *appsv1.DaemonSet) int64 {
	n, err := strconv.ParseInt(d.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func setTemplateGeneration(d *appsv1.DaemonSet, n int64) {
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(n, 10)
}

func validateDaemonSetSpec(spec *appsv1.DaemonSetSpec, path *field.Path, opts podspec.Options) field.ErrorList {
	var errs field.ErrorList
	if spec.Selector != nil { // without one, no template matches: that is told below
		errs = validateSelector(spec.Selector, path.Child("selector"), "empty selector is invalid for daemonset")
	}
	if selector, err := metav1.LabelSelectorAsSelector(spec.Selector); err == nil {
		errs = append(errs, podspec.ValidateReplicatedTemplate(&spec.Template, selector, "DaemonSet", path.Child("template"), opts)...)
	}
	errs = append(errs, rules.NonNegative(spec.MinReadySeconds, path.Child("minReadySeconds"))...)
	errs = append(errs, validateDaemonSetStrategy(&spec.UpdateStrategy, path.Child("updateStrategy"))...)
	return append(errs, rules.NonNegativePointer(spec.RevisionHistoryLimit, path.Child("revisionHistoryLimit"))...)
}

func validateDaemonSetStrategy(strategy *appsv1.DaemonSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch strategy.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	case appsv1.RollingUpdateDaemonSetStrategyType:
	default:
		return field.ErrorList{field.NotSupported(path, strategy, []appsv1.DaemonSetUpdateStrategyType{
			appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType,
		})}
	}
	path = path.Child("rollingUpdate")
	r := strategy.RollingUpdate
	if r == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	var unavailable, surge intstr.IntOrString
	if r.MaxUnavailable != nil {
		unavailable = *r.MaxUnavailable
	}
	if r.MaxSurge != nil {
		surge = *r.MaxSurge
	}
	errs := rules.IntOrPercent(unavailable, path.Child("maxUnavailable"))
	errs = append(errs, rules.AtMost100Percent(unavailable, path.Child("maxUnavailable"))...)
	errs = append(errs, rules.IntOrPercent(surge, path.Child("maxSurge"))...)
	errs = append(errs, rules.AtMost100Percent(surge, path.Child("maxSurge"))...)
	switch hasUnavailable, hasSurge := rules.Amount(unavailable) != 0, rules.Amount(surge) != 0; {
	case hasUnavailable && hasSurge:
		errs = append(errs, field.Invalid(path.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case !hasUnavailable && !hasSurge:
		errs = append(errs, field.Required(path.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func validateDaemonSetStatus(d, old *appsv1.DaemonSet) field.ErrorList {
	s, path := &d.Status, field.NewPath("status")
	errs := rules.NonNegative(s.CurrentNumberScheduled, path.Child("currentNumberScheduled"))
	errs = append(errs, rules.NonNegative(s.NumberMisscheduled, path.Child("numberMisscheduled"))...)
	errs = append(errs, rules.NonNegative(s.DesiredNumberScheduled, path.Child("desiredNumberScheduled"))...)
	errs = append(errs, rules.NonNegative(s.NumberReady, path.Child("numberReady"))...)
	errs = append(errs, rules.NonNegative(s.ObservedGeneration, path.Child("observedGeneration"))...)
	errs = append(errs, rules.NonNegative(s.UpdatedNumberScheduled, path.Child("updatedNumberScheduled"))...)
	errs = append(errs, rules.NonNegative(s.NumberAvailable, path.Child("numberAvailable"))...)
	errs = append(errs, rules.NonNegative(s.NumberUnavailable, path.Child("numberUnavailable"))...)
	errs = append(errs, rules.NonNegativePointer(s.CollisionCount, path.Child("collisionCount"))...)
	return append(errs, rules.NotDecremented(s.CollisionCount, old.Status.CollisionCount, path.Child("collisionCount"))...)
}
