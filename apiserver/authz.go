package apiserver

import (
	"context"
	"errors"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/keelson/keelson/apiserver/auth/node"
	"github.com/keelson/keelson/apiserver/auth/rbac"
)

// nodeAndRBAC asks the node authorizer, and then RBAC if that has no opinion.
type nodeAndRBAC struct {
	node *node.Authorizer
	rbac *rbac.Authorizer
}

// Authorize implements authorizer.Authorizer.
func (a nodeAndRBAC) Authorize(ctx context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	decision, reason, err := a.node.Authorize(ctx, attrs)
	if decision != authorizer.DecisionNoOpinion {
		return decision, reason, err
	}
	var reasons []string
	if reason != "" {
		reasons = append(reasons, "node: "+reason)
	}
	decision, reason, e := a.rbac.Authorize(ctx, attrs)
	if decision == authorizer.DecisionAllow {
		return decision, reason, e
	}
	if reason != "" {
		reasons = append(reasons, reason)
	}
	return decision, strings.Join(reasons, "\n"), errors.Join(err, e)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer; decisions carry no conditions.
func (a nodeAndRBAC) ConditionsAwareAuthorize(ctx context.Context, attrs authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(a.Authorize(ctx, attrs))
}

// EvaluateConditions implements authorizer.Authorizer by refusing: there are no conditions.
func (nodeAndRBAC) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// RulesFor implements authorizer.RuleResolver.
func (a nodeAndRBAC) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	resources, paths, incomplete, err := a.rbac.RulesFor(ctx, u, namespace)
	_, _, unknown, e := a.node.RulesFor(ctx, u, namespace)
	return resources, paths, incomplete || unknown, errors.Join(err, e)
}
