package clusterroleaggregation_test

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/clusterroleaggregation"
	"github.com/keelson/keelson/controller/controllertest"
)

func role(name, to string, verbs ...string) *rbacv1.ClusterRole {
	r := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"to": to}}}
	for _, v := range verbs {
		r.Rules = append(r.Rules, rbacv1.PolicyRule{Verbs: []string{v}})
	}
	return r
}

func sum(name, to, from string) *rbacv1.ClusterRole {
	r := role(name, to)
	r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{*controllertest.Labels(map[string]string{"to": from})}}
	return r
}

func TestAggregates(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		ctl, err := clusterroleaggregation.New(e.Client, e.Cache, clusterroleaggregation.Options{})
		e.Check(err)
		e.Start(ctl.Run)
		e.Create(role("b", "view", "get", "list"), role("a", "view", "watch", "get"), sum("view", "edit", "view"), role("c", "edit", "update"), sum("edit", "", "edit"))
		e.Settle()
		verbs := func(name string) string {
			r, _ := controllertest.Get[*rbacv1.ClusterRole](e.Cluster, "", name)
			var out []string
			for _, rule := range r.Rules {
				out = append(out, rule.Verbs...)
			}
			return strings.Join(out, " ")
		}
		if verbs("view") != "watch get list" || verbs("edit") != "update watch get list" {
			t.Errorf("view %q, edit %q", verbs("view"), verbs("edit"))
		}
		e.Check(e.Client.Delete(e.Ctx, role("b", "")))
		e.Settle()
		if verbs("edit") != "update watch get" {
			t.Errorf("edit %q after a part was deleted", verbs("edit"))
		}
	})
}
