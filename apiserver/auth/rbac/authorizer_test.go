package rbac

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// naive decides by reading every object for each request, as the RBAC documentation words it.
type naive struct{ objects []client.Object }

func (n naive) allows(a authorizer.Attributes) bool {
	for _, o := range n.objects {
		switch b := o.(type) {
		case *rbacv1.ClusterRoleBinding:
			if n.applies(b.Subjects, "", a.GetUser()) && n.roleAllows(b.RoleRef, "", a) {
				return true
			}
		case *rbacv1.RoleBinding:
			if a.GetNamespace() != "" && b.Namespace == a.GetNamespace() && n.applies(b.Subjects, b.Namespace, a.GetUser()) && n.roleAllows(b.RoleRef, b.Namespace, a) {
				return true
			}
		}
	}
	return false
}

func (n naive) applies(subjects []rbacv1.Subject, namespace string, u user.Info) bool {
	for _, s := range subjects {
		switch s.Kind {
		case "User":
			if s.Name == u.GetName() {
				return true
			}
		case "Group":
			if slices.Contains(u.GetGroups(), s.Name) {
				return true
			}
		case "ServiceAccount":
			ns := s.Namespace
			if ns == "" {
				ns = namespace
			}
			if ns != "" && "system:serviceaccount:"+ns+":"+s.Name == u.GetName() {
				return true
			}
		}
	}
	return false
}

func (n naive) roleAllows(ref rbacv1.RoleRef, namespace string, a authorizer.Attributes) bool {
	var rules []rbacv1.PolicyRule
	for _, o := range n.objects {
		switch r := o.(type) {
		case *rbacv1.ClusterRole:
			if ref.Kind == "ClusterRole" && r.Name == ref.Name {
				rules = r.Rules
			}
		case *rbacv1.Role:
			if ref.Kind == "Role" && r.Name == ref.Name && r.Namespace == namespace {
				rules = r.Rules
			}
		}
	}
	has := func(list []string, values ...string) bool {
		for _, v := range values {
			if slices.Contains(list, v) {
				return true
			}
		}
		return false
	}
	for _, r := range rules {
		if !has(r.Verbs, "*", a.GetVerb()) {
			continue
		}
		if !a.IsResourceRequest() {
			for _, u := range r.NonResourceURLs {
				if u == "*" || u == a.GetPath() || (strings.HasSuffix(u, "*") && strings.HasPrefix(a.GetPath(), strings.TrimRight(u, "*"))) {
					return true
				}
			}
			continue
		}
		combined := a.GetResource()
		if a.GetSubresource() != "" {
			combined += "/" + a.GetSubresource()
		}
		if has(r.APIGroups, "*", a.GetAPIGroup()) &&
			(has(r.Resources, "*", combined) || (a.GetSubresource() != "" && has(r.Resources, "*/"+a.GetSubresource()))) &&
			(len(r.ResourceNames) == 0 || has(r.ResourceNames, a.GetName())) {
			return true
		}
	}
	return false
}

type gen struct{ *rand.Rand }

func (g gen) pick(from ...string) string { return from[g.IntN(len(from))] }

func (g gen) some(max int, from ...string) []string {
	out := []string{}
	for range 1 + g.IntN(max) {
		out = append(out, g.pick(from...))
	}
	return out
}

func (g gen) rules() []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for range 1 + g.IntN(4) {
		r := rbacv1.PolicyRule{Verbs: g.some(2, "get", "list", "create", "delete", "*")}
		if g.IntN(5) == 0 {
			r.NonResourceURLs = g.some(2, "/healthz", "/apis/*", "*", "/metrics", "/apis")
		} else {
			r.APIGroups = g.some(2, "", "apps", "batch", "*")
			r.Resources = g.some(3, "pods", "pods/log", "deployments", "*/scale", "deployments/scale", "secrets", "*", "pods/")
			if g.IntN(3) == 0 {
				r.ResourceNames = g.some(2, "a", "b", "")
			}
		}
		out = append(out, r)
	}
	return out
}

func (g gen) subjects() []rbacv1.Subject {
	var out []rbacv1.Subject
	for range 1 + g.IntN(5) {
		s := rbacv1.Subject{Kind: g.pick("User", "Group", "Group", "ServiceAccount", "Robot"), Name: g.pick("u1", "u2", "g1", "g2")}
		if s.Kind == "ServiceAccount" && g.IntN(2) == 0 {
			s.Namespace = g.pick("n1", "n2")
		}
		out = append(out, s)
	}
	return out
}

