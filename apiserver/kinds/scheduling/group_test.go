package scheduling

import (
	"testing"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver/kinds/internal/kindtest"
)

func gang(n int32) schedulingv1beta1.PodGroupSchedulingPolicy {
	return schedulingv1beta1.PodGroupSchedulingPolicy{Gang: &schedulingv1beta1.GangSchedulingPolicy{MinCount: n}}
}

func TestPodGroup(t *testing.T) {
	k := kindtest.Find(t, Group(), "PodGroup")
	type g = *schedulingv1beta1.PodGroup
	type change = kindtest.Change[g]
	valid := func() g {
		return &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "g"}, Spec: schedulingv1beta1.PodGroupSpec{SchedulingPolicy: gang(3)}}
	}
	kindtest.CreateTable(t, k, valid(), []change{
		{"min", func(g g) { g.Spec.SchedulingPolicy = gang(0) }, "spec.schedulingPolicy.gang.minCount: Required value"},
		{"below", func(g g) { g.Spec.SchedulingPolicy = gang(-1) }, "spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1"},
		{"no policy", func(g g) { g.Spec.SchedulingPolicy.Gang = nil }, "spec.schedulingPolicy: Invalid value: \"\": must specify one of: `basic`, `gang`"},
		{"two policies", func(g g) { g.Spec.SchedulingPolicy.Basic = &schedulingv1beta1.BasicSchedulingPolicy{} }, "spec.schedulingPolicy: Invalid value: \"{basic, gang}\": must specify exactly one of: `basic`, `gang`"},
		{"workload", func(g g) {
			g.Spec.WorkloadRef = &schedulingv1beta1.WorkloadReference{WorkloadName: "w", TemplateName: "A"}
		}, `spec.workloadRef.templateName: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`},
	})
	kindtest.UpdateTable(t, k, valid(), []change{
		{"grow", func(g g) { g.Spec.SchedulingPolicy = gang(4) }, ""},
		{"basic", func(g g) {
			g.Spec.SchedulingPolicy = schedulingv1beta1.PodGroupSchedulingPolicy{Basic: &schedulingv1beta1.BasicSchedulingPolicy{}}
		}, "spec.schedulingPolicy.basic: Invalid value: null: field is immutable\nspec.schedulingPolicy.gang: Invalid value: null: field cannot be cleared once set"},
		{"priority", func(g g) { g.Spec.PriorityClassName = "high" }, `spec.priorityClassName: Invalid value: null: field is immutable`},
	})
	o := valid()
	kindtest.Create(k, o)
	if got, want := kindtest.Header(k)+"\n"+kindtest.Row(t, k, o), "Name | Policy | Workload | Status | Age\ng | Gang | <none> | Pending | <unknown>"; got != want {
		t.Errorf("table: %s", got)
	}
	if o.Spec.DisruptionMode == nil || o.Spec.DisruptionMode.Single == nil {
		t.Errorf("disruption mode %+v", o.Spec.DisruptionMode)
	}
}

func TestWorkload(t *testing.T) {
	k := kindtest.Find(t, Group(), "Workload")
	type w = *schedulingv1beta1.Workload
	type change = kindtest.Change[w]
	valid := &schedulingv1beta1.Workload{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "w"}}
	valid.Spec.PodGroupTemplates = []schedulingv1beta1.PodGroupTemplate{{Name: "a", SchedulingPolicy: gang(1)}, {Name: "b", SchedulingPolicy: gang(2)}}
	kindtest.CreateTable(t, k, valid, []change{
		{"twice", func(w w) { w.Spec.PodGroupTemplates[1].Name = "a" }, `spec.podGroupTemplates[1]: Duplicate value: {"name":"a","schedulingPolicy":{"gang":{"minCount":2}},"schedulingConstraints":null}`},
		{"priorities", func(w w) { w.Spec.PodGroupTemplates[1].PriorityClassName = "high" }, `spec: Invalid value: null: detected multiple priority configurations`},
	})
	kindtest.UpdateTable(t, k, valid, []change{
		{"fewer", func(w w) { w.Spec.PodGroupTemplates = w.Spec.PodGroupTemplates[:1] }, "spec.podGroupTemplates: Forbidden: item may not be removed"},
	})
}
