package disruption_test

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/disruption"
)

var web = map[string]string{"app": "web"}

func budget(minimum, most string) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: controllertest.Labels(web)}}
	if minimum != "" {
		v := intstr.Parse(minimum)
		b.Spec.MinAvailable = &v
	}
	if most != "" {
		v := intstr.Parse(most)
		b.Spec.MaxUnavailable = &v
	}
	return b
}

func setup(e *controllertest.Env, b *policyv1.PodDisruptionBudget, ready, total int) {
	ten := int32(10)
	yes := true
	e.Cluster.Put(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d", UID: "d"}, Spec: appsv1.DeploymentSpec{Replicas: &ten}})
	for _, n := range []string{"r1", "r2"} {
		e.Cluster.Put(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: n, UID: types.UID("uid-" + n), OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "d", UID: "d", Controller: &yes}}}})
	}
	for i := range total {
		set := []string{"r1", "r2"}[i%2]
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "default", Name: fmt.Sprint("p", i), Labels: web,
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: set, UID: types.UID("uid-" + set), Controller: &yes}},
			},
			Status: *controllertest.ReadyStatus("10.0.0.1"),
		}
		if i >= ready {
			p.Status.Conditions[3].Status = corev1.ConditionFalse
		}
		e.Cluster.Put(p)
	}
	e.Cluster.Put(b)
	ctl, err := disruption.New(e.Client, e.Cache, disruption.Options{})
	e.Check(err)
	e.Start(ctl.Run)
	e.Settle()
}

func describe(e *controllertest.Env) string {
	b, _ := controllertest.Get[*policyv1.PodDisruptionBudget](e.Cluster, "default", "b")
	s := b.Status
	out := fmt.Sprintf("allowed=%d healthy=%d/%d expected=%d", s.DisruptionsAllowed, s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods)
	for _, c := range s.Conditions {
		out += fmt.Sprintf(" %s=%s(%s)", c.Type, c.Status, c.Reason)
	}
	return out
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		minimum, most string
		ready, total  int
		want          string
	}{
		{"3", "", 5, 5, "allowed=2 healthy=5/3 expected=5 DisruptionAllowed=True(SufficientPods)"},
		{"50%", "", 8, 10, "allowed=3 healthy=8/5 expected=10 DisruptionAllowed=True(SufficientPods)"},
		{"", "1", 10, 10, "allowed=1 healthy=10/9 expected=10 DisruptionAllowed=True(SufficientPods)"},
		{"", "1", 9, 10, "allowed=0 healthy=9/9 expected=10 DisruptionAllowed=False(InsufficientPods)"},
		{"", "30%", 4, 4, "allowed=0 healthy=4/7 expected=10 DisruptionAllowed=False(InsufficientPods)"},
		{"0", "", 0, 0, "allowed=0 healthy=0/0 expected=0 DisruptionAllowed=False(InsufficientPods)"},
	} {
		controllertest.Run(t, func(e *controllertest.Env) {
			setup(e, budget(c.minimum, c.most), c.ready, c.total)
			if got := describe(e); got != c.want {
				t.Errorf("%+v:\n got %s", c, got)
			}
		})
	}
}

// TestEvicted: a pod that the API server has allowed to go does not count, for
// two minutes at most.
func TestEvicted(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		b := budget("3", "")
		b.Status.DisruptedPods = map[string]metav1.Time{"p0": metav1.Now(), "gone": metav1.Now()}
		setup(e, b, 5, 5)
		if got := describe(e); got != "allowed=1 healthy=4/3 expected=5 DisruptionAllowed=True(SufficientPods)" {
			t.Error(got)
		}
		e.Advance(3 * time.Minute)
		if got := describe(e); got != "allowed=2 healthy=5/3 expected=5 DisruptionAllowed=True(SufficientPods)" {
			t.Error(got)
		}
	})
}

func TestStaleMark(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		setup(e, budget("3", ""), 5, 5)
		mark := func() corev1.ConditionStatus {
			p, _ := controllertest.Get[*corev1.Pod](e.Cluster, "default", "p0")
			return p.Status.Conditions[4].Status
		}
		controllertest.Edit(e.Cluster, "default", "p0", func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
		})
		e.Advance(time.Minute)
		if mark() != corev1.ConditionTrue {
			t.Error("taken back too early")
		}
		e.Advance(2 * time.Minute)
		if mark() != corev1.ConditionFalse {
			t.Error("not taken back")
		}
	})
}