func (g gen) object() client.Object {
	meta := metav1.ObjectMeta{Name: g.pick("a", "b", "c", "d")}
	namespaced := meta
	namespaced.Namespace = g.pick("n1", "n2", "n3")
	ref := rbacv1.RoleRef{Kind: g.pick("Role", "ClusterRole"), Name: g.pick("a", "b", "c", "d", "missing")}
	switch g.IntN(4) {
	case 0:
		return &rbacv1.ClusterRole{ObjectMeta: meta, Rules: g.rules()}
	case 1:
		return &rbacv1.Role{ObjectMeta: namespaced, Rules: g.rules()}
	case 2:
		ref.Kind = "ClusterRole"
		return &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: g.subjects()}
	default:
		return &rbacv1.RoleBinding{ObjectMeta: namespaced, RoleRef: ref, Subjects: g.subjects()}
	}
}

func (g gen) request() authorizer.AttributesRecord {
	a := authorizer.AttributesRecord{
		User: &user.DefaultInfo{
			Name:   g.pick("u1", "u2", "system:serviceaccount:n1:u1", "system:serviceaccount:n2:u2", "nobody"),
			Groups: g.some(2, "g1", "g2", "g3"),
		},
		Verb: g.pick("get", "list", "create", "delete"),
	}
	if g.IntN(5) == 0 {
		a.Path = g.pick("/healthz", "/apis", "/apis/apps", "/metrics")
		return a
	}
	a.ResourceRequest = true
	a.Namespace = g.pick("", "n1", "n2", "n3", "n4")
	a.APIGroup = g.pick("", "apps", "batch")
	a.Resource = g.pick("pods", "deployments", "secrets", "nodes")
	a.Subresource = g.pick("", "", "log", "scale")
	a.Name = g.pick("", "a", "b", "c")
	return a
}

func TestDecisionsEqualNaiveEvaluator(t *testing.T) {
	g := gen{rand.New(rand.NewPCG(1, 2))}
	allowed, denied := 0, 0
	for round := range 300 {
		a, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		var n naive
		for range 30 {
			// Changes and decisions alternate, so that what is kept must be dropped rightly.
			o := g.object()
			same := func(x client.Object) bool {
				return fmt.Sprintf("%T", x) == fmt.Sprintf("%T", o) && x.GetName() == o.GetName() && x.GetNamespace() == o.GetNamespace()
			}
			n.objects = slices.DeleteFunc(n.objects, same)
			if g.IntN(5) == 0 {
				a.Delete(o)
			} else {
				n.objects = append(n.objects, o)
				a.Set(o)
			}
			for range 10 {
				req := g.request()
				want := n.allows(req)
				got, reason, err := a.Authorize(context.Background(), req)
				if err != nil || (got == authorizer.DecisionAllow) != want {
					t.Fatalf("round %d: %+v of %v: got %v (%s, %v), naive evaluator says %v", round, req, req.User, got, reason, err, want)
				}
				if got == authorizer.DecisionDeny {
					t.Fatal("an RBAC authorizer has no opinion where nothing allows")
				}
				if want {
					allowed++
				} else {
					denied++
				}
			}
		}
	}
	if allowed < 1000 || denied < 1000 {
		t.Fatalf("the random policies decide too little: %d allowed, %d not", allowed, denied)
	}
}

func bootstrapped(t testing.TB) *Authorizer {
	t.Helper()
	a, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := BootstrapPolicy(BootstrapOptions{})
	for _, o := range b.ClusterRoles {
		a.Set(o)
	}
	for _, o := range b.ClusterRoleBindings {
		a.Set(o)
	}
	for _, o := range b.Roles {
		a.Set(o)
	}
	for _, o := range b.RoleBindings {
		a.Set(o)
	}
	return a
}

