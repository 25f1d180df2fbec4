package rbac

import (
	"context"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"sigs.k8s.io/controller-runtime/pkg/client"

	authrbac "github.com/keelson/keelson/apiserver/auth/rbac"
	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/kindtest"
)

func TestForm(t *testing.T) {
	g := Group(Options{})
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "r"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}}
	kindtest.CreateTable(t, kindtest.Find(t, g, "Role"), role, []kindtest.Change[*rbacv1.Role]{
		{"empty rule", func(r *rbacv1.Role) { r.Rules[0] = rbacv1.PolicyRule{} }, `rules[0].verbs: Required value
rules[0].apiGroups: Required value: resource rules must supply at least one api group
rules[0].resources: Required value: resource rules must supply at least one resource`},
		{"paths", func(r *rbacv1.Role) {
			r.Rules[0] = rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}
		}, `rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs`},
	})
	b := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "b"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "r"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "jane"}}}
	k := kindtest.Find(t, g, "RoleBinding")
	kindtest.CreateTable(t, k, b, []kindtest.Change[*rbacv1.RoleBinding]{
		{"kind", func(b *rbacv1.RoleBinding) { b.RoleRef.Kind = "Rule" }, `roleRef.kind: Unsupported value: "Rule": supported values: "Role", "ClusterRole"`},
		{"subject", func(b *rbacv1.RoleBinding) { b.Subjects[0].Kind = "Robot" }, `subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"`},
	})
	kindtest.UpdateTable(t, k, b, []kindtest.Change[*rbacv1.RoleBinding]{
		{
			"role", func(b *rbacv1.RoleBinding) { b.RoleRef.Name = "other" },
			`roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"other"}: field is immutable`,
		},
	})
	kindtest.Create(k, b)
	if got, want := kindtest.Row(t, k, b), "b | Role/r | <unknown> | jane |  | "; got != want {
		t.Errorf("row: %q", got)
	}
}

// TestEscalation lets jane, who may read pods in n and bind role "bindable", grant no more than that.
func TestEscalation(t *testing.T) {
	policy, err := authrbac.New(authrbac.Options{})
	if err != nil {
		t.Fatal(err)
	}
	rule := func(verbs ...string) []rbacv1.PolicyRule {
		return []rbacv1.PolicyRule{{Verbs: verbs, APIGroups: []string{""}, Resources: []string{"pods"}}}
	}
	role := func(name string, rules []rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Rules: rules}
	}
	binding := func(name string, user string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: name}, Subjects: []rbacv1.Subject{{Kind: "User", Name: user}}}
	}
	policy.Set(role("own", append(rule("get", "list"), rbacv1.PolicyRule{Verbs: []string{"bind"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles"}, ResourceNames: []string{"bindable"}})))
	policy.Set(binding("own", "jane"))
	policy.Set(role("bindable", rule("delete")))
	policy.Set(role("strong", rule("delete")))
	var az authorizer.UnconditionalAuthorizer = policy
	g := Group(Options{Authorizer: az, Policy: policy})
	kinds := map[string]*kind.Kind{"Role": kindtest.Find(t, g, "Role"), "RoleBinding": kindtest.Find(t, g, "RoleBinding"), "ClusterRole": kindtest.Find(t, g, "ClusterRole")}
	aggregated := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "all"}, AggregationRule: &rbacv1.AggregationRule{}}
	for _, tt := range []struct {
		name, kind string
		obj        client.Object
		user       string
		groups     []string
		want       string
	}{
		{"less", "Role", role("x", rule("get")), "jane", nil, ""},
		{
			"more", "Role", role("x", rule("get", "delete", "watch")), "jane", nil,
			`roles.rbac.authorization.k8s.io "x" is forbidden: user "jane" (groups=[]) is attempting to grant RBAC permissions not currently held:` + "\n" + `{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}`,
		},
		{"superuser", "Role", role("x", rule("*")), "root", []string{user.SystemPrivilegedGroup}, ""},
		{"bind what is held", "RoleBinding", binding("own", "joe"), "jane", nil, ""},
		{"bind what may be bound", "RoleBinding", binding("bindable", "joe"), "jane", nil, ""},
		{"bind more", "RoleBinding", binding("strong", "joe"), "jane", nil, `rolebindings.rbac.authorization.k8s.io "strong" is forbidden: user "jane"`},
		{"bind what is not there", "RoleBinding", binding("gone", "joe"), "jane", nil, `role.rbac.authorization.k8s.io "gone" not found`},
		{"aggregate", "ClusterRole", aggregated, "jane", nil, "must have cluster-admin privileges to use the aggregationRule"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := request.WithUser(context.Background(), &user.DefaultInfo{Name: tt.user, Groups: tt.groups})
			_, err := kinds[tt.kind].Begin(ctx, tt.obj, nil, false)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
				t.Errorf("%v is no error of the API", err)
			}
		})
	}
}
