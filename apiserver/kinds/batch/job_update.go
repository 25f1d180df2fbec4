package batch

import (
	"fmt"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func validateJobUpdate(j, old *batchv1.Job) field.ErrorList {
	path := field.NewPath("spec")
	opts := podspec.OptionsFor(&j.Spec.Template.Spec, &old.Spec.Template.Spec)
	errs := validateJobWithSelector(&j.Spec, path, opts)
	errs = append(errs, validateCompletionsUpdate(&j.Spec, &old.Spec, path)...)
	errs = append(errs, rules.Immutable(j.Spec.Selector, old.Spec.Selector, path.Child("selector"))...)
	errs = append(errs, validateJobTemplateUpdate(j, old, path.Child("template"))...)
	errs = append(errs, rules.Immutable(j.Spec.CompletionMode, old.Spec.CompletionMode, path.Child("completionMode"))...)
	errs = append(errs, rules.Immutable(j.Spec.PodFailurePolicy, old.Spec.PodFailurePolicy, path.Child("podFailurePolicy"))...)
	errs = append(errs, rules.Immutable(j.Spec.BackoffLimitPerIndex, old.Spec.BackoffLimitPerIndex, path.Child("backoffLimitPerIndex"))...)
	errs = append(errs, rules.Immutable(j.Spec.ManagedBy, old.Spec.ManagedBy, path.Child("managedBy"))...)
	return append(errs, rules.Immutable(j.Spec.SuccessPolicy, old.Spec.SuccessPolicy, path.Child("successPolicy"))...)
}

// validateCompletionsUpdate lets an Indexed Job grow and shrink, if its parallelism does so too.
func validateCompletionsUpdate(spec, old *batchv1.JobSpec, path *field.Path) field.ErrorList {
	at := path.Child("completions")
	if !isIndexed(spec) {
		return rules.Immutable(spec.Completions, old.Completions, at)
	}
	if apiequality.Semantic.DeepEqual(spec.Completions, old.Completions) || spec.Completions == nil || old.Completions == nil {
		return nil
	}
	if spec.Parallelism == nil || *spec.Completions != *spec.Parallelism {
		return field.ErrorList{field.Invalid(at, *spec.Completions, fmt.Sprintf("can only be modified in tandem with %s", path.Child("parallelism").String()))}
	}
	return nil
}

// validateJobTemplateUpdate lets queueing controllers say where the pods of a suspended Job that has none go, and what they get.
func validateJobTemplateUpdate(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	template, before := &j.Spec.Template, &old.Spec.Template
	suspended := old.Spec.Suspend != nil && *old.Spec.Suspend
	neverStarted := old.Status.StartTime == nil
	stopped := hasCondition(&old.Status, batchv1.JobSuspended) && old.Status.Active == 0
	if suspended && (neverStarted || stopped) {
		before = before.DeepCopy()
		before.Annotations, before.Labels = template.Annotations, template.Labels
		before.Spec.NodeSelector = template.Spec.NodeSelector
		before.Spec.Tolerations = template.Spec.Tolerations
		before.Spec.SchedulingGates = template.Spec.SchedulingGates
		switch {
		case template.Spec.Affinity == nil && before.Spec.Affinity != nil:
			before.Spec.Affinity.NodeAffinity = nil
			if before.Spec.Affinity.PodAffinity == nil && before.Spec.Affinity.PodAntiAffinity == nil {
				before.Spec.Affinity = nil
			}
		case template.Spec.Affinity != nil && before.Spec.Affinity == nil:
			before.Spec.Affinity = &corev1.Affinity{NodeAffinity: template.Spec.Affinity.NodeAffinity}
		case template.Spec.Affinity != nil:
			before.Spec.Affinity.NodeAffinity = template.Spec.Affinity.NodeAffinity
		}
		copyResources(before.Spec.Containers, template.Spec.Containers)
		copyResources(before.Spec.InitContainers, template.Spec.InitContainers)
	}
	return rules.Immutable(*template, *before, path)
}

func copyResources(to, from []corev1.Container) {
	for i := range to {
		if i < len(from) && to[i].Name == from[i].Name {
			to[i].Resources = from[i].Resources
		}
	}
}

func validateJobStatusUpdate(j, old *batchv1.Job) field.ErrorList {
	s, path := &j.Status, field.NewPath("status")
	errs := rules.NonNegative(s.Active, path.Child("active"))
	errs = append(errs, rules.NonNegative(s.Succeeded, path.Child("succeeded"))...)
	errs = append(errs, rules.NonNegative(s.Failed, path.Child("failed"))...)
	errs = append(errs, rules.NonNegativePointer(s.Ready, path.Child("ready"))...)
	errs = append(errs, rules.NonNegativePointer(s.Terminating, path.Child("terminating"))...)
	if s.Ready != nil && *s.Ready > s.Active {
		errs = append(errs, field.Invalid(path.Child("ready"), *s.Ready, "cannot set more ready pods than active"))
	}
	complete, failed := hasCondition(s, batchv1.JobComplete), hasCondition(s, batchv1.JobFailed)
	if complete && failed {
		errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{}, "cannot set Complete=True and Failed=true conditions"))
	}
	if complete && hasCondition(s, batchv1.JobFailureTarget) {
		errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{}, "cannot set Complete=True and FailureTarget=true conditions"))
	}
	if failed && hasCondition(s, batchv1.JobSuccessCriteriaMet) {
		errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{}, "cannot set Failed=True and SuccessCriteriaMet=true conditions"))
	}
	if (complete || failed) && s.Active > 0 {
		errs = append(errs, field.Invalid(path.Child("active"), s.Active, "active>0 is invalid for finished job"))
	}
	if s.CompletionTime != nil {
		if !complete {
			errs = append(errs, field.Invalid(path.Child("completionTime"), s.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
		}
		if s.StartTime == nil {
			errs = append(errs, field.Required(path.Child("startTime"), "startTime cannot be unset when completionTime is set"))
		} else if s.CompletionTime.Before(s.StartTime) {
			errs = append(errs, field.Invalid(path.Child("completionTime"), s.CompletionTime, "completionTime cannot be set before startTime"))
		}
	}
	if old.Status.CompletionTime != nil && (s.CompletionTime == nil || !old.Status.CompletionTime.Equal(s.CompletionTime)) {
		errs = append(errs, field.Invalid(path.Child("completionTime"), s.CompletionTime, "completionTime cannot be mutated or unset"))
	}
	for _, c := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet} {
		if hasCondition(&old.Status, c) && !hasCondition(s, c) {
			errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{}, fmt.Sprintf("cannot disable the terminal %s=True condition", c)))
		}
	}
	if s.UncountedTerminatedPods != nil {
		errs = append(errs, validateUncounted(s.UncountedTerminatedPods, path.Child("uncountedTerminatedPods"))...)
	}
	return errs
}

