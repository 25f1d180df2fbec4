package batch

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

// Labels that older clients know beside those with the batch.kubernetes.io/ prefix.
const (
	legacyJobNameLabel       = "job-name"
	legacyControllerUIDLabel = "controller-uid"
)

func job() *kind.Kind {
	return &kind.Kind{
		GVK:        batchv1.SchemeGroupVersion.WithKind("Job"),
		Resource:   "jobs",
		Singular:   "job",
		Categories: []string{"all"},
		Namespaced: true,

		Default:          typed.Default(defaultJob),
		PrepareForCreate: typed.Prepare(prepareJob),
		PrepareForUpdate: typed.PrepareUpdate(prepareJobUpdate),
		Validate: typed.Validate(func(j *batchv1.Job) field.ErrorList {
			return validateJob(j, podspec.OptionsFor(&j.Spec.Template.Spec, nil))
		}),
		ValidateUpdate: typed.ValidateUpdate(validateJobUpdate),
		Warnings: typed.Warnings(func(ctx context.Context, obj, old *batchv1.Job) []string {
			if old == nil {
				warnings := append(rules.NameForPods(obj.Name), jobSpecWarnings(&obj.Spec)...)
				return append(warnings, podspec.TemplateWarnings(ctx, &obj.Spec.Template, nil, field.NewPath("spec", "template"))...)
			}
			if obj.Generation == old.Generation {
				return nil
			}
			return append(jobSpecWarnings(&obj.Spec), podspec.TemplateWarnings(ctx, &obj.Spec.Template, &old.Spec.Template, field.NewPath("spec", "template"))...)
		}),
		AllowUnconditionalUpdate: true,
		// Clients of before Jobs were garbage collected expect their pods to stay.
		DefaultPropagation: metav1.DeletePropagationOrphan,
		DeletionWarnings: func(o *metav1.DeleteOptions) []string {
			if o.PropagationPolicy != nil || o.OrphanDependents != nil { //nolint:staticcheck // old clients send it
				return nil
			}
			return []string{"child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning"}
		},
		Status: &kind.Subresource{Validate: typed.ValidateUpdate(validateJobStatusUpdate)},
		Fields: map[string]func(client.Object) string{
			"status.successful": typed.Field(func(j *batchv1.Job) string { return strconv.Itoa(int(j.Status.Succeeded)) }),
		},
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Status", "Status of the job."),
			table.Text("Completions", batchv1.JobStatus{}.SwaggerDoc()["succeeded"]),
			table.Text("Duration", "Time required to complete the job."),
			table.Age(),
		}, table.TemplateColumns()...),
		Row: typed.Row(func(j *batchv1.Job, now time.Time) []any {
			names, images := table.Containers(j.Spec.Template.Spec.Containers)
			return []any{
				j.Name, jobStatusCell(j), completionsCell(j), durationCell(j, now), table.Since(j.CreationTimestamp, now),
				names, images, metav1.FormatLabelSelector(j.Spec.Selector),
			}
		}),
	}
}

