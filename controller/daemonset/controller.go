package daemonset

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

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
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/claim"
	"github.com/keelson/keelson/controller/internal/expect"
	"github.com/keelson/keelson/controller/internal/history"
	"github.com/keelson/keelson/controller/internal/template"
	"github.com/keelson/keelson/controller/internal/view"
)

var kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

// Options configures a Controller.
type Options struct {
	controller.Common
	// Burst bounds the pods created or deleted in one reconciliation; 0 means 250.
	Burst int
}

// Controller reconciles DaemonSets.
type Controller struct {
	client    client.WithWatch
	burst     int
	runner    *controller.Runner
	sets      *view.View[*appsv1.DaemonSet]
	pods      *view.View[*corev1.Pod]
	nodes     *view.View[*corev1.Node]
	revisions *view.View[*appsv1.ControllerRevision]
	expect    *expect.Expectations

	mu sync.Mutex
	// failures are how often a set's pods have failed on a node lately.
	failures map[failureKey]failure
}

type failureKey struct {
	set  types.UID
	node string
}

type failure struct {
	delay time.Duration
	until time.Time
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	if o.Burst < 0 {
		return nil, fmt.Errorf("daemonset: Options.Burst is %d, expected at least 1, or 0 for the default", o.Burst)
	}
	if o.Burst == 0 {
		o.Burst = 250
	}
	o.Common = o.Common.WithDefaults(2)
	ctl := &Controller{client: c, burst: o.Burst, expect: expect.New(o.Clock)}
	r, err := controller.New("daemonset", c, cc, ctl, controller.Options{
		Common: o.Common,
		Setup: func(ctx context.Context) error {
			ctl.expect.Reset()
			ctl.mu.Lock()
			ctl.failures = map[failureKey]failure{}
			ctl.mu.Unlock()
			return view.StartAll(ctx, ctl.sets, ctl.pods, ctl.nodes, ctl.revisions)
		},
		Sources: []controller.Source{
			controller.For(&appsv1.DaemonSet{}),
			{Object: &corev1.Pod{}, Handler: ctl.podHandler()},
			controller.Mapped(&corev1.Node{}, ctl.allSets, predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
				old, ok := e.ObjectOld.(*corev1.Node)
				cur, ok2 := e.ObjectNew.(*corev1.Node)
				return ok && ok2 && (!maps.Equal(old.Labels, cur.Labels) || !equality.Semantic.DeepEqual(old.Spec, cur.Spec))
			}}),
			controller.Owned(&appsv1.ControllerRevision{}, kind),
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.sets = view.New(c, cc, &appsv1.DaemonSet{})
	ctl.pods = view.New(c, cc, &corev1.Pod{}, view.Controller())
	ctl.nodes = view.New(c, cc, &corev1.Node{})
	ctl.revisions = view.New(c, cc, &appsv1.ControllerRevision{}, view.Controller())
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func (c *Controller) allSets(ctx context.Context, _ client.Object) []controller.Request {
	sets, err := c.sets.List(ctx)
	if err != nil {
		c.runner.Logger().Error(err, "listing DaemonSets")
	}
	out := make([]controller.Request, 0, len(sets))
	for _, ds := range sets {
		out = append(out, controller.RequestFor(ds))
	}
	return out
}

func owner(p *corev1.Pod) (controller.Request, bool) {
	name, ok := controller.ControllerName(p, kind.GroupKind())
	return controller.Request{NamespacedName: types.NamespacedName{Namespace: p.Namespace, Name: name}}, ok
}

func (c *Controller) podHandler() handler.EventHandler {
	deleted := func(p *corev1.Pod, q controller.Queue) {
		if req, ok := owner(p); ok {
			c.expect.Deleted(req.NamespacedName, p.UID)
			q.Add(req)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q controller.Queue) {
			p, ok := e.Object.(*corev1.Pod)
			switch {
			case !ok:
			case p.DeletionTimestamp != nil:
				deleted(p, q)
			default:
				if req, ok := owner(p); ok {
					c.expect.Created(req.NamespacedName, 1)
					q.Add(req)
				} else {
					c.enqueueMatching(ctx, p, q)
				}
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q controller.Queue) {
			old, ok := e.ObjectOld.(*corev1.Pod)
			p, ok2 := e.ObjectNew.(*corev1.Pod)
			if !ok || !ok2 || old.ResourceVersion == p.ResourceVersion {
				return
			}
			if p.DeletionTimestamp != nil {
				deleted(p, q)
				return
			}
			was, owned := owner(old)
			now, ownedNow := owner(p)
			if owned && was != now {
				q.Add(was)
			}
			switch {
			case ownedNow:
				q.Add(now)
			case owned || !maps.Equal(old.Labels, p.Labels):
				c.enqueueMatching(ctx, p, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q controller.Queue) {
			if p, ok := e.Object.(*corev1.Pod); ok {
				deleted(p, q)
			}
		},
	}
}

func (c *Controller) enqueueMatching(ctx context.Context, p *corev1.Pod, q controller.Queue) {
	if metav1.GetControllerOfNoCopy(p) != nil || len(p.Labels) == 0 {
		return
	}
	sets, err := c.sets.Namespace(ctx, p.Namespace)
	if err != nil {
		c.runner.Logger().Error(err, "listing DaemonSets")
		return
	}
	for _, ds := range sets {
		s, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
		if err == nil && !s.Empty() && s.Matches(labels.Set(p.Labels)) {
			q.Add(controller.RequestFor(ds))
		}
	}
}

// Reconcile takes one DaemonSet a step further.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	cached, err := c.sets.Get(ctx, req.Namespace, req.Name)
	if apierrors.IsNotFound(err) {
		c.expect.Forget(req.NamespacedName)
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	ds := cached.DeepCopy()
	selector, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil {
		return controller.Result{}, reconcile.TerminalError(fmt.Errorf("selector: %w", err))
	}
	if selector.Empty() {
		c.runner.Recorder().Eventf(ds, corev1.EventTypeWarning, "SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.")
		return controller.Result{}, nil
	}
	if ds.DeletionTimestamp != nil {
		return controller.Result{}, nil
	}
	settled := c.expect.Satisfied(req.NamespacedName)
	nodes, err := c.nodes.List(ctx)
	if err != nil {
		return controller.Result{}, err
	}
	keeper := &history.Keeper{
		Client: c.client, Revisions: c.revisions, Owner: ds, Kind: kind, Selector: selector, HashLabel: appsv1.DefaultDaemonSetUniqueLabelKey,
		Hash: func(_ []byte, collisions *int32) string { return template.Hash(ds.Spec.Template, collisions) },
	}
	revisions, err := keeper.List(ctx)
	if err != nil {
		return controller.Result{}, err
	}
	current, revisions, collisions, err := keeper.Ensure(ctx, revisions, &ds.Spec.Template, ds.Status.CollisionCount)
	if err != nil {
		return controller.Result{}, err
	}
	candidates, err := claim.Candidates(ctx, c.pods, ds)
	if err != nil {
		return controller.Result{}, err
	}
	cl := claim.Claimer[*corev1.Pod]{Client: c.client, Owner: ds, Kind: kind, Selector: selector}
	owned, err := cl.Claim(ctx, candidates)
	if err != nil {
		return controller.Result{}, err
	}
	s := newSyncer(c, ds, nodes, owned, current.Labels[appsv1.DefaultDaemonSetUniqueLabelKey])
	var workErr error
	if settled {
		workErr = s.manage(ctx)
		if workErr == nil && c.expect.Satisfied(req.NamespacedName) {
			workErr = s.roll(ctx)
		}
	} else {
		s.wake(expect.Timeout())
	}
	if err := s.writeStatus(ctx, collisions); err != nil {
		return controller.Result{}, err
	}
	if workErr != nil {
		return controller.Result{}, workErr
	}
	used := map[string]bool{current.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]: true}
	for _, p := range owned {
		used[p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] = true
	}
	limit := 10
	if ds.Spec.RevisionHistoryLimit != nil {
		limit = int(*ds.Spec.RevisionHistoryLimit)
	}
	err = keeper.Truncate(ctx, revisions, limit, func(r *appsv1.ControllerRevision) bool {
		return used[r.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]]
	})
	return controller.Result{RequeueAfter: s.recheck}, err
}
