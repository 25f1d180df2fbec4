package clusterroleaggregation

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/apiserver/auth/rbac/aggregation"
	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/view"
)

// Options configures a Controller.
type Options struct {
	controller.Common
}

// Controller reconciles ClusterRoles.
type Controller struct {
	client client.WithWatch
	runner *controller.Runner
	roles  *view.View[*rbacv1.ClusterRole]
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	o.Common = o.Common.WithDefaults(5)
	ctl := &Controller{client: c}
	r, err := controller.New("ClusterRoleAggregator", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "clusterrole-aggregation-controller",
		Setup:     func(ctx context.Context) error { return ctl.roles.Start(ctx) },
		// Any role may be, or have been, part of any aggregated one.
		Sources: []controller.Source{controller.Mapped(&rbacv1.ClusterRole{}, ctl.aggregated)},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.roles = view.New(c, cc, &rbacv1.ClusterRole{})
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func (c *Controller) aggregated(ctx context.Context, _ client.Object) []controller.Request {
	all, err := c.roles.List(ctx)
	if err != nil {
		c.runner.Logger().Error(err, "listing ClusterRoles")
	}
	var out []controller.Request
	for _, r := range all {
		if r.AggregationRule != nil {
			out = append(out, controller.RequestFor(r))
		}
	}
	return out
}

// Reconcile fills the rules of one ClusterRole.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	role, err := c.roles.Get(ctx, "", req.Name)
	if err != nil || role.AggregationRule == nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	all, err := c.roles.List(ctx)
	if err != nil {
		return controller.Result{}, err
	}
	rules, err := aggregation.Rules(role, all)
	if err != nil {
		return controller.Result{}, reconcile.TerminalError(err)
	}
	if equality.Semantic.DeepEqual(rules, role.Rules) {
		return controller.Result{}, nil
	}
	out := role.DeepCopy()
	out.Rules = rules
	return controller.Result{}, client.IgnoreNotFound(c.client.Update(ctx, out))
}
