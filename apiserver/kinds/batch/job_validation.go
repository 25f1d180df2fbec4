package batch

import (
	"fmt"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

const (
	maxParallelismIndexed   = 100_000
	maxFailedIndexes        = 100_000
	completionsSoftLimit    = 100_000
	parallelismSoftLimit    = 10_000
	failedIndexesSoftLimit  = 10_000
	maxManagedByLength      = 63
	maxPolicyRules          = 20
	maxExitCodes            = 255
	maxPodConditionPatterns = 20
	maxIndexesTextLength    = 64 * 1024
)

func validateJob(j *batchv1.Job, opts podspec.Options) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateGeneratedSelector(j)
	errs = append(errs, validateJobWithSelector(&j.Spec, path, opts)...)
	if isIndexed(&j.Spec) && j.Spec.Completions != nil && *j.Spec.Completions > 0 {
		longest := fmt.Sprintf("%s-%d", j.Name, *j.Spec.Completions-1)
		if len(validation.IsDNS1123Label(longest)) > 0 {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), j.Name, fmt.Sprintf("will not able to create pod with invalid DNS name: %s", longest)))
		}
	}
	return errs
}

func validateJobWithSelector(spec *batchv1.JobSpec, path *field.Path, opts podspec.Options) field.ErrorList {
	errs := validateJobSpec(spec, path, opts)
	if spec.Selector == nil {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	} else {
		errs = append(errs, rules.LabelSelector(spec.Selector, path.Child("selector"))...)
	}
	if selector, err := metav1.LabelSelectorAsSelector(spec.Selector); err == nil && !selector.Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

// validateGeneratedSelector finds labels of the author's that contradict those which the server generates.
func validateGeneratedSelector(j *batchv1.Job) field.ErrorList {
	if (j.Spec.ManualSelector != nil && *j.Spec.ManualSelector) || j.Spec.Selector == nil {
		return nil
	}
	var errs field.ErrorList
	if j.UID == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "uid"), ""))
	}
	at := field.NewPath("spec", "template", "metadata")
	for _, l := range [...]struct{ key, value string }{
		{batchv1.ControllerUidLabel, string(j.UID)},
		{batchv1.JobNameLabel, j.Name},
		{legacyControllerUIDLabel, string(j.UID)},
		{legacyJobNameLabel, j.Name},
	} {
		switch value, ok := j.Spec.Template.Labels[l.key]; {
		case !ok:
			errs = append(errs, field.Required(at.Child("labels").Key(l.key), fmt.Sprintf("must be '%s'", l.value)))
		case value != l.value:
			errs = append(errs, field.Invalid(at.Child("labels").Key(l.key), j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", l.value)))
		}
	}
	generated := labels.Set{
		batchv1.ControllerUidLabel: string(j.UID), batchv1.JobNameLabel: j.Name,
		legacyControllerUIDLabel: string(j.UID), legacyJobNameLabel: j.Name,
	}
	if selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !selector.Matches(generated) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

func validateJobSpec(spec *batchv1.JobSpec, path *field.Path, opts podspec.Options) field.ErrorList {
	errs := rules.NonNegativePointer(spec.Parallelism, path.Child("parallelism"))
	errs = append(errs, rules.NonNegativePointer(spec.Completions, path.Child("completions"))...)
	errs = append(errs, rules.NonNegativePointer(spec.ActiveDeadlineSeconds, path.Child("activeDeadlineSeconds"))...)
	errs = append(errs, rules.NonNegativePointer(spec.BackoffLimit, path.Child("backoffLimit"))...)
	errs = append(errs, rules.NonNegativePointer(spec.TTLSecondsAfterFinished, path.Child("ttlSecondsAfterFinished"))...)
	errs = append(errs, rules.NonNegativePointer(spec.BackoffLimitPerIndex, path.Child("backoffLimitPerIndex"))...)
	if spec.MaxFailedIndexes != nil {
		errs = append(errs, rules.NonNegative(*spec.MaxFailedIndexes, path.Child("maxFailedIndexes"))...)
		if spec.BackoffLimitPerIndex == nil {
			errs = append(errs, field.Required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
		}
	}
	if spec.ManagedBy != nil {
		at := path.Child("managedBy")
		errs = append(errs, domainPrefixedPath(at, *spec.ManagedBy)...)
		if len(*spec.ManagedBy) > maxManagedByLength {
			errs = append(errs, field.TooLong(at, *spec.ManagedBy, maxManagedByLength))
		}
	}
	if spec.Scheduling != nil {
		errs = append(errs, field.Forbidden(path.Child("scheduling"), "may not be set when the WorkloadWithJob feature is disabled"))
	}
	errs = append(errs, validateCompletionMode(spec, path)...)
	errs = append(errs, validatePodFailurePolicy(spec, path.Child("podFailurePolicy"))...)
	if spec.SuccessPolicy != nil {
		if !isIndexed(spec) {
			errs = append(errs, field.Invalid(path.Child("successPolicy"), *spec.SuccessPolicy, "requires indexed completion mode"))
		} else {
			errs = append(errs, validateSuccessPolicy(spec, path.Child("successPolicy"))...)
		}
	}
	errs = append(errs, validateReplacementPolicy(spec, path.Child("podReplacementPolicy"))...)
	errs = append(errs, podspec.ValidateTemplate(&spec.Template, path.Child("template"), opts)...)
	return append(errs, validateRestartPolicy(spec, path)...)
}

func validateRestartPolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	at := path.Child("template", "spec", "restartPolicy")
	policy := spec.Template.Spec.RestartPolicy
	var errs field.ErrorList
	switch {
	// Always is what an unset policy was defaulted to, so Kubernetes speaks of a missing value.
	case policy == "" || policy == corev1.RestartPolicyAlways:
		errs = append(errs, field.Required(at, fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)))
	case policy != corev1.RestartPolicyOnFailure && policy != corev1.RestartPolicyNever:
		errs = append(errs, field.NotSupported(at, policy, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}))
	case spec.PodFailurePolicy != nil && policy != corev1.RestartPolicyNever:
		errs = append(errs, field.Invalid(at, policy, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever)))
	}
	if spec.BackoffLimitPerIndex != nil && policy != corev1.RestartPolicyNever {
		errs = append(errs, field.Invalid(at, policy, fmt.Sprintf("only %q is supported when backoffLimitPerIndex is specified", corev1.RestartPolicyNever)))
	}
	return errs
}

