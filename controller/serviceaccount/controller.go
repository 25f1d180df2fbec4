package serviceaccount

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/view"
)

// Options configures a Controller.
type Options struct {
	controller.Common
	// Names of the accounts to ensure; nil means "default".
	Names []string
}

// Controller reconciles Namespaces.
type Controller struct {
	client     client.WithWatch
	names      []string
	runner     *controller.Runner
	namespaces *view.View[*corev1.Namespace]
	accounts   *view.View[*corev1.ServiceAccount]
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	if slices.Contains(o.Names, "") {
		return nil, errors.New("serviceaccount: Options.Names has an empty name")
	}
	if o.Names == nil {
		o.Names = []string{"default"}
	}
	ctl := &Controller{client: c, names: o.Names}
	r, err := controller.New("serviceaccount", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "serviceaccount-controller",
		Setup: func(ctx context.Context) error {
			return view.StartAll(ctx, ctl.namespaces, ctl.accounts)
		},
		Sources: []controller.Source{
			controller.For(&corev1.Namespace{}),
			controller.Mapped(&corev1.ServiceAccount{}, func(_ context.Context, o client.Object) []controller.Request {
				return []controller.Request{{NamespacedName: types.NamespacedName{Name: o.GetNamespace()}}}
			}, predicate.NewPredicateFuncs(func(o client.Object) bool { return slices.Contains(ctl.names, o.GetName()) })),
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.namespaces = view.New(c, cc, &corev1.Namespace{})
	ctl.accounts = view.New(c, cc, &corev1.ServiceAccount{})
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

// Reconcile ensures the accounts of one Namespace.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	ns, err := c.namespaces.Get(ctx, "", req.Name)
	if apierrors.IsNotFound(err) {
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	if ns.Status.Phase == corev1.NamespaceTerminating || ns.DeletionTimestamp != nil {
		return controller.Result{}, nil
	}
	var errs []error
	for _, name := range c.names {
		_, err := c.accounts.Get(ctx, ns.Name, name)
		if err == nil {
			continue
		}
		if apierrors.IsNotFound(err) {
			err = c.client.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: name}})
		}
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			errs = append(errs, err)
		}
	}
	return controller.Result{}, errors.Join(errs...)
}
