package deployment

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/claim"
	"github.com/keelson/keelson/controller/internal/view"
)

var (
	kind    = appsv1.SchemeGroupVersion.WithKind("Deployment")
	setKind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
)

// Options configures a Controller.
type Options struct {
	controller.Common
}

// Controller reconciles Deployments.
type Controller struct {
	client      client.WithWatch
	runner      *controller.Runner
	deployments *view.View[*appsv1.Deployment]
	sets        *view.View[*appsv1.ReplicaSet]
	pods        *view.View[*corev1.Pod]
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	o.Common = o.Common.WithDefaults(5)
	ctl := &Controller{client: c}
	r, err := controller.New("deployment", c, cc, ctl, controller.Options{
		Common: o.Common,
		Setup: func(ctx context.Context) error {
			return view.StartAll(ctx, ctl.deployments, ctl.sets, ctl.pods)
		},
		Sources: []controller.Source{
			controller.For(&appsv1.Deployment{}),
			controller.Mapped(&appsv1.ReplicaSet{}, ctl.deploymentsOf),
			{Object: &corev1.Pod{}, Handler: handler.Funcs{DeleteFunc: ctl.podDeleted}},
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.deployments = view.New(c, cc, &appsv1.Deployment{})
	ctl.sets = view.New(c, cc, &appsv1.ReplicaSet{}, view.Controller())
	ctl.pods = view.New(c, cc, &corev1.Pod{}, view.Controller())
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

// deploymentsOf maps a set to its deployment, or an orphan to those that could
// adopt it.
func (c *Controller) deploymentsOf(ctx context.Context, o client.Object) []controller.Request {
	if metav1.GetControllerOfNoCopy(o) != nil {
		if name, ok := controller.ControllerName(o, kind.GroupKind()); ok {
			return []controller.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
		}
		return nil
	}
	if len(o.GetLabels()) == 0 {
		return nil
	}
	ds, err := c.deployments.Namespace(ctx, o.GetNamespace())
	if err != nil {
		c.runner.Logger().Error(err, "listing Deployments")
		return nil
	}
	var out []controller.Request
	for _, d := range ds {
		s, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err == nil && !s.Empty() && s.Matches(labels.Set(o.GetLabels())) {
			out = append(out, controller.RequestFor(d))
		}
	}
	return out
}

// podDeleted wakes a deployment that recreates: it waits for its old pods.
func (c *Controller) podDeleted(ctx context.Context, e event.DeleteEvent, q controller.Queue) {
	name, ok := controller.ControllerName(e.Object, setKind.GroupKind())
	if !ok {
		return
	}
	rs, err := c.sets.Get(ctx, e.Object.GetNamespace(), name)
	if err != nil {
		return
	}
	if name, ok = controller.ControllerName(rs, kind.GroupKind()); !ok {
		return
	}
	d, err := c.deployments.Get(ctx, rs.Namespace, name)
	if err == nil && d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		q.Add(controller.RequestFor(d))
	}
}

// Reconcile takes one Deployment a step further.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	cached, err := c.deployments.Get(ctx, req.Namespace, req.Name)
	if apierrors.IsNotFound(err) {
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	d := cached.DeepCopy()
	if d.Spec.Replicas == nil {
		one := int32(1)
		d.Spec.Replicas = &one
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return controller.Result{}, reconcile.TerminalError(fmt.Errorf("selector: %w", err))
	}
	if selector.Empty() {
		c.runner.Recorder().Eventf(d, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		if d.Status.ObservedGeneration < d.Generation {
			d.Status.ObservedGeneration = d.Generation
			return controller.Result{}, c.client.Status().Update(ctx, d)
		}
		return controller.Result{}, nil
	}
	candidates, err := claim.Candidates(ctx, c.sets, d)
	if err != nil {
		return controller.Result{}, err
	}
	claimer := claim.Claimer[*appsv1.ReplicaSet]{Client: c.client, Owner: d, Kind: kind, Selector: selector}
	owned, err := claimer.Claim(ctx, candidates)
	if err != nil {
		return controller.Result{}, err
	}
	s := &sync{
		client: c.client, recorder: c.runner.Recorder(), now: c.runner.Clock().Now(), pods: c.pods,
		d: d, before: d.Status.DeepCopy(), sets: slices.Clone(owned),
	}
	if err := s.run(ctx); err != nil {
		return controller.Result{}, err
	}
	return controller.Result{RequeueAfter: s.recheck}, nil
}

// writeStatus writes d's status if it differs from what was read.
func (s *sync) writeStatus(ctx context.Context) error {
	if equality.Semantic.DeepEqual(s.d.Status, *s.before) {
		return nil
	}
	if err := s.client.Status().Update(ctx, s.d); err != nil {
		return err
	}
	s.before = s.d.Status.DeepCopy()
	return nil
}
