package aggregation

import (
	"context"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func newClient(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := rbacv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

func get(resource string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{resource}}
}

func TestAll(t *testing.T) {
	ctx := context.Background()
	c := newClient(t,
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "all"}, AggregationRule: &rbacv1.AggregationRule{
				ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"part": "yes"}}},
			},
			Rules: []rbacv1.PolicyRule{get("stale")},
		},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "p2", Labels: map[string]string{"part": "yes"}}, Rules: []rbacv1.PolicyRule{get("b")}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "p1", Labels: map[string]string{"part": "yes"}}, Rules: []rbacv1.PolicyRule{get("a"), get("b")}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Rules: []rbacv1.PolicyRule{get("c")}},
	)
	if err := All(ctx, c); err != nil {
		t.Fatal(err)
	}
	var got rbacv1.ClusterRole
	if err := c.Get(ctx, client.ObjectKey{Name: "all"}, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Rules) != 2 || got.Rules[0].Resources[0] != "a" || got.Rules[1].Resources[0] != "b" {
		t.Errorf("got %v, want the rules of p1 and p2 once each", got.Rules)
	}
}
