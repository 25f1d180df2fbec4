package rbac

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func newClient(t *testing.T, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := rbacv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

func TestReconcile(t *testing.T) {
	ctx := context.Background()
	custom := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "system:basic-user", Annotations: map[string]string{AutoUpdateAnnotation: "true"}},
		Rules:      []rbacv1.PolicyRule{on("get", "", "pods")},
	}
	hands := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "system:discovery", Annotations: map[string]string{AutoUpdateAnnotation: "false"}},
	}
	rebound := clusterBinding("system:monitoring", "other", group("x"))
	c := newClient(t, custom, hands, rebound)
	for range 2 { // the second time must change nothing
		if err := Reconcile(ctx, c, BootstrapPolicy(BootstrapOptions{})); err != nil {
			t.Fatal(err)
		}
	}
	get := func(name string) *rbacv1.ClusterRole {
		t.Helper()
		var r rbacv1.ClusterRole
		if err := c.Get(ctx, client.ObjectKey{Name: name}, &r); err != nil {
			t.Fatal(err)
		}
		return &r
	}
	if got := get("system:basic-user").Rules; len(got) != 4 || got[0].Resources[0] != "pods" {
		t.Errorf("system:basic-user: got %v, want the rule it had and the three single ones that were missing", got)
	}
	if got := get("system:discovery"); len(got.Rules) != 0 {
		t.Errorf("system:discovery is not to be touched, got %v", got.Rules)
	}
	var b rbacv1.ClusterRoleBinding
	if err := c.Get(ctx, client.ObjectKey{Name: "system:monitoring"}, &b); err != nil {
		t.Fatal(err)
	}
	if b.RoleRef.Name != "system:monitoring" || len(b.Subjects) != 1 || b.Subjects[0].Name != "system:monitoring" {
		t.Errorf("binding to another role: got %v %v, want it replaced", b.RoleRef, b.Subjects)
	}
	admin, edit, view := get("admin").Rules, get("edit").Rules, get("view").Rules
	if len(view) == 0 || len(edit) <= len(view) || len(admin) <= len(edit) {
		t.Errorf("aggregated roles have %d, %d, %d rules", len(admin), len(edit), len(view))
	}
	for _, r := range view {
		if slices.Contains(r.Resources, "secrets") {
			t.Error("view may see secrets")
		}
		if covered, _ := validation.Covers(admin, []rbacv1.PolicyRule{r}); !covered {
			t.Errorf("admin lacks %v of view", r)
		}
	}
	var roles rbacv1.RoleList
	if err := c.List(ctx, &roles, client.InNamespace("kube-public")); err != nil || len(roles.Items) != 1 {
		t.Errorf("roles in kube-public: %v %v", roles.Items, err)
	}
}

func TestBootstrapPolicyIsWellFormed(t *testing.T) {
	b := BootstrapPolicy(BootstrapOptions{NodesByRole: true})
	roles := map[string]bool{}
	for _, r := range b.ClusterRoles {
		if roles[r.Name] {
			t.Errorf("role %s twice", r.Name)
		}
		roles[r.Name] = true
		for _, rule := range r.Rules {
			if len(rule.Verbs) == 0 || (len(rule.Resources) == 0) == (len(rule.NonResourceURLs) == 0) {
				t.Errorf("role %s has malformed rule %v", r.Name, rule)
			}
			for _, s := range slices.Concat(rule.Verbs, rule.Resources) {
				if s == "" || strings.TrimSpace(s) != s {
					t.Errorf("role %s has %q in %v", r.Name, s, rule)
				}
			}
		}
	}
	for _, x := range b.ClusterRoleBindings {
		if !roles[x.RoleRef.Name] {
			t.Errorf("binding %s to missing role %s", x.Name, x.RoleRef.Name)
		}
	}
	names := map[string]bool{}
	for _, r := range b.Roles {
		names[r.Namespace+"/"+r.Name] = true
	}
	for _, x := range b.RoleBindings {
		if !names[x.Namespace+"/"+x.RoleRef.Name] {
			t.Errorf("binding %s/%s to missing role %s", x.Namespace, x.Name, x.RoleRef.Name)
		}
	}
}

func TestRunFollowsInformers(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := rbacv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	informers := &informertest.FakeInformers{Scheme: scheme}
	a, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, informers) }()
	wait, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	if err := a.WaitReady(wait); err != nil {
		t.Fatal(err)
	}
	roles, err := informers.FakeInformerFor(ctx, &rbacv1.ClusterRole{})
	if err != nil {
		t.Fatal(err)
	}
	bindings, err := informers.FakeInformerFor(ctx, &rbacv1.ClusterRoleBinding{})
	if err != nil {
		t.Fatal(err)
	}
	role := clusterRole("r", on("get", "", "pods"))
	roles.Add(role)
	bindings.Add(clusterBinding("b", "r", userNamed("jane")))
	ask := func() authorizer.Decision {
		d, _, _ := a.Authorize(ctx, authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "jane"}, Verb: "get", Resource: "pods", ResourceRequest: true})
		return d
	}
	if d := ask(); d != authorizer.DecisionAllow {
		t.Errorf("after adding: %v", d)
	}
	roles.Delete(role)
	if d := ask(); d != authorizer.DecisionNoOpinion {
		t.Errorf("after deleting the role: %v", d)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
