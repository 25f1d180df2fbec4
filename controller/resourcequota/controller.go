package resourcequota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/keelson/keelson/apiserver/admission/resourcequota/usage"
	"github.com/keelson/keelson/controller"
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
	now := o.Clock.Now
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
				return ok && ok2 && (usage.Finished(a, now()) != usage.Finished(b, now()) || a.Generation != b.Generation)
			})),
			controller.Mapped(&corev1.Service{}, ctl.quotasOf, freed(func(old, cur client.Object) bool {
				a, ok := old.(*corev1.Service)
				b, ok2 := cur.(*corev1.Service)
				return ok && ok2 && !equality.Semantic.DeepEqual(usage.Of(usage.Services, a, now()), usage.Of(usage.Services, b, now()))
			})),
			controller.Mapped(&corev1.PersistentVolumeClaim{}, ctl.quotasOf, freed(func(old, cur client.Object) bool {
				a, ok := old.(*corev1.PersistentVolumeClaim)
				b, ok2 := cur.(*corev1.PersistentVolumeClaim)
				return ok && ok2 && !equality.Semantic.DeepEqual(usage.Of(usage.Claims, a, now()), usage.Of(usage.Claims, b, now()))
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
	used, usageErr := usage.Count(ctx, c.list, q, c.opts.Clock.Now())
	out := q.DeepCopy()
	out.Status.Hard = q.Spec.Hard.DeepCopy()
	out.Status.Used = used
	for name, was := range q.Status.Used {
		_, bounded := q.Spec.Hard[name]
		if _, counted := used[name]; bounded && !counted {
			out.Status.Used[name] = was // what could not be counted stays
		}
	}
	if !equality.Semantic.DeepEqual(out.Status, q.Status) {
		if err := c.client.Status().Update(ctx, out); err != nil {
			return controller.Result{}, client.IgnoreNotFound(errors.Join(err, usageErr))
		}
	}
	// Counted kinds are not watched here, so quotas of them are looked at more often.
	next := c.opts.Resync
	for name := range q.Spec.Hard {
		if !watched(name) {
			next = min(next, 10*time.Second)
		}
	}
	return controller.Result{RequeueAfter: next}, usageErr
}

// list is a usage.Lister on what is watched and known.
func (c *Controller) list(ctx context.Context, gr schema.GroupResource, namespace string) ([]client.Object, error) {
	switch gr {
	case usage.Pods:
		return objects(c.pods.Namespace(ctx, namespace))
	case usage.Services:
		return objects(c.services.Namespace(ctx, namespace))
	case usage.Claims:
		return objects(c.claims.Namespace(ctx, namespace))
	}
	known, err := c.opts.Resources.Resources(ctx)
	i := slices.IndexFunc(known, func(r resources.Resource) bool { return r.Namespaced && r.GroupResource() == gr })
	if i < 0 {
		return nil, err
	}
	return usage.Metadata(ctx, c.client, known[i].Kind, namespace)
}

func objects[T client.Object](of []T, err error) ([]client.Object, error) {
	out := make([]client.Object, len(of))
	for i, o := range of {
		out[i] = o
	}
	return out, err
}

// watched tells the names whose objects are watched here.
func watched(name corev1.ResourceName) bool {
	switch usage.CountedBy(name) {
	case usage.Pods, usage.Services, usage.Claims:
		return true
	}
	return false
}