func domainPrefixedPath(path *field.Path, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return validation.IsDomainPrefixedPath(path, value)
}

func validateCompletionMode(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if spec.CompletionMode == nil {
		return nil
	}
	mode := *spec.CompletionMode
	switch mode {
	case batchv1.NonIndexedCompletion:
		var errs field.ErrorList
		if spec.BackoffLimitPerIndex != nil {
			errs = append(errs, field.Invalid(path.Child("backoffLimitPerIndex"), *spec.BackoffLimitPerIndex, "requires indexed completion mode"))
		}
		if spec.MaxFailedIndexes != nil {
			errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *spec.MaxFailedIndexes, "requires indexed completion mode"))
		}
		return errs
	case batchv1.IndexedCompletion:
		return validateIndexed(spec, path)
	default:
		return field.ErrorList{field.NotSupported(path.Child("completionMode"), mode, []batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion})}
	}
}

func validateIndexed(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.Completions == nil {
		errs = append(errs, field.Required(path.Child("completions"), fmt.Sprintf("when completion mode is %s", batchv1.IndexedCompletion)))
	}
	if spec.Parallelism != nil && *spec.Parallelism > maxParallelismIndexed {
		errs = append(errs, field.Invalid(path.Child("parallelism"), *spec.Parallelism, fmt.Sprintf("must be less than or equal to %d when completion mode is %s", maxParallelismIndexed, batchv1.IndexedCompletion)))
	}
	if spec.Completions != nil && spec.MaxFailedIndexes != nil && *spec.MaxFailedIndexes > *spec.Completions {
		errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *spec.MaxFailedIndexes, "must be less than or equal to completions"))
	}
	if spec.MaxFailedIndexes != nil && *spec.MaxFailedIndexes > maxFailedIndexes {
		errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *spec.MaxFailedIndexes, fmt.Sprintf("must be less than or equal to %d", maxFailedIndexes)))
	}
	if spec.Completions != nil && *spec.Completions > completionsSoftLimit && spec.BackoffLimitPerIndex != nil {
		if spec.MaxFailedIndexes == nil {
			errs = append(errs, field.Required(path.Child("maxFailedIndexes"), fmt.Sprintf("must be specified when completions is above %d", completionsSoftLimit)))
		}
		const used = "when completions are above %d and used with backoff limit per index"
		if spec.Parallelism != nil && *spec.Parallelism > parallelismSoftLimit {
			errs = append(errs, field.Invalid(path.Child("parallelism"), *spec.Parallelism, fmt.Sprintf("must be less than or equal to %d "+used, parallelismSoftLimit, completionsSoftLimit)))
		}
		if spec.MaxFailedIndexes != nil && *spec.MaxFailedIndexes > failedIndexesSoftLimit {
			errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *spec.MaxFailedIndexes, fmt.Sprintf("must be less than or equal to %d "+used, failedIndexesSoftLimit, completionsSoftLimit)))
		}
	}
	return errs
}

func validateReplacementPolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	policy := spec.PodReplacementPolicy
	if policy == nil {
		return nil
	}
	if spec.PodFailurePolicy != nil {
		return rules.OneOf(*policy, path, batchv1.Failed)
	}
	return rules.OneOf(*policy, path, batchv1.Failed, batchv1.TerminatingOrFailed)
}

func quoted[T ~string](values ...T) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fmt.Sprintf("%q", v)
	}
	return "[" + strings.Join(out, " ") + "]"
}

func validatePodFailurePolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if spec.PodFailurePolicy == nil {
		return nil
	}
	var errs field.ErrorList
	at := path.Child("rules")
	if n := len(spec.PodFailurePolicy.Rules); n > maxPolicyRules {
		errs = append(errs, field.TooMany(at, n, maxPolicyRules))
	}
	names := map[string]bool{}
	for i := range spec.Template.Spec.Containers {
		names[spec.Template.Spec.Containers[i].Name] = true
	}
	for i := range spec.Template.Spec.InitContainers {
		names[spec.Template.Spec.InitContainers[i].Name] = true
	}
	for i := range spec.PodFailurePolicy.Rules {
		errs = append(errs, validateFailureRule(spec, &spec.PodFailurePolicy.Rules[i], at.Index(i), names)...)
	}
	return errs
}

func validateFailureRule(spec *batchv1.JobSpec, rule *batchv1.PodFailurePolicyRule, path *field.Path, containers map[string]bool) field.ErrorList {
	var errs field.ErrorList
	actions := []batchv1.PodFailurePolicyAction{batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex, batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore}
	if rule.Action == "" {
		errs = append(errs, field.Required(path.Child("action"), "valid values: "+quoted(actions...)))
	} else if rule.Action == batchv1.PodFailurePolicyActionFailIndex && spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Invalid(path.Child("action"), rule.Action, "requires the backoffLimitPerIndex to be set"))
	} else {
		errs = append(errs, rules.OneOf(rule.Action, path.Child("action"), actions...)...)
	}
	if rule.OnExitCodes != nil {
		errs = append(errs, validateExitCodes(rule.OnExitCodes, path.Child("onExitCodes"), containers)...)
	}
	if n := len(rule.OnPodConditions); n > 0 {
		at := path.Child("onPodConditions")
		if n > maxPodConditionPatterns {
			errs = append(errs, field.TooMany(at, n, maxPodConditionPatterns))
		}
		for i := range rule.OnPodConditions {
			errs = append(errs, validatePodConditionPattern(&rule.OnPodConditions[i], at.Index(i))...)
		}
	}
	switch {
	case rule.OnExitCodes != nil && len(rule.OnPodConditions) > 0:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
	case rule.OnExitCodes == nil && len(rule.OnPodConditions) == 0:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
	}
	return errs
}