func jobStatusCell(j *batchv1.Job) string {
	switch {
	case hasCondition(&j.Status, batchv1.JobComplete):
		return "Complete"
	case hasCondition(&j.Status, batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case hasCondition(&j.Status, batchv1.JobSuspended):
		return "Suspended"
	case hasCondition(&j.Status, batchv1.JobFailureTarget):
		return "FailureTarget"
	case hasCondition(&j.Status, batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	default:
		return "Running"
	}
}

func hasCondition(status *batchv1.JobStatus, kind batchv1.JobConditionType) bool {
	for i := range status.Conditions {
		if status.Conditions[i].Type == kind {
			return status.Conditions[i].Status == corev1.ConditionTrue
		}
	}
	return false
}

func completionsCell(j *batchv1.Job) string {
	switch parallelism := j.Spec.Parallelism; {
	case j.Spec.Completions != nil:
		return fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	case parallelism != nil && *parallelism > 1:
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, *parallelism)
	default:
		return fmt.Sprintf("%d/1", j.Status.Succeeded)
	}
}

func durationCell(j *batchv1.Job, now time.Time) string {
	switch {
	case j.Status.StartTime == nil:
		return ""
	case j.Status.CompletionTime == nil:
		return duration.HumanDuration(now.Sub(j.Status.StartTime.Time))
	default:
		return duration.HumanDuration(j.Status.CompletionTime.Sub(j.Status.StartTime.Time))
	}
}

func defaultJob(j *batchv1.Job) {
	spec := &j.Spec
	podspec.DefaultTemplate(&spec.Template)
	if spec.Completions == nil && spec.Parallelism == nil {
		rules.SetNil(&spec.Completions, 1)
	}
	rules.SetNil(&spec.Parallelism, 1)
	if spec.BackoffLimit == nil {
		limit := int32(6)
		if spec.BackoffLimitPerIndex != nil {
			limit = math.MaxInt32
		}
		spec.BackoffLimit = &limit
	}
	if len(j.Labels) == 0 && len(spec.Template.Labels) > 0 {
		j.Labels = map[string]string{}
		for k, v := range spec.Template.Labels {
			j.Labels[k] = v
		}
	}
	rules.SetNil(&spec.CompletionMode, batchv1.NonIndexedCompletion)
	rules.SetNil(&spec.Suspend, false)
	rules.SetNil(&spec.ManualSelector, false)
	if spec.PodReplacementPolicy == nil {
		policy := batchv1.TerminatingOrFailed
		if spec.PodFailurePolicy != nil {
			policy = batchv1.Failed
		}
		spec.PodReplacementPolicy = &policy
	}
	defaultPodFailurePolicy(spec.PodFailurePolicy)
}

func defaultPodFailurePolicy(policy *batchv1.PodFailurePolicy) {
	if policy == nil {
		return
	}
	for i := range policy.Rules {
		for k := range policy.Rules[i].OnPodConditions {
			rules.SetZero(&policy.Rules[i].OnPodConditions[k].Status, corev1.ConditionTrue)
		}
	}
}

func prepareJob(ctx context.Context, j *batchv1.Job) {
	j.Status = batchv1.JobStatus{}
	j.Generation = 1
	generateSelector(j)
	podspec.PrepareTemplate(ctx, &j.Spec.Template, nil, field.NewPath("spec", "template"))
}

// generateSelector makes a Job select its own pods by its UID, unless its author chose the selector.
func generateSelector(j *batchv1.Job) {
	if j.Spec.ManualSelector != nil && *j.Spec.ManualSelector {
		return
	}
	labels := j.Spec.Template.Labels
	if labels == nil {
		labels = map[string]string{}
		j.Spec.Template.Labels = labels
	}
	name, uid := j.Name, string(j.UID)
	for _, l := range [...]struct{ key, value string }{
		{legacyJobNameLabel, name},
		{batchv1.JobNameLabel, name},
		{legacyControllerUIDLabel, uid},
		{batchv1.ControllerUidLabel, uid},
	} {
		// A different value is left for validation to refuse.
		if _, ok := labels[l.key]; !ok {
			labels[l.key] = l.value
		}
	}
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, ok := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !ok {
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = uid
	}
}

func prepareJobUpdate(ctx context.Context, j, old *batchv1.Job) {
	j.Status = old.Status
	podspec.PrepareTemplate(ctx, &j.Spec.Template, &old.Spec.Template, field.NewPath("spec", "template"))
	j.Generation = old.Generation
	if !apiequality.Semantic.DeepEqual(j.Spec, old.Spec) {
		j.Generation++
	}
}

func jobSpecWarnings(spec *batchv1.JobSpec) []string {
	if isIndexed(spec) && spec.Completions != nil && *spec.Completions > completionsSoftLimit &&
		spec.Parallelism != nil && *spec.Parallelism > parallelismSoftLimit {
		return []string{"In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"}
	}
	return nil
}

func isIndexed(spec *batchv1.JobSpec) bool {
	return spec.CompletionMode != nil && *spec.CompletionMode == batchv1.IndexedCompletion
}
