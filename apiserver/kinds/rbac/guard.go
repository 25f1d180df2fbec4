package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/component-helpers/auth/rbac/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// guard keeps users from granting what they do not hold.
type guard Options

type begun = func(committed bool)

func (g guard) off(obj client.Object) bool {
	return obj == nil || (g.Policy == nil && g.Authorizer == nil)
}

func (g guard) role(ctx context.Context, obj, old client.Object, _ bool) (begun, error) {
	r, ok := obj.(*rbacv1.Role)
	if !ok || g.off(obj) || onlyGarbageFields(obj, old) {
		return nil, nil
	}
	if g.allowed(ctx, "escalate", "roles", r.Namespace, r.Name) {
		return nil, nil
	}
	if err := g.holds(ctx, r.Namespace, r.Rules); err != nil {
		return nil, apierrors.NewForbidden(rbacv1.Resource("roles"), r.Name, err)
	}
	return nil, nil
}

func (g guard) clusterRole(ctx context.Context, obj, old client.Object, _ bool) (begun, error) {
	r, ok := obj.(*rbacv1.ClusterRole)
	if !ok || g.off(obj) || onlyGarbageFields(obj, old) {
		return nil, nil
	}
	if g.allowed(ctx, "escalate", "clusterroles", "", r.Name) {
		return nil, nil
	}
	if err := g.holds(ctx, "", r.Rules); err != nil {
		return nil, apierrors.NewForbidden(rbacv1.Resource("clusterroles"), r.Name, err)
	}
	aggregates := r.AggregationRule != nil
	if before, ok := old.(*rbacv1.ClusterRole); ok && before != nil {
		aggregates = aggregates && !apiequality.Semantic.DeepEqual(r.AggregationRule, before.AggregationRule)
	}
	if aggregates && g.holds(ctx, "", everything()) != nil {
		return nil, apierrors.NewForbidden(rbacv1.Resource("clusterroles"), r.Name, errors.New("must have cluster-admin privileges to use the aggregationRule"))
	}
	return nil, nil
}

func (g guard) roleBinding(ctx context.Context, obj, old client.Object, _ bool) (begun, error) {
	b, ok := obj.(*rbacv1.RoleBinding)
	if !ok || g.off(obj) || onlyGarbageFields(obj, old) {
		return nil, nil
	}
	if err := g.binds(ctx, b.RoleRef, b.Namespace); err != nil {
		return nil, refuse(err, "rolebindings", b.Name)
	}
	return nil, nil
}

func (g guard) clusterRoleBinding(ctx context.Context, obj, old client.Object, _ bool) (begun, error) {
	b, ok := obj.(*rbacv1.ClusterRoleBinding)
	if !ok || g.off(obj) || onlyGarbageFields(obj, old) {
		return nil, nil
	}
	if err := g.binds(ctx, b.RoleRef, ""); err != nil {
		return nil, refuse(err, "clusterrolebindings", b.Name)
	}
	return nil, nil
}

// refuse leaves the status of a role that is not there as it is.
func refuse(err error, resource, name string) error {
	if apierrors.IsNotFound(err) {
		return err
	}
	return apierrors.NewForbidden(rbacv1.Resource(resource), name, err)
}

func everything() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
		{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
	}
}

func (g guard) binds(ctx context.Context, ref rbacv1.RoleRef, namespace string) error {
	resource, roleNamespace := "roles", namespace
	if ref.Kind == "ClusterRole" {
		resource = "clusterroles"
	}
	if g.allowed(ctx, "bind", resource, roleNamespace, ref.Name) {
		return nil
	}
	if g.Policy == nil {
		return errors.New("not allowed to bind the role")
	}
	rules, err := g.Policy.RoleRules(ctx, ref, namespace)
	if err != nil {
		return err
	}
	return g.holds(ctx, namespace, rules)
}

// allowed tells whether the user is a superuser or has been given the verb.
func (g guard) allowed(ctx context.Context, verb, resource, namespace, name string) bool {
	u, ok := request.UserFrom(ctx)
	if !ok {
		return false
	}
	if slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return true
	}
	if g.Authorizer == nil {
		return false
	}
	decision, _, err := g.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: u, Verb: verb, APIGroup: rbacv1.GroupName, APIVersion: "*", Resource: resource, Name: name, Namespace: namespace, ResourceRequest: true,
	})
	return err == nil && decision == authorizer.DecisionAllow
}

// holds returns an error that lists the rules which the user does not hold.
func (g guard) holds(ctx context.Context, namespace string, wanted []rbacv1.PolicyRule) error {
	u, ok := request.UserFrom(ctx)
	if !ok {
		return errors.New("no user on context")
	}
	if g.Policy == nil {
		return errors.New("not allowed to grant RBAC permissions")
	}
	held, resolveErr := g.Policy.PolicyRules(ctx, u, namespace)
	covered, missing := validation.Covers(held, wanted)
	if covered {
		return nil
	}
	lines := map[string]bool{}
	for _, r := range compact(missing) {
		lines[ruleText(r)] = true
	}
	list := make([]string, 0, len(lines))
	for l := range lines {
		list = append(list, l)
	}
	sort.Strings(list)
	text := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s", u.GetName(), u.GetGroups(), strings.Join(list, "\n"))
	if resolveErr != nil {
		text += fmt.Sprintf("; resolution errors: [%v]", resolveErr)
	}
	return errors.New(text)
}

// compact joins rules that differ in their verbs only, so that the message stays readable.
func compact(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	at := map[string]int{}
	for _, r := range rules {
		key := fmt.Sprintf("%q %q %q %q", r.APIGroups, r.Resources, r.ResourceNames, r.NonResourceURLs)
		if i, ok := at[key]; ok {
			for _, v := range r.Verbs {
				if !slices.Contains(out[i].Verbs, v) {
					out[i].Verbs = append(out[i].Verbs, v)
				}
			}
			continue
		}
		at[key] = len(out)
		r.Verbs = slices.Clone(r.Verbs)
		out = append(out, r)
	}
	return out
}

func ruleText(r rbacv1.PolicyRule) string {
	var parts []string
	add := func(name string, values []string) {
		if len(values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", name, values))
		}
	}
	add("APIGroups", r.APIGroups)
	add("Resources", r.Resources)
	add("NonResourceURLs", r.NonResourceURLs)
	add("ResourceNames", r.ResourceNames)
	add("Verbs", r.Verbs)
	return "{" + strings.Join(parts, ", ") + "}"
}

// onlyGarbageFields tells whether an update touches nothing but what the garbage collector writes.
func onlyGarbageFields(obj, old client.Object) bool {
	if obj == nil || old == nil {
		return false
	}
	a, ok := obj.DeepCopyObject().(client.Object)
	if !ok {
		return false
	}
	a.SetOwnerReferences(old.GetOwnerReferences())
	a.SetFinalizers(old.GetFinalizers())
	a.SetManagedFields(old.GetManagedFields())
	a.SetResourceVersion(old.GetResourceVersion())
	a.GetObjectKind().SetGroupVersionKind(old.GetObjectKind().GroupVersionKind())
	return apiequality.Semantic.DeepEqual(a, old)
}