func validatePodConditionPattern(p *batchv1.PodFailurePolicyOnPodConditionsPattern, path *field.Path) field.ErrorList {
	errs := rules.Messages(validation.IsQualifiedName(string(p.Type)), string(p.Type), path.Child("type"))
	statuses := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
	if p.Status == "" {
		return append(errs, field.Required(path.Child("status"), "valid values: "+quoted(statuses...)))
	}
	return append(errs, rules.OneOf(p.Status, path.Child("status"), statuses...)...)
}

func validateExitCodes(r *batchv1.PodFailurePolicyOnExitCodesRequirement, path *field.Path, containers map[string]bool) field.ErrorList {
	var errs field.ErrorList
	operators := []batchv1.PodFailurePolicyOnExitCodesOperator{batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn}
	if r.Operator == "" {
		errs = append(errs, field.Required(path.Child("operator"), "valid values: "+quoted(operators...)))
	} else {
		errs = append(errs, rules.OneOf(r.Operator, path.Child("operator"), operators...)...)
	}
	if r.ContainerName != nil && !containers[*r.ContainerName] {
		errs = append(errs, field.Invalid(path.Child("containerName"), *r.ContainerName, "must be one of the container or initContainer names in the pod template"))
	}
	at := path.Child("values")
	if len(r.Values) == 0 {
		errs = append(errs, field.Invalid(at, r.Values, "at least one value is required"))
	} else if len(r.Values) > maxExitCodes {
		errs = append(errs, field.TooMany(at, len(r.Values), maxExitCodes))
	}
	ordered, seen := true, map[int32]bool{}
	for i, v := range r.Values {
		if r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && v == 0 {
			errs = append(errs, field.Invalid(at.Index(i), v, "must not be 0 for the In operator"))
		}
		if seen[v] {
			errs = append(errs, field.Duplicate(at.Index(i), v))
		}
		seen[v] = true
		if i > 0 && r.Values[i-1] > v {
			ordered = false
		}
	}
	if !ordered {
		errs = append(errs, field.Invalid(at, r.Values, "must be ordered"))
	}
	return errs
}

func validateSuccessPolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := path.Child("rules")
	switch n := len(spec.SuccessPolicy.Rules); {
	case n == 0:
		errs = append(errs, field.Required(at, "at least one rules must be specified when the successPolicy is specified"))
	case n > maxPolicyRules:
		errs = append(errs, field.TooMany(at, n, maxPolicyRules))
	}
	for i := range spec.SuccessPolicy.Rules {
		errs = append(errs, validateSuccessRule(spec, &spec.SuccessPolicy.Rules[i], at.Index(i))...)
	}
	return errs
}

func validateSuccessRule(spec *batchv1.JobSpec, rule *batchv1.SuccessPolicyRule, path *field.Path) field.ErrorList {
	if rule.SucceededCount == nil && rule.SucceededIndexes == nil {
		return field.ErrorList{field.Required(path, "at least one of succeededCount or succeededIndexes must be specified")}
	}
	var errs field.ErrorList
	total := int32(0)
	if rule.SucceededIndexes != nil {
		at := path.Child("succeededIndexes")
		if len(*rule.SucceededIndexes) > maxIndexesTextLength {
			errs = append(errs, field.TooLong(at, *rule.SucceededIndexes, maxIndexesTextLength))
		}
		completions := int32(0)
		if spec.Completions != nil {
			completions = *spec.Completions
		}
		n, err := countIndexes(*rule.SucceededIndexes, completions)
		if err != nil {
			errs = append(errs, field.Invalid(at, *rule.SucceededIndexes, fmt.Sprintf("error parsing succeededIndexes: %s", err)))
		}
		total = n
	}
	if rule.SucceededCount != nil {
		at := path.Child("succeededCount")
		count := *rule.SucceededCount
		errs = append(errs, rules.NonNegative(count, at)...)
		if spec.Completions != nil && count > *spec.Completions {
			errs = append(errs, field.Invalid(at, count, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", *spec.Completions)))
		}
		if rule.SucceededIndexes != nil && count > total {
			errs = append(errs, field.Invalid(at, count, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total)))
		}
	}
	return errs
}