func validateUncounted(u *batchv1.UncountedTerminatedPods, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, uid := range u.Succeeded {
		at := path.Child("succeeded").Index(i)
		if uid == "" {
			errs = append(errs, field.Invalid(at, uid, "must not be empty"))
		} else if seen[string(uid)] {
			errs = append(errs, field.Duplicate(at, uid))
		}
		seen[string(uid)] = true
	}
	for i, uid := range u.Failed {
		at := path.Child("failed").Index(i)
		if uid == "" {
			errs = append(errs, field.Invalid(at, uid, "must not be empty"))
		} else if seen[string(uid)] {
			errs = append(errs, field.Duplicate(at, uid))
		}
		seen[string(uid)] = true
	}
	return errs
}

// countIndexes counts the indexes in text such as "0,2-4", which must rise and stay below completions.
func countIndexes(text string, completions int32) (int32, error) {
	if text == "" {
		return 0, nil
	}
	var total int32
	last := int32(-1)
	for _, part := range strings.Split(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		x, err := strconv.Atoi(from)
		if err != nil {
			return 0, fmt.Errorf("cannot convert string to integer for index: %q", from)
		}
		y := x
		if isRange {
			if y, err = strconv.Atoi(to); err != nil {
				return 0, fmt.Errorf("cannot convert string to integer for index: %q", to)
			}
			if x >= y {
				return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", x, y)
			}
		}
		if int64(x) <= int64(last) {
			return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", last, x)
		}
		if int64(y) >= int64(completions) {
			return 0, fmt.Errorf("too large index: %q", part)
		}
		total += int32(y - x + 1)
		last = int32(y)
	}
	return total, nil
}
