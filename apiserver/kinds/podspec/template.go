package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// ValidateTemplate returns every mistake of a pod template: its labels and annotations and its spec.
func ValidateTemplate(template *corev1.PodTemplateSpec, path *field.Path, opts Options) field.ErrorList {
	e := &validate.Errors{}
	e.Add(validateLabels(template.Labels, path.Child("labels")))
	e.Add(apivalidation.ValidateAnnotations(template.Annotations, path.Child("annotations")))
	annotations(e, template.Annotations, &template.Spec, path.Child("annotations"))
	e.Add(Validate(&template.Spec, "", path.Child("spec"), opts))
	if len(template.Spec.EphemeralContainers) > 0 {
		e.Forbidden(path.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template")
	}
	return e.List
}

// ValidateReplicatedTemplate returns every mistake of the template of something that keeps pods running
// (ReplicationController, ReplicaSet, Deployment, StatefulSet, DaemonSet): those of ValidateTemplate, a selector that does not match
// its labels, a restartPolicy other than Always, and activeDeadlineSeconds. kind names the parent in messages.
func ValidateReplicatedTemplate(template *corev1.PodTemplateSpec, selector labels.Selector, kind string, path *field.Path, opts Options) field.ErrorList {
	e := &validate.Errors{}
	if selector != nil && !selector.Empty() && !selector.Matches(labels.Set(template.Labels)) {
		e.Invalid(path.Child("metadata", "labels"), template.Labels, "`selector` does not match template `labels`")
	}
	e.Add(ValidateTemplate(template, path, opts))
	if policy := template.Spec.RestartPolicy; policy != corev1.RestartPolicyAlways {
		validate.NotSupported(e, path.Child("spec", "restartPolicy"), policy, corev1.RestartPolicyAlways)
	}
	if template.Spec.ActiveDeadlineSeconds != nil {
		e.Forbidden(path.Child("spec", "activeDeadlineSeconds"), fmt.Sprintf("activeDeadlineSeconds in %s is not Supported", kind))
	}
	return e.List
}

// ValidateTemplateUpdate returns a mistake if a template changed that may not (a Job's, a PodTemplate's is free).
func ValidateTemplateUpdate(template, old *corev1.PodTemplateSpec, path *field.Path, _ Options) field.ErrorList {
	e := &validate.Errors{}
	e.Immutable(*template, *old, path)
	return e.List
}

// ValidateLabelSelector returns every mistake of the label selector of a workload, which must be given and not be empty.
func ValidateLabelSelector(selector *metav1.LabelSelector, kind string, path *field.Path) field.ErrorList {
	e := &validate.Errors{}
	if selector == nil {
		e.Required(path, "")
		return e.List
	}
	e.Add(metav1validation.ValidateLabelSelector(selector, metav1validation.LabelSelectorValidationOptions{}, path))
	if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		e.Invalid(path, selector, fmt.Sprintf("empty selector is invalid for %s", kind))
	}
	return e.List
}
