package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/auth/internal/follow"
)

// Options of an Authorizer; the zero value is usable.
type Options struct {
	// Logger gets what goes wrong while policy objects are followed. The zero value discards.
	Logger logr.Logger
	// SuperGroups are groups whose users may do everything. Default: system:masters. An empty, non-nil slice has none.
	SuperGroups []string
}

func (o Options) withDefaults() Options {
	if o.SuperGroups == nil {
		o.SuperGroups = []string{user.SystemPrivilegedGroup}
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	return o
}

func (o Options) validate() error {
	if slices.Contains(o.SuperGroups, "") {
		return errors.New(`rbac: Options.SuperGroups: expected group names, got ""`)
	}
	return nil
}

// Authorizer decides by the policy objects it was given. It is safe for concurrent use. It has no opinion, rather than
// denying, where nothing allows a request, so that it can be one of several.
type Authorizer struct {
	opts Options

	mu       sync.RWMutex
	policy   policy
	users    map[string][]*resolved
	resolved int

	readyOnce sync.Once
	ready     chan struct{}
}

var (
	_ authorizer.Authorizer   = (*Authorizer)(nil)
	_ authorizer.RuleResolver = (*Authorizer)(nil)
)

// New returns an Authorizer that knows no policy yet.
func New(opts Options) (*Authorizer, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	return &Authorizer{
		opts:   opts.withDefaults(),
		policy: newPolicy(),
		users:  map[string][]*resolved{},
		ready:  make(chan struct{}),
	}, nil
}

// Run follows the policy objects of informers until ctx ends. It does not start the cache.
func (a *Authorizer) Run(ctx context.Context, informers cache.Informers) error {
	kinds := []client.Object{&rbacv1.ClusterRole{}, &rbacv1.ClusterRoleBinding{}, &rbacv1.Role{}, &rbacv1.RoleBinding{}}
	if err := follow.Run(ctx, informers, kinds, a, a.opts.Logger, func() { a.readyOnce.Do(func() { close(a.ready) }) }); err != nil {
		return fmt.Errorf("rbac: %w", err)
	}
	return nil
}

// WaitReady blocks until Run has seen every policy object that existed when it started.
func (a *Authorizer) WaitReady(ctx context.Context) error {
	select {
	case <-a.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Set adds or replaces a Role, ClusterRole, RoleBinding or ClusterRoleBinding, which must not change afterwards. Other
// objects are ignored. Callers that have no informers use it and Delete in place of Run.
func (a *Authorizer) Set(obj client.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.policy.set(obj) {
		a.forget()
	}
}

// Delete removes an object given to Set, by its kind, namespace and name.
func (a *Authorizer) Delete(obj client.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.policy.remove(obj) {
		a.forget()
	}
}

func (a *Authorizer) forget() {
	if a.resolved > 0 {
		a.users, a.resolved = map[string][]*resolved{}, 0
	}
}

// Limits of what is kept for users, so that names made up by clients don't fill the memory.
const (
	maxResolved     = 4096
	maxGroupsOfName = 16
)

func (a *Authorizer) resolve(u user.Info) *resolved {
	name, groups := u.GetName(), u.GetGroups()
	a.mu.RLock()
	for _, r := range a.users[name] {
		if slices.Equal(r.groups, groups) {
			a.mu.RUnlock()
			return r
		}
	}
	a.mu.RUnlock()

	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.policy.resolve(name, groups)
	if a.resolved >= maxResolved || len(a.users[name]) >= maxGroupsOfName {
		a.forget()
	}
	a.users[name] = append(a.users[name], r)
	a.resolved++
	return r
}

func (a *Authorizer) super(groups []string) bool {
	for _, g := range groups {
		if slices.Contains(a.opts.SuperGroups, g) {
			return true
		}
	}
	return false
}

// Authorize implements authorizer.Authorizer. It returns no errors: a binding to a role that is missing is told in the reason.
func (a *Authorizer) Authorize(_ context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	u := attrs.GetUser()
	if u == nil {
		return authorizer.DecisionNoOpinion, "no user", nil
	}
	if a.super(u.GetGroups()) {
		return authorizer.DecisionAllow, "", nil
	}
	r := a.resolve(u)
	if grant := r.find(attrs); grant != nil {
		return authorizer.DecisionAllow, grant.origin, nil
	}
	return authorizer.DecisionNoOpinion, r.reason(attrs.GetNamespace()), nil
}

// ConditionsAwareAuthorize implements authorizer.Authorizer; decisions carry no conditions.
func (a *Authorizer) ConditionsAwareAuthorize(ctx context.Context, attrs authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(a.Authorize(ctx, attrs))
}

// EvaluateConditions implements authorizer.Authorizer by refusing: there are no conditions.
func (a *Authorizer) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// RulesFor implements authorizer.RuleResolver.
func (a *Authorizer) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	rules, err := a.PolicyRules(ctx, u, namespace)
	var resources []authorizer.ResourceRuleInfo
	var paths []authorizer.NonResourceRuleInfo
	for _, r := range rules {
		if len(r.NonResourceURLs) > 0 {
			paths = append(paths, &authorizer.DefaultNonResourceRuleInfo{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
		}
		if len(r.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
		}
	}
	return resources, paths, false, err
}

// PolicyRules returns the rules that hold for a user in a namespace, those of cluster role bindings first; with namespace "" only these. The
// error tells of bindings to roles that are missing; the rules are valid beside it. They must not be modified.
func (a *Authorizer) PolicyRules(_ context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	if a.super(u.GetGroups()) {
		return []rbacv1.PolicyRule{
			{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
			{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
		}, nil
	}
	r := a.resolve(u)
	out := slices.Clone(r.cluster.policy)
	missing := slices.Clone(r.cluster.missing)
	if namespace != "" {
		if scope := r.namespaces[namespace]; scope != nil {
			out = append(out, scope.policy...)
			missing = append(missing, scope.missing...)
		}
	}
	return out, errors.Join(missing...)
}

// RoleRules returns the rules of the role that a binding in namespace refers to ("" for a cluster role binding), or a NotFound error.
func (a *Authorizer) RoleRules(_ context.Context, ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	role := a.policy.role(ref, namespace)
	if role == nil {
		return nil, notFound(ref)
	}
	return role.rules, nil
}

func key(obj client.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}
