package aggregation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// All fills the rules of every ClusterRole that has an aggregation rule. It repeats until nothing changes, since aggregated
// roles may be parts of others.
func All(ctx context.Context, c client.Client) error {
	const rounds = 8 // deeper nesting is left to the clusterrole-aggregation controller
	for range rounds {
		var roles rbacv1.ClusterRoleList
		if err := c.List(ctx, &roles); err != nil {
			return fmt.Errorf("aggregation: listing cluster roles: %w", err)
		}
		all := make([]*rbacv1.ClusterRole, len(roles.Items))
		for i := range roles.Items {
			all[i] = &roles.Items[i]
		}
		changed := false
		var errs []error
		for _, role := range all {
			did, err := aggregate(ctx, c, role, all)
			// In a conflict somebody else aggregates; the next round sees what has become of it.
			changed = changed || did || apierrors.IsConflict(err)
			if apierrors.IsConflict(err) {
				continue
			}
			if err != nil && !apierrors.IsNotFound(err) {
				errs = append(errs, err)
			}
		}
		if err := errors.Join(errs...); err != nil || !changed {
			return err
		}
	}
	return nil
}

func aggregate(ctx context.Context, c client.Client, role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) (changed bool, err error) {
	if role.AggregationRule == nil {
		return false, nil
	}
	rules, err := Rules(role, all)
	if err != nil {
		return false, fmt.Errorf("aggregation: cluster role %s: %w", role.Name, err)
	}
	if apiequality.Semantic.DeepEqual(role.Rules, rules) {
		return false, nil
	}
	role = role.DeepCopy()
	role.Rules = rules
	if err := c.Update(ctx, role); err != nil {
		return false, err
	}
	return true, nil
}

// Rules are the rules of the roles of all that role selects, copies without repetition, in the order of the selectors and then of
// names. The error is of a selector that cannot be read, and says which.
func Rules(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	byName := slices.Clone(all)
	slices.SortFunc(byName, func(a, b *rbacv1.ClusterRole) int { return cmp.Compare(a.Name, b.Name) })
	var rules []rbacv1.PolicyRule
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, fmt.Errorf("clusterRoleSelectors[%d]: %w", i, err)
		}
		for _, other := range byName {
			if other.Name == role.Name || !selector.Matches(labels.Set(other.Labels)) {
				continue
			}
			for _, rule := range other.Rules {
				same := func(have rbacv1.PolicyRule) bool { return apiequality.Semantic.DeepEqual(have, rule) }
				if !slices.ContainsFunc(rules, same) {
					rules = append(rules, *rule.DeepCopy())
				}
			}
		}
	}
	return rules, nil
}
