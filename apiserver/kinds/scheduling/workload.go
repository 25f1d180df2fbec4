package scheduling

import (
	"context"
	"time"

	"k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

func (d dropper) workload(s *schedulingv1beta1.WorkloadSpec) {
	d.drop(len(s.CompositePodGroupTemplates) > 0, composite, "spec.compositePodGroupTemplates", func() { s.CompositePodGroupTemplates = nil })
	for i := range s.PodGroupTemplates {
		t, path := &s.PodGroupTemplates[i], field.NewPath("spec", "podGroupTemplates").Index(i)
		d.drop(t.SchedulingConstraints != nil, topologyAware, path.Child("schedulingConstraints").String(), func() { t.SchedulingConstraints = nil })
		d.drop(len(t.ResourceClaims) > 0, sharedClaims, path.Child("resourceClaims").String(), func() { t.ResourceClaims = nil })
		d.drop(t.PreemptionPolicy != nil, preemptionPolicy, path.Child("preemptionPolicy").String(), func() { t.PreemptionPolicy = nil })
	}
}

func workload() *kind.Kind {
	type workload = *schedulingv1beta1.Workload
	return &kind.Kind{
		GVK:        schedulingv1beta1.SchemeGroupVersion.WithKind("Workload"),
		Resource:   "workloads",
		Singular:   "workload",
		Namespaced: true,

		PrepareForCreate: typed.Prepare(func(ctx context.Context, w workload) {
			w.Generation = 1
			dropper{ctx}.workload(&w.Spec)
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(ctx context.Context, w, old workload) {
			w.Generation = old.Generation
			dropper{ctx}.workload(&w.Spec)
			if !apiequality.Semantic.DeepEqual(w.Spec, old.Spec) {
				w.Generation++
			}
		}),
		Validate:       typed.Validate(func(w workload) field.ErrorList { return validateWorkload(operation.Create, w, nil) }),
		ValidateUpdate: typed.ValidateUpdate(func(w, old workload) field.ErrorList { return validateWorkload(operation.Update, w, old) }),
		Columns:        []metav1.TableColumnDefinition{table.Name(), table.Age()},
		Row:            typed.Row(func(w workload, now time.Time) []any { return []any{w.Name, table.Since(w.CreationTimestamp, now)} }),
	}
}

func validateWorkload(t operation.Type, w, old *schedulingv1beta1.Workload) field.ErrorList {
	now := &v1alpha3.Workload{}
	var oldSpec *v1alpha3.WorkloadSpec
	err := ruled(w, now)
	if err == nil && old != nil {
		was := &v1alpha3.Workload{}
		err = ruled(old, was)
		oldSpec = &was.Spec
	}
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	path := field.NewPath("spec")
	errs := v1alpha3.Validate_WorkloadSpec(context.Background(), ruledOperation(t), path, &now.Spec, oldSpec)
	for i := range w.Spec.PodGroupTemplates {
		if !samePriority(&w.Spec.PodGroupTemplates[0], &w.Spec.PodGroupTemplates[i]) {
			return append(errs, field.Invalid(path, nil, "detected multiple priority configurations"))
		}
	}
	return errs
}

func samePriority(a, b *schedulingv1beta1.PodGroupTemplate) bool {
	return a.PriorityClassName == b.PriorityClassName && (a.Priority == nil) == (b.Priority == nil) && (a.Priority == nil || *a.Priority == *b.Priority)
}
