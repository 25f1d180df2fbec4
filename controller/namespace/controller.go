package namespace

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/view"
	"github.com/keelson/keelson/controller/resources"
)

// Options configures a Controller.
type Options struct {
	controller.Common
	// Resources lists what a namespace may hold. By default the kinds that the
	// client's scheme and RESTMapper know; use resources.FromDiscovery to
	// include custom resources.
	Resources resources.Lister
	// Finalizer is the one of spec.finalizers that this controller removes;
	// "kubernetes" by default.
	Finalizer corev1.FinalizerName
	// Poll bounds how long it waits to look again at what is left; 0 means 2s.
	Poll time.Duration
}

// Controller reconciles Namespaces.
type Controller struct {
	client     client.WithWatch
	opts       Options
	runner     *controller.Runner
	namespaces *view.View[*corev1.Namespace]
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	if o.Poll < 0 {
		return nil, errors.New("namespace: Options.Poll is negative, expected a duration, or 0 for the default")
	}
	if o.Poll == 0 {
		o.Poll = 2 * time.Second
	}
	if o.Finalizer == "" {
		o.Finalizer = corev1.FinalizerKubernetes
	}
	o.Common = o.Common.WithDefaults(10)
	ctl := &Controller{client: c, opts: o}
	r, err := controller.New("namespace", c, cc, ctl, controller.Options{
		Common: o.Common,
		Setup:  func(ctx context.Context) error { return ctl.namespaces.Start(ctx) },
		Sources: []controller.Source{
			controller.For(&corev1.Namespace{}, predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetDeletionTimestamp() != nil })),
		},
	})
	if err != nil {
		return nil, err
	}
	if o.Resources == nil {
		ctl.opts.Resources = resources.Known(c)
	}
	ctl.runner = r
	ctl.namespaces = view.New(c, cc, &corev1.Namespace{})
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

// Reconcile empties one terminating Namespace.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	cached, err := c.namespaces.Get(ctx, "", req.Name)
	if apierrors.IsNotFound(err) {
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	if cached.DeletionTimestamp == nil || !slices.Contains(cached.Spec.Finalizers, c.opts.Finalizer) {
		return controller.Result{}, nil
	}
	// A stale cache could have another namespace of that name.
	ns := &corev1.Namespace{}
	if err := c.client.Get(ctx, req.NamespacedName, ns); err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	if ns.UID != cached.UID || ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, c.opts.Finalizer) {
		return controller.Result{}, nil
	}
	if ns.Status.Phase != corev1.NamespaceTerminating {
		ns.Status.Phase = corev1.NamespaceTerminating
		if err := c.client.Status().Update(ctx, ns); err != nil {
			return controller.Result{}, client.IgnoreNotFound(err)
		}
	}
	found := c.empty(ctx, ns)
	if err := c.report(ctx, ns, found); err != nil {
		return controller.Result{}, err
	}
	if err := errors.Join(found.discovery, found.parse, errors.Join(found.content...)); err != nil {
		return controller.Result{}, err
	}
	if found.left() > 0 {
		return controller.Result{RequeueAfter: min(c.opts.Poll, found.wait/2+time.Second)}, nil
	}
	ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == c.opts.Finalizer })
	err = c.client.SubResource("finalize").Update(ctx, ns)
	return controller.Result{}, client.IgnoreNotFound(err)
}

func (c *Controller) report(ctx context.Context, ns *corev1.Namespace, f *findings) error {
	was := ns.Status.DeepCopy()
	for _, cond := range f.conditions() {
		setCondition(&ns.Status, cond, metav1.NewTime(c.runner.Clock().Now()))
	}
	if equality.Semantic.DeepEqual(was, &ns.Status) {
		return nil
	}
	// A namespace that ends well needs no conditions: it will be gone.
	if len(was.Conditions) == 0 && f.clean() {
		ns.Status = *was
		return nil
	}
	return client.IgnoreNotFound(c.client.Status().Update(ctx, ns))
}

// empty deletes what it can and finds out what is left.
func (c *Controller) empty(ctx context.Context, ns *corev1.Namespace) *findings {
	f := &findings{remaining: map[string]int{}, finalizers: map[string]int{}}
	all, err := c.opts.Resources.Resources(ctx)
	var groups *discovery.ErrGroupDiscoveryFailed
	switch {
	case errors.As(err, &groups):
		f.discovery = err
	case err != nil && len(all) == 0:
		f.discovery = err
	case err != nil:
		f.parse = err
	}
	podsLast := func(r resources.Resource) bool { return r.Kind.Group != "" || r.Resource != "pods" }
	pods := slices.DeleteFunc(slices.Clone(all), podsLast)
	rest := slices.DeleteFunc(slices.Clone(all), func(r resources.Resource) bool { return !podsLast(r) || !r.Namespaced })
	for _, group := range [][]resources.Resource{pods, rest} {
		for _, r := range group {
			if err := c.delete(ctx, ns.Name, r, f); err != nil {
				f.content = append(f.content, err)
			}
		}
		if f.left() > 0 || len(f.content) > 0 && len(pods) > 0 && f.remaining["pods."] > 0 {
			break
		}
	}
	return f
}

func (c *Controller) delete(ctx context.Context, namespace string, r resources.Resource, f *findings) error {
	list := resources.NewList(c.client.Scheme(), r.Kind)
	if err := c.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
		if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) || meta.IsNoMatchError(err) {
			return nil
		}
		return err
	}
	if meta.LenList(list) == 0 {
		return nil
	}
	err := c.client.DeleteAllOf(ctx, resources.NewObject(c.client.Scheme(), r.Kind), client.InNamespace(namespace), client.PropagationPolicy(metav1.DeletePropagationBackground))
	if apierrors.IsMethodNotSupported(err) {
		err = meta.EachListItem(list, func(o runtime.Object) error {
			obj, ok := o.(client.Object)
			if !ok || obj.GetDeletionTimestamp() != nil {
				return nil
			}
			return client.IgnoreNotFound(c.client.Delete(ctx, obj, client.PropagationPolicy(metav1.DeletePropagationBackground)))
		})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err := c.client.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return err
	}
	return meta.EachListItem(list, func(o runtime.Object) error {
		obj, err := meta.Accessor(o)
		if err != nil {
			return err
		}
		f.remaining[r.Resource+"."+r.Kind.Group]++
		for _, name := range obj.GetFinalizers() {
			f.finalizers[name]++
			f.wait = max(f.wait, 15*time.Second)
		}
		if pod, ok := o.(*corev1.Pod); ok && pod.Spec.TerminationGracePeriodSeconds != nil &&
			pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			f.wait = max(f.wait, time.Duration(*pod.Spec.TerminationGracePeriodSeconds)*time.Second)
		}
		return nil
	})
}
