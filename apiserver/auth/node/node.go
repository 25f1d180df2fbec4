package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/auth/internal/follow"
	"github.com/keelson/keelson/apiserver/auth/rbac"
)

// userPrefix begins the names of nodes' users.
const userPrefix = "system:node:"

// Options of an Authorizer.
type Options struct {
	// Rules are what every node may do, as far as it is not decided by object. Default: rbac.NodeRules.
	Rules []rbacv1.PolicyRule
	// Logger gets what goes wrong while objects are followed. The zero value discards.
	Logger logr.Logger
}

// Authorizer decides what nodes may do. Its methods may be called from any goroutine.
type Authorizer struct {
	opts  Options
	rules *rbac.Rules
	mu    sync.RWMutex
	graph graph

	readyOnce sync.Once
	ready     chan struct{}
}

var (
	_ authorizer.Authorizer   = (*Authorizer)(nil)
	_ authorizer.RuleResolver = (*Authorizer)(nil)
)

// New returns an Authorizer that knows no objects yet.
func New(o Options) (*Authorizer, error) {
	if o.Rules == nil {
		o.Rules = rbac.NodeRules()
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	return &Authorizer{opts: o, rules: rbac.NewRules(o.Rules), graph: newGraph(), ready: make(chan struct{})}, nil
}

// Run follows the Pods, PersistentVolumes and VolumeAttachments of informers, as far as they are served, until ctx ends. It does not start
// the cache.
func (a *Authorizer) Run(ctx context.Context, informers cache.Informers) error {
	kinds := []client.Object{&corev1.Pod{}, &corev1.PersistentVolume{}, &storagev1.VolumeAttachment{}}
	if err := follow.Run(ctx, informers, kinds, a, a.opts.Logger, func() { a.readyOnce.Do(func() { close(a.ready) }) }); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	return nil
}

// WaitReady blocks until Run has seen every object that existed when it started.
func (a *Authorizer) WaitReady(ctx context.Context) error {
	select {
	case <-a.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Set adds or replaces a Pod, PersistentVolume or VolumeAttachment. Callers that have no informers use it and Delete in place of Run.
func (a *Authorizer) Set(obj client.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.graph.set(obj)
}

// Delete removes an object given to Set, by its kind, namespace and name.
func (a *Authorizer) Delete(obj client.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.graph.remove(obj)
}

// nodeOf returns the name of the node that a user is.
func nodeOf(u user.Info) (name string, ok bool) {
	if u == nil {
		return "", false
	}
	name, ok = strings.CutPrefix(u.GetName(), userPrefix)
	return name, ok && slices.Contains(u.GetGroups(), user.NodesGroup)
}

const allow, noOpinion = authorizer.DecisionAllow, authorizer.DecisionNoOpinion

// Authorize implements authorizer.Authorizer. It allows or has no opinion; the reasons are those of kube-apiserver.
func (a *Authorizer) Authorize(_ context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	node, ok := nodeOf(attrs.GetUser())
	switch {
	case !ok:
		return noOpinion, "", nil
	case node == "":
		return noOpinion, fmt.Sprintf("unknown node for user %q", attrs.GetUser().GetName()), nil
	}
	if attrs.IsResourceRequest() {
		if f := byResource[schema.GroupResource{Group: attrs.GetAPIGroup(), Resource: attrs.GetResource()}]; f != nil {
			switch k, may, reason := f(node, attrs); {
			case !may:
				return noOpinion, reason, nil
			case k != unrelated:
				return a.related(node, k, attrs)
			}
			return allow, "", nil
		}
	}
	if a.rules.Allow(attrs) {
		return allow, "", nil
	}
	return noOpinion, "", nil
}

// related allows if the node has to do with the object asked for.
func (a *Authorizer) related(node string, k kind, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	if attrs.GetName() == "" {
		return noOpinion, "No Object name found", nil
	}
	r := ref{k, attrs.GetNamespace(), attrs.GetName()}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.graph.related(node, r) {
		return allow, "", nil
	}
	return noOpinion, fmt.Sprintf("no relationship found between node '%s' and this object", node), nil
}

// ConditionsAwareAuthorize implements authorizer.Authorizer; decisions carry no conditions.
func (a *Authorizer) ConditionsAwareAuthorize(ctx context.Context, attrs authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(a.Authorize(ctx, attrs))
}

// EvaluateConditions implements authorizer.Authorizer by refusing: there are no conditions.
func (*Authorizer) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// RulesFor implements authorizer.RuleResolver: what a node may do can't be listed.
func (*Authorizer) RulesFor(_ context.Context, u user.Info, _ string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	if _, ok := nodeOf(u); ok {
		return nil, nil, true, errors.New("node authorizer does not support user rule resolution")
	}
	return nil, nil, false, nil
}

// selects reports whether a list or watch is restricted to one value of a field.
func selects(attrs authorizer.Attributes, field, value string) bool {
	reqs, err := attrs.GetFieldSelector()
	if err != nil {
		return false
	}
	for _, r := range reqs {
		if r.Field == field && (r.Operator == selection.Equals || r.Operator == selection.DoubleEquals) && r.Value == value {
			return true
		}
	}
	return false
}
