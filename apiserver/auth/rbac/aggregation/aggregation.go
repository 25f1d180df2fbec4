package aggregation

import (
	"context"
	"errors"
	"fmt"
	"sort"

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
		changed := false
		var errs []error
		for i := range roles.Items {
			did, err := aggregate(ctx, c, &roles.Items[i], roles.Items)
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

func aggregate(ctx context.Context, c client.Client, role *rbacv1.ClusterRole, all []rbacv1.ClusterRole) (changed bool, err error) {
	if role.AggregationRule == nil {
		return false, nil
	}
	rules, err := aggregatedRules(role, all)
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

// aggregatedRules are the rules of the roles selected, without repetition, in the order of the selectors and then of names.
func aggregatedRules(role *rbacv1.ClusterRole, all []rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	byName := make([]*rbacv1.ClusterRole, len(all))
	for i := range all {
		byName[i] = &all[i]
	}
	sort.Slice(byName, func(i, j int) bool { return byName[i].Name < byName[j].Name })
	rules := []rbacv1.PolicyRule{}
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, err
		}
		for _, other := range byName {
			if other.Name == role.Name || !selector.Matches(labels.Set(other.Labels)) {
				continue
			}
			for _, r := range other.Rules {
				if !containsRule(rules, r) {
					rules = append(rules, r)
				}
			}
		}
	}
	return rules, nil
}

func containsRule(rules []rbacv1.PolicyRule, rule rbacv1.PolicyRule) bool {
	for _, r := range rules {
		if apiequality.Semantic.DeepEqual(r, rule) {
			return true
		}
	}
	return false
}
