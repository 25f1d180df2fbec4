package tainteviction

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/pods"
	"github.com/keelson/keelson/controller/internal/view"
)

// Options configures a Controller.
type Options struct {
	controller.Common
}

// Controller reconciles Pods against their Nodes' taints.
type Controller struct {
	client client.WithWatch
	runner *controller.Runner
	nodes  *view.View[*corev1.Node]
	pods   *view.View[*corev1.Pod]

	mu      sync.Mutex
	pending map[types.NamespacedName]eviction
}

// eviction is a pod whose toleration runs.
type eviction struct {
	uid   types.UID
	since time.Time
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	o.Common = o.Common.WithDefaults(8)
	ctl := &Controller{client: c}
	r, err := controller.New("taint_eviction_controller", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "taint-eviction-controller",
		Setup: func(ctx context.Context) error {
			ctl.mu.Lock()
			ctl.pending = map[types.NamespacedName]eviction{}
			ctl.mu.Unlock()
			return view.StartAll(ctx, ctl.nodes, ctl.pods)
		},
		Sources: []controller.Source{
			controller.Mapped(&corev1.Node{}, ctl.podsOf, predicate.Funcs{
				CreateFunc: func(e event.CreateEvent) bool { return len(noExecute(e.Object)) > 0 },
				UpdateFunc: func(e event.UpdateEvent) bool {
					return !equality.Semantic.DeepEqual(noExecute(e.ObjectOld), noExecute(e.ObjectNew))
				},
				DeleteFunc: func(event.DeleteEvent) bool { return false },
			}),
			controller.For(&corev1.Pod{}, predicate.Funcs{
				CreateFunc: func(e event.CreateEvent) bool { return ctl.onTainted(e.Object) },
				UpdateFunc: func(e event.UpdateEvent) bool {
					old, ok := e.ObjectOld.(*corev1.Pod)
					cur, ok2 := e.ObjectNew.(*corev1.Pod)
					return ok && ok2 && (old.Spec.NodeName != cur.Spec.NodeName || !equality.Semantic.DeepEqual(old.Spec.Tolerations, cur.Spec.Tolerations)) &&
						ctl.onTainted(cur)
				},
			}),
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.nodes = view.New(c, cc, &corev1.Node{})
	ctl.pods = view.New(c, cc, &corev1.Pod{}, pods.ByNode())
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func noExecute(o client.Object) []corev1.Taint {
	n, ok := o.(*corev1.Node)
	if !ok {
		return nil
	}
	var out []corev1.Taint
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			out = append(out, t)
		}
	}
	return out
}

// onTainted says whether a pod needs a look: few ever do.
func (c *Controller) onTainted(o client.Object) bool {
	p, ok := o.(*corev1.Pod)
	if !ok || p.Spec.NodeName == "" {
		return false
	}
	n, err := c.nodes.Get(context.Background(), "", p.Spec.NodeName)
	// Should the node show up later, it comes with an event of its own.
	return err == nil && len(noExecute(n)) > 0
}

func (c *Controller) podsOf(ctx context.Context, o client.Object) []controller.Request {
	ps, err := c.pods.By(ctx, pods.ByNode(), o.GetName())
	if err != nil {
		c.runner.Logger().Error(err, "listing a node's pods")
	}
	out := make([]controller.Request, 0, len(ps))
	for _, p := range ps {
		out = append(out, controller.RequestFor(p))
	}
	return out
}

// tolerated returns how long a pod tolerates taints: forever is false.
func (c *Controller) tolerated(p *corev1.Pod, taints []corev1.Taint) (d time.Duration, forever bool) {
	var used []*corev1.Toleration
	for i := range taints {
		j := slices.IndexFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool {
			return t.ToleratesTaint(c.runner.Logger(), &taints[i], true)
		})
		if j < 0 {
			return 0, false
		}
		used = append(used, &p.Spec.Tolerations[j])
	}
	forever = true
	for _, t := range used {
		if t.TolerationSeconds == nil {
			continue
		}
		s := max(0, time.Duration(*t.TolerationSeconds)*time.Second)
		if forever || s < d {
			d = s
		}
		forever = false
	}
	return d, forever
}

// Reconcile evicts one Pod, or sees that it will be in time.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	p, err := c.pods.Get(ctx, req.Namespace, req.Name)
	if apierrors.IsNotFound(err) {
		c.cancel(req.NamespacedName, nil)
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	if p.DeletionTimestamp != nil || p.Spec.NodeName == "" {
		c.cancel(req.NamespacedName, nil)
		return controller.Result{}, nil
	}
	n, err := c.nodes.Get(ctx, "", p.Spec.NodeName)
	if err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	taints := noExecute(n)
	if len(taints) == 0 {
		c.cancel(req.NamespacedName, p)
		return controller.Result{}, nil
	}
	d, forever := c.tolerated(p, taints)
	if forever {
		c.cancel(req.NamespacedName, p)
		return controller.Result{}, nil
	}
	now := c.runner.Clock().Now()
	if left := c.since(req.NamespacedName, p.UID, now).Add(d).Sub(now); d > 0 && left > 0 {
		return controller.Result{RequeueAfter: left}, nil
	}
	c.runner.Recorder().Eventf(p, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s", req.NamespacedName)
	if err := pods.Disrupt(ctx, c.client, p, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", false, now); err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	if err := c.client.Delete(ctx, p, client.Preconditions{UID: &p.UID}); err != nil && !pods.IsGone(err) {
		return controller.Result{}, err
	}
	c.cancel(req.NamespacedName, nil)
	return controller.Result{}, nil
}

// since is when the pod's toleration began to run.
func (c *Controller) since(key types.NamespacedName, uid types.UID, now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.pending[key]
	if !ok || e.uid != uid {
		e = eviction{uid, now}
		c.pending[key] = e
	}
	return e.since
}

// cancel forgets a pod whose toleration ran, and tells so if the pod is given.
func (c *Controller) cancel(key types.NamespacedName, p *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.pending[key]; !ok {
		return
	}
	delete(c.pending, key)
	if p != nil {
		c.runner.Recorder().Eventf(p, corev1.EventTypeNormal, "TaintManagerEviction", "Cancelling deletion of Pod %s", key)
	}
}