func TestBootstrapDecisions(t *testing.T) {
	a := bootstrapped(t)
	authenticated := []string{"system:authenticated"}
	tests := []struct {
		user   user.DefaultInfo
		verb   string
		what   string // group/resource[/subresource], or a path
		ns     string
		name   string
		want   bool
		reason string
	}{
		{user: user.DefaultInfo{Name: "root", Groups: []string{"system:masters"}}, verb: "delete", what: "/nodes", want: true},
		{user: user.DefaultInfo{Name: "jane", Groups: authenticated}, verb: "get", what: "/pods", ns: "default"},
		{
			user: user.DefaultInfo{Name: "jane", Groups: authenticated}, verb: "create", what: "authorization.k8s.io/selfsubjectaccessreviews", want: true,
			reason: `RBAC: allowed by ClusterRoleBinding "system:basic-user" of ClusterRole "system:basic-user" to Group "system:authenticated"`,
		},
		{user: user.DefaultInfo{Name: "jane", Groups: authenticated}, verb: "get", what: "path:/apis/apps/v1", want: true},
		{user: user.DefaultInfo{Name: "jane", Groups: authenticated}, verb: "get", what: "path:/metrics"},
		{user: user.DefaultInfo{Name: "system:anonymous", Groups: []string{"system:unauthenticated"}}, verb: "get", what: "path:/healthz", want: true},
		{user: user.DefaultInfo{Name: "system:anonymous", Groups: []string{"system:unauthenticated"}}, verb: "get", what: "path:/api"},
		{user: user.DefaultInfo{Name: "system:kube-scheduler"}, verb: "create", what: "/pods/binding", ns: "x", want: true},
		{user: user.DefaultInfo{Name: "system:kube-scheduler"}, verb: "update", what: "coordination.k8s.io/leases", ns: "kube-system", name: "kube-scheduler", want: true},
		{user: user.DefaultInfo{Name: "system:kube-scheduler"}, verb: "update", what: "coordination.k8s.io/leases", ns: "default", name: "other"},
		{user: user.DefaultInfo{Name: "system:serviceaccount:kube-system:horizontal-pod-autoscaler"}, verb: "update", what: "apps/deployments/scale", ns: "x", name: "web", want: true},
		{user: user.DefaultInfo{Name: "system:serviceaccount:default:horizontal-pod-autoscaler"}, verb: "update", what: "apps/deployments/scale", ns: "x", name: "web"},
		{user: user.DefaultInfo{Name: "system:kube-scheduler"}, verb: "get", what: "/configmaps", ns: "kube-system", name: "extension-apiserver-authentication", want: true},
		{user: user.DefaultInfo{Name: "system:kube-scheduler"}, verb: "get", what: "/configmaps", ns: "default", name: "extension-apiserver-authentication"},
		{user: user.DefaultInfo{Name: "system:node:a", Groups: []string{"system:nodes"}}, verb: "get", what: "/secrets", ns: "default", name: "s"},
	}
	for _, tt := range tests {
		attrs := authorizer.AttributesRecord{User: &tt.user, Verb: tt.verb, Namespace: tt.ns, Name: tt.name}
		if path, ok := strings.CutPrefix(tt.what, "path:"); ok {
			attrs.Path = path
		} else {
			parts := strings.Split(tt.what, "/")
			attrs.ResourceRequest, attrs.APIGroup, attrs.Resource = true, parts[0], parts[1]
			if len(parts) > 2 {
				attrs.Subresource = parts[2]
			}
		}
		got, reason, err := a.Authorize(context.Background(), attrs)
		if err != nil || (got == authorizer.DecisionAllow) != tt.want || (tt.reason != "" && tt.reason != reason) {
			t.Errorf("%s %s %s in %q: got %v %q %v, want allowed %v %q", tt.user.Name, tt.verb, tt.what, tt.ns, got, reason, err, tt.want, tt.reason)
		}
	}
}

func TestMissingRoleIsTold(t *testing.T) {
	a, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	a.Set(&rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "x"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "gone"},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: "jane"}},
	})
	u := &user.DefaultInfo{Name: "jane"}
	_, reason, _ := a.Authorize(context.Background(), authorizer.AttributesRecord{User: u, Verb: "get", Resource: "pods", ResourceRequest: true})
	if want := `RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found`; reason != want {
		t.Errorf("got reason %q, want %q", reason, want)
	}
	if _, _, incomplete, err := a.RulesFor(context.Background(), u, "default"); err == nil || incomplete {
		t.Errorf("RulesFor: got incomplete %v, error %v; want the missing role as error", incomplete, err)
	}
}

func TestOptions(t *testing.T) {
	if _, err := New(Options{SuperGroups: []string{""}}); err == nil || !strings.Contains(err.Error(), "SuperGroups") {
		t.Errorf("got %v, want an error that names SuperGroups", err)
	}
	a, err := New(Options{SuperGroups: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	d, _, _ := a.Authorize(context.Background(), authorizer.AttributesRecord{User: &user.DefaultInfo{Groups: []string{"system:masters"}}, Verb: "get"})
	if d != authorizer.DecisionNoOpinion {
		t.Errorf("without super groups system:masters got %v", d)
	}
}

func BenchmarkAuthorize(b *testing.B) {
	a := bootstrapped(b)
	u := &user.DefaultInfo{Name: "system:serviceaccount:kube-system:deployment-controller", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"}}
	attrs := authorizer.AttributesRecord{User: u, Verb: "update", APIGroup: "apps", Resource: "deployments", Subresource: "status", Namespace: "default", Name: "web", ResourceRequest: true}
	b.ReportAllocs()
	for b.Loop() {
		if d, _, _ := a.Authorize(context.Background(), attrs); d != authorizer.DecisionAllow {
			b.Fatal(d)
		}
	}
}
