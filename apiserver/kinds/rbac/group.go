package rbac

import (
	"context"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/keelson/keelson/apiserver/kind"
)

// Policy knows who may do what. Implementations are safe for concurrent use.
type Policy interface {
	// PolicyRules returns every rule that holds for the user in a namespace, or cluster-wide if namespace is "". An error
	// may come with the rules that could be found.
	PolicyRules(ctx context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error)
	// RoleRules returns the rules of the role that a binding in namespace refers to ("" for a cluster role binding).
	RoleRules(ctx context.Context, ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error)
}

// Options of the group. Without a Policy and an Authorizer nothing is checked but the objects' form.
type Options struct {
	// Authorizer decides on the verbs escalate and bind.
	Authorizer authorizer.UnconditionalAuthorizer
	// Policy resolves what the requesting user holds.
	Policy Policy
}

// Group returns the declarations of API group rbac.authorization.k8s.io.
func Group(opts Options) kind.Group {
	g := guard(opts)
	return kind.Group{
		Name:        rbacv1.GroupName,
		AddToScheme: rbacv1.AddToScheme,
		Versions:    []string{"v1"},
		Kinds:       []*kind.Kind{clusterRoleBinding(g), clusterRole(g), roleBinding(g), role(g)},
	}
}

func validName(name string, prefix bool) []string {
	if prefix {
		return path.IsValidPathSegmentPrefix(name)
	}
	return path.IsValidPathSegmentName(name)
}

func createdAt(t metav1.Time) string { return t.UTC().Format(time.RFC3339) }
