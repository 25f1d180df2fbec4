package apiserver

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/keelson/keelson/apiserver/auth/node"
	"github.com/keelson/keelson/apiserver/auth/rbac"
)

// nodeAndRBAC asks the node authorizer, and then RBAC if that has no opinion. Both know what informers have told them; a request that they
// would refuse is decided again once they know everything that was committed before it.
type nodeAndRBAC struct {
	node    *node.Authorizer
	rbac    *rbac.Authorizer
	catchUp *catchUp
}

// Authorize implements authorizer.Authorizer.
func (a nodeAndRBAC) Authorize(ctx context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	decision, reason, err := a.decide(ctx, attrs)
	if decision != authorizer.DecisionAllow && a.catchUp.wait(ctx) == nil {
		return a.decide(ctx, attrs)
	}
	return decision, reason, err
}

func (a nodeAndRBAC) decide(ctx context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
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
	late := a.catchUp.wait(ctx)
	resources, paths, incomplete, err := a.rbac.RulesFor(ctx, u, namespace)
	_, _, unknown, e := a.node.RulesFor(ctx, u, namespace)
	return resources, paths, incomplete || unknown, errors.Join(late, err, e)
}

// catchUp lets callers wait until the authorizers know everything that was committed before the call. However many call, the
// work is done once at a time: all who come while it is done share the next time.
type catchUp struct {
	work   func(context.Context) error
	logger logr.Logger

	turn chan struct{} // holds a value while somebody works
	mu   sync.Mutex
	next *round // not begun; nil if nobody waits for one
}

type round struct {
	done chan struct{}
	err  error
}

// catchUpLimit bounds one round: a store that does not answer delays what would be refused anyway, and no more.
const catchUpLimit = 2 * time.Second

func newCatchUp(work func(context.Context) error, logger logr.Logger) *catchUp {
	return &catchUp{work: work, logger: logger, turn: make(chan struct{}, 1)}
}

// wait returns an error if the authorizers may not know everything: the context's, or what kept them from it, which has been logged.
func (c *catchUp) wait(ctx context.Context) error {
	c.mu.Lock()
	r, mine := c.next, false
	if r == nil {
		r, mine = &round{done: make(chan struct{})}, true
		c.next = r
	}
	c.mu.Unlock()
	if mine {
		c.run(context.WithoutCancel(ctx), r) // the others wait for it, too
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *catchUp) run(ctx context.Context, r *round) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	c.mu.Lock()
	c.next = nil
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	if r.err = c.work(ctx); r.err != nil {
		c.logger.Error(r.err, "A request was decided by roles and bindings that may not be the newest")
	}
	close(r.done)
}
