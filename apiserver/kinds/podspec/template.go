package podspec

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateTemplate returns every mistake of a pod template: its labels and annotations and its spec.
func ValidateTemplate(template *corev1.PodTemplateSpec, path *field.Path, opts Options) field.ErrorList {
	return nil
}

// ValidateReplicatedTemplate returns every mistake of the template of something that keeps pods running
// (ReplicationController, ReplicaSet, Deployment, StatefulSet, DaemonSet): those of ValidateTemplate, a selector that does not match
// its labels, a restartPolicy other than Always, and activeDeadlineSeconds. kind names the parent in messages.
func ValidateReplicatedTemplate(template *corev1.PodTemplateSpec, selector labels.Selector, kind string, path *field.Path, opts Options) field.ErrorList {
	return nil
}

// ValidateTemplateUpdate returns a mistake if a template changed that may not.
func ValidateTemplateUpdate(template, old *corev1.PodTemplateSpec, path *field.Path, opts Options) field.ErrorList {
	return nil
}

// PrepareTemplate clears what this server does not support (alpha fields that Kubernetes has off), unless old uses
// it too, and adds a warning to ctx for each. old is nil on create.
func PrepareTemplate(ctx context.Context, template, old *corev1.PodTemplateSpec, path *field.Path) {
}

// TemplateWarnings returns what Kubernetes warns of in a template: deprecated fields and annotations, duplicates, values
// that have no effect. old is nil on create. name is the parent's.
func TemplateWarnings(ctx context.Context, template, old *corev1.PodTemplateSpec, path *field.Path) []string {
	return nil
}

// ValidateLabelSelector returns every mistake of the label selector of a workload.
func ValidateLabelSelector(selector *metav1.LabelSelector, path *field.Path) field.ErrorList {
	return nil
}
