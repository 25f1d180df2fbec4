package policy

import (
	"strings"
	"testing"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/keelson/keelson/apiserver/kinds/internal/kindtest"
)

func ptr[T any](v T) *T { return &v }

func TestPodDisruptionBudget(t *testing.T) {
	k := kindtest.Find(t, Group(), "PodDisruptionBudget")
	valid := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web"}, Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr(intstr.FromString("50%"))}}
	kindtest.CreateTable(t, k, valid, []kindtest.Change[*policyv1.PodDisruptionBudget]{
		{"negative", func(p *policyv1.PodDisruptionBudget) { p.Spec.MinAvailable = ptr(intstr.FromInt32(-1)) }, `spec.minAvailable: Invalid value: -1: must be greater than or equal to 0`},
		{"percent", func(p *policyv1.PodDisruptionBudget) { p.Spec.MinAvailable = ptr(intstr.FromString("120%")) }, `spec.minAvailable: Invalid value: "120%": must not be greater than 100%`},
		{"policy", func(p *policyv1.PodDisruptionBudget) {
			p.Spec.UnhealthyPodEvictionPolicy = ptr(policyv1.UnhealthyPodEvictionPolicyType("x"))
		}, `spec.unhealthyPodEvictionPolicy: Unsupported value: "x": supported values: "AlwaysAllow", "IfHealthyBudget"`},
	})
	both := valid.DeepCopy()
	both.Spec.MaxUnavailable = ptr(intstr.FromInt32(1))
	if got := kindtest.Create(k, both); !strings.HasSuffix(got, "minAvailable and maxUnavailable cannot be both set") {
		t.Error(got)
	}
	if got, want := kindtest.Header(k)+"\n"+kindtest.Row(t, k, valid), "Name | Min Available | Max Unavailable | Allowed Disruptions | Age\nweb | 50% | N/A | 0 | <unknown>"; got != want {
		t.Errorf("table: %s", got)
	}
}
