package resourcequota

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/pods"
	"github.com/keelson/keelson/controller/internal/view"
	"github.com/keelson/keelson/controller/resources"
)

// Options configures a Controller.
type Options struct {
	controller.Common
	// Resources lists the kinds that can be counted; by default those that the
	// client's scheme and RESTMapper know.
	Resources resources.Lister
	// Resync is how often each quota is computed anew; 0 means 5m.
	Resync time.Duration
}

// Controller reconciles ResourceQuotas.
type Controller struct {
	client   client.WithWatch
	opts     Options
	runner   *controller.Runner
	quotas   *view.View[*corev1.ResourceQuota]
	pods     *view.View[*corev1.Pod]
	services *view.View[*corev1.Service]
	claims   *view.View[*corev1.PersistentVolumeClaim]
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	if o.Resync < 0 {
		return nil, fmt.Errorf("resourcequota: Options.Resync is %v, expected a positive duration, or 0 for the default", o.Resync)
	}
	if o.Resync == 0 {
		o.Resync = 5 * time.Minute
	}
	o.Common = o.Common.WithDefaults(5)
	ctl := &Controller{client: c, opts: o}
	// What is made is counted by admission; only what frees is looked at here.
	freed := func(changed func(old, cur client.Object) bool) predicate.Predicate {
		return predicate.Funcs{
			CreateFunc: func(event.CreateEvent) bool { return false },
			UpdateFunc: func(e event.UpdateEvent) bool { return changed(e.ObjectOld, e.ObjectNew) },
		}
	}
	r, err := controller.New("resourcequota_primary", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "resourcequota-controller",
		Setup: func(ctx context.Context) error {
			return view.StartAll(ctx, ctl.quotas, ctl.pods, ctl.services, ctl.claims)
		},
		Sources: []controller.Source{
			controller.For(&corev1.ResourceQuota{}),
			controller.Mapped(&corev1.Pod{}, ctl.quotasOf, freed(func(old, cur client.Object) bool {
				a, ok := old.(*corev1.Pod)
				b, ok2 := cur.(*corev1.Pod)
				return ok && ok2 && (pods.IsFinished(a) != pods.IsFinished(b) || a.Generation != b.Generation)
			})),
			controller.Mapped(&corev1.Service{}, ctl.quotasOf, freed(func(old, cur client.Object) bool {
				a, ok := old.(*corev1.Service)
				b, ok2 := cur.(*corev1.Service)
				return ok && ok2 && !equality.Semantic.DeepEqual(ofService(a), ofService(b))
			})),
			controller.Mapped(&corev1.PersistentVolumeClaim{}, ctl.quotasOf, freed(func(old, cur client.Object) bool {
				a, ok := old.(*corev1.PersistentVolumeClaim)
				b, ok2 := cur.(*corev1.PersistentVolumeClaim)
				return ok && ok2 && !equality.Semantic.DeepEqual(ofClaim(a), ofClaim(b))
			})),
		},
	})
	if err != nil {
		return nil, err
	}
	if o.Resources == nil {
		ctl.opts.Resources = resources.Known(c)
	}
	ctl.runner = r
	ctl.quotas = view.New(c, cc, &corev1.ResourceQuota{})
	ctl.pods = view.New(c, cc, &corev1.Pod{})
	ctl.services = view.New(c, cc, &corev1.Service{})
	ctl.claims = view.New(c, cc, &corev1.PersistentVolumeClaim{})
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func (c *Controller) quotasOf(ctx context.Context, o client.Object) []controller.Request {
	qs, err := c.quotas.Namespace(ctx, o.GetNamespace())
	if err != nil {
		c.runner.Logger().Error(err, "listing ResourceQuotas")
	}
	var out []controller.Request
	for _, q := range qs {
		out = append(out, controller.RequestFor(q))
	}
	return out
}

// Reconcile computes the usage of one ResourceQuota.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	q, err := c.quotas.Get(ctx, req.Namespace, req.Name)
	if err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	used, usageErr := c.usage(ctx, q)
	out := q.DeepCopy()
	out.Status.Hard = q.Spec.Hard.DeepCopy()
	out.Status.Used = used
	if !equality.Semantic.DeepEqual(out.Status, q.Status) {
		if err := c.client.Status().Update(ctx, out); err != nil {
			return controller.Result{}, client.IgnoreNotFound(errors.Join(err, usageErr))
		}
	}
	// Counted kinds are not watched here, so quotas of them are looked at more often.
	next := c.opts.Resync
	for name := range q.Spec.Hard {
		if measured(name) == "" {
			next = min(next, 10*time.Second)
		}
	}
	return controller.Result{RequeueAfter: next}, usageErr
}

func (c *Controller) usage(ctx context.Context, q *corev1.ResourceQuota) (corev1.ResourceList, error) {
	used := corev1.ResourceList{}
	need := map[string]bool{}
	for name := range q.Spec.Hard {
		used[name] = *resource.NewQuantity(0, resource.DecimalSI)
		need[measured(name)] = true
	}
	sum := func(l corev1.ResourceList) {
		for name, n := range l {
			if _, ok := used[name]; ok {
				add(used, name, n)
			}
		}
	}
	var errs []error
	if need["pods"] {
		ps, err := c.pods.Namespace(ctx, q.Namespace)
		errs = append(errs, err)
		for _, p := range ps {
			ok, err := selects(q, p)
			errs = append(errs, err)
			if ok {
				sum(ofPod(p))
			}
		}
	}
	if scoped(q) {
		return used, errors.Join(errs...)
	}
	if need["services"] {
		svcs, err := c.services.Namespace(ctx, q.Namespace)
		errs = append(errs, err)
		for _, s := range svcs {
			sum(ofService(s))
		}
	}
	if need["persistentvolumeclaims"] {
		claims, err := c.claims.Namespace(ctx, q.Namespace)
		errs = append(errs, err)
		for _, cl := range claims {
			sum(ofClaim(cl))
		}
	}
	if need[""] {
		errs = append(errs, c.count(ctx, q, used))
	}
	return used, errors.Join(errs...)
}

// count counts the objects of kinds that are not measured.
func (c *Controller) count(ctx context.Context, q *corev1.ResourceQuota, used corev1.ResourceList) error {
	known, err := c.opts.Resources.Resources(ctx)
	if err != nil && len(known) == 0 {
		return err
	}
	byName := map[string]resources.Resource{}
	for _, r := range known {
		byName[r.GroupResource().String()] = r
	}
	for name := range q.Spec.Hard {
		r, ok := byName[counted(name)]
		if measured(name) != "" || !ok || !r.Namespaced {
			continue
		}
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(r.Kind.GroupVersion().WithKind(r.Kind.Kind + "List"))
		if err := c.client.List(ctx, list, client.InNamespace(q.Namespace)); err != nil {
			return err
		}
		used[name] = *resource.NewQuantity(int64(meta.LenList(list)), resource.DecimalSI)
	}
	return nil
}
