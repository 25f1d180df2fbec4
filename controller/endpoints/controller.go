package endpoints

import (
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/endpointslice/util"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/services"
	"github.com/keelson/keelson/controller/internal/view"
)

const (
	managedByLabel = "endpoints.kubernetes.io/managed-by"
	managedByValue = "endpoint-controller"
	truncated      = "truncated"
)

// Options configures a Controller.
type Options struct {
	controller.Common
}

// Controller reconciles Services.
type Controller struct {
	client    client.WithWatch
	runner    *controller.Runner
	services  *view.View[*corev1.Service]
	pods      *view.View[*corev1.Pod]
	endpoints *view.View[*corev1.Endpoints] //nolint:staticcheck // deprecated for its users, not for who keeps it
	triggers  *util.TriggerTimeTracker
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	o.Common = o.Common.WithDefaults(5)
	ctl := &Controller{client: c}
	if c != nil {
		ctl.services = view.New(c, cc, &corev1.Service{})
		ctl.pods = view.New(c, cc, &corev1.Pod{}, view.Label())
		ctl.endpoints = view.New(c, cc, &corev1.Endpoints{}) //nolint:staticcheck // see above
	}
	r, err := controller.New("endpoint", c, cc, ctl, controller.Options{
		Common: o.Common,
		Setup: func(ctx context.Context) error {
			ctl.triggers = util.NewTriggerTimeTracker()
			return view.StartAll(ctx, ctl.services, ctl.pods, ctl.endpoints)
		},
		Sources: []controller.Source{
			controller.For(&corev1.Service{}),
			controller.For(&corev1.Endpoints{}), //nolint:staticcheck // see above
			{Object: &corev1.Pod{}, Handler: services.PodHandler(ctl.services, func(err error) {
				ctl.runner.Logger().Error(err, "listing Services")
			})},
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

// Reconcile brings the Endpoints of one Service up to date.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	current, err := c.endpoints.Get(ctx, req.Namespace, req.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return controller.Result{}, err
	}
	exists := err == nil
	svc, err := c.services.Get(ctx, req.Namespace, req.Name)
	if apierrors.IsNotFound(err) {
		c.triggers.DeleteService(req.Namespace, req.Name)
		// Others keep Endpoints without a Service, such as of a leader election.
		if !exists || current.Labels[managedByLabel] != managedByValue {
			return controller.Result{}, nil
		}
		return controller.Result{}, client.IgnoreNotFound(c.client.Delete(ctx, current, client.Preconditions{UID: &current.UID}))
	}
	if err != nil {
		return controller.Result{}, err
	}
	if svc.Spec.Selector == nil {
		return controller.Result{}, nil
	}
	ps, err := services.Pods(ctx, c.pods, svc)
	if err != nil {
		return controller.Result{}, err
	}
	trigger := c.triggers.ComputeEndpointLastChangeTriggerTime(svc.Namespace, svc, ps)
	subsets := subsetsOf(svc, ps)
	cut := truncate(subsets)

	labels := maps.Clone(svc.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[managedByLabel] = managedByValue
	delete(labels, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		labels[corev1.IsHeadlessService] = ""
	}
	if exists && equality.Semantic.DeepEqual(current.Subsets, subsets) && maps.Equal(current.Labels, labels) &&
		(current.Annotations[corev1.EndpointsOverCapacity] == truncated) == cut {
		return controller.Result{}, nil
	}
	out := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name}} //nolint:staticcheck // see above
	if exists {
		out = current.DeepCopy()
	}
	out.Subsets, out.Labels = subsets, labels
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	delete(out.Annotations, corev1.EndpointsLastChangeTriggerTime)
	if !trigger.IsZero() {
		out.Annotations[corev1.EndpointsLastChangeTriggerTime] = trigger.UTC().Format(time.RFC3339Nano)
	}
	delete(out.Annotations, corev1.EndpointsOverCapacity)
	if cut {
		out.Annotations[corev1.EndpointsOverCapacity] = truncated
	}
	if exists {
		if err := c.client.Update(ctx, out); err != nil {
			if !apierrors.IsConflict(err) {
				c.runner.Recorder().Eventf(out, corev1.EventTypeWarning, "FailedToUpdateEndpoint", "Failed to update endpoint %v/%v: %v", svc.Namespace, svc.Name, err)
			}
			return controller.Result{}, err
		}
		return controller.Result{}, nil
	}
	err = c.client.Create(ctx, out)
	switch {
	case err == nil:
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		err = nil
	case !apierrors.IsAlreadyExists(err):
		c.runner.Recorder().Eventf(svc, corev1.EventTypeWarning, "FailedToCreateEndpoint", "Failed to create endpoint for service %v/%v: %v", svc.Namespace, svc.Name, err)
	}
	return controller.Result{}, err
}
