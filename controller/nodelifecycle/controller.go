package nodelifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// GracePeriod is how long a Node may show no life before it counts as
	// unreachable; 0 means 50s. It must be several times what kubelets take
	// between renewals of their Leases, which is 10s.
	GracePeriod time.Duration
	// StartupGracePeriod is the same for a Node that has never been ready; 0
	// means 60s.
	StartupGracePeriod time.Duration
	// EvictionRate is how many Nodes of a zone get the NoExecute taint a second;
	// 0 means 0.1.
	EvictionRate float64
	// SecondaryEvictionRate takes its place in a large zone of which at least
	// UnhealthyZoneThreshold is not ready; 0 means 0.01. In a small one, of up to
	// LargeClusterSize Nodes, none is tainted then.
	SecondaryEvictionRate float64
	// UnhealthyZoneThreshold is a fraction of a zone's Nodes; 0 means 0.55.
	UnhealthyZoneThreshold float64
	// LargeClusterSize is a number of Nodes; 0 means 50.
	LargeClusterSize int
}

func (o Options) withDefaults() Options {
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.GracePeriod, 50*time.Second)
	def(&o.StartupGracePeriod, 60*time.Second)
	if o.EvictionRate == 0 {
		o.EvictionRate = 0.1
	}
	if o.SecondaryEvictionRate == 0 {
		o.SecondaryEvictionRate = 0.01
	}
	if o.UnhealthyZoneThreshold == 0 {
		o.UnhealthyZoneThreshold = 0.55
	}
	if o.LargeClusterSize == 0 {
		o.LargeClusterSize = 50
	}
	o.Common = o.Common.WithDefaults(8)
	return o
}

func (o Options) validate() error {
	switch {
	case o.GracePeriod < 0 || o.StartupGracePeriod < 0:
		return fmt.Errorf("nodelifecycle: Options.GracePeriod and StartupGracePeriod are %v and %v, expected none below zero", o.GracePeriod, o.StartupGracePeriod)
	case o.EvictionRate < 0 || o.SecondaryEvictionRate < 0:
		return fmt.Errorf("nodelifecycle: Options.EvictionRate and SecondaryEvictionRate are %v and %v, expected none below zero", o.EvictionRate, o.SecondaryEvictionRate)
	case o.UnhealthyZoneThreshold < 0 || o.UnhealthyZoneThreshold > 1:
		return fmt.Errorf("nodelifecycle: Options.UnhealthyZoneThreshold is %v, expected a fraction of 1", o.UnhealthyZoneThreshold)
	case o.LargeClusterSize < 0:
		return fmt.Errorf("nodelifecycle: Options.LargeClusterSize is %d, expected none below zero", o.LargeClusterSize)
	}
	return nil
}

// Controller reconciles Nodes.
type Controller struct {
	client client.WithWatch
	opts   Options
	runner *controller.Runner
	nodes  *view.View[*corev1.Node]
	leases *view.View[*coordinationv1.Lease]
	pods   *view.View[*corev1.Pod]

	mu       sync.Mutex
	health   map[string]health
	zones    *zones
	blackout bool
}

// health is the last sign of life of a node, by this end's clock.
type health struct {
	uid       types.UID
	seen      time.Time
	heartbeat metav1.Time
	ready     corev1.ConditionStatus
	renewed   metav1.MicroTime
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	ctl := &Controller{client: c, opts: o}
	r, err := controller.New("node_lifecycle_controller", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "node-controller",
		Setup:     ctl.setup,
		Sources: []controller.Source{
			controller.For(&corev1.Node{}),
			controller.Mapped(&coordinationv1.Lease{}, nodeOfLease),
			controller.Mapped(&corev1.Pod{}, ctl.nodeOfPod, predicate.Funcs{
				DeleteFunc: func(event.DeleteEvent) bool { return false },
			}),
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.nodes = view.New(c, cc, &corev1.Node{})
	ctl.leases = view.New(c, cc, &coordinationv1.Lease{})
	ctl.pods = view.New(c, cc, &corev1.Pod{}, pods.ByNode())
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func (c *Controller) setup(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.health, c.zones, c.blackout = map[string]health{}, newZones(c.opts), false
	return view.StartAll(ctx, c.nodes, c.leases, c.pods)
}

func nodeOfLease(_ context.Context, o client.Object) []controller.Request {
	if o.GetNamespace() != corev1.NamespaceNodeLease {
		return nil
	}
	return []controller.Request{{NamespacedName: types.NamespacedName{Name: o.GetName()}}}
}

// nodeOfPod wakes a node that is not ready when a pod on it says it were.
func (c *Controller) nodeOfPod(ctx context.Context, o client.Object) []controller.Request {
	p, ok := o.(*corev1.Pod)
	if !ok || p.Spec.NodeName == "" || !pods.IsReady(p) {
		return nil
	}
	n, err := c.nodes.Get(ctx, "", p.Spec.NodeName)
	if err != nil || readiness(n) == corev1.ConditionTrue {
		return nil
	}
	return []controller.Request{controller.RequestFor(n)}
}

// Reconcile looks after one Node.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	cached, err := c.nodes.Get(ctx, "", req.Name)
	if apierrors.IsNotFound(err) {
		c.forget(req.Name)
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	n := cached.DeepCopy()
	now := c.runner.Clock().Now()
	var renewed metav1.MicroTime
	lease, err := c.leases.Get(ctx, corev1.NamespaceNodeLease, n.Name)
	switch {
	case err == nil && lease.Spec.RenewTime != nil:
		renewed = *lease.Spec.RenewTime
	case err != nil && !apierrors.IsNotFound(err):
		return controller.Result{}, err
	}
	next := c.observe(n, renewed, now)
	if next <= 0 {
		if err := c.markUnknown(ctx, n, now); err != nil {
			return controller.Result{}, client.IgnoreNotFound(err)
		}
		next = c.opts.GracePeriod
	}
	later, err := c.taint(ctx, n, now)
	if err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	if later > 0 {
		next = min(next, later)
	}
	if readiness(n) != corev1.ConditionTrue && condition(n, corev1.NodeReady) != nil {
		if err := c.markPods(ctx, n); err != nil {
			return controller.Result{}, err
		}
	}
	return controller.Result{RequeueAfter: next}, nil
}

func (c *Controller) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.health[name]
	if !ok {
		return
	}
	delete(c.health, name)
	c.zones.remove(name)
	c.updateBlackout(c.runner.Clock().Now())
	c.runner.Recorder().Eventf(&corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: name, UID: h.uid},
		corev1.EventTypeNormal, "RemovingNode", "Node %s event: Removing Node %s from Controller", name, name)
}

// observe takes in a node's signs of life and returns how long it may go on
// without another.
func (c *Controller) observe(n *corev1.Node, renewed metav1.MicroTime, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	ready := condition(n, corev1.NodeReady)
	h, known := c.health[n.Name]
	if !known || h.uid != n.UID {
		h = health{uid: n.UID, seen: now, renewed: renewed, ready: readiness(n)}
		if ready != nil {
			h.heartbeat = ready.LastHeartbeatTime
		} else {
			h.seen = n.CreationTimestamp.Time
		}
		c.runner.Recorder().Eventf(n, corev1.EventTypeNormal, "RegisteredNode", "Node %s event: Registered Node %s in Controller", n.Name, n.Name)
	}
	if ready != nil && !ready.LastHeartbeatTime.Equal(&h.heartbeat) {
		h.heartbeat, h.seen = ready.LastHeartbeatTime, now
	}
	if h.renewed.Before(&renewed) {
		h.renewed, h.seen = renewed, now
	}
	if was := h.ready; known && was == corev1.ConditionTrue && readiness(n) != corev1.ConditionTrue {
		c.runner.Recorder().Eventf(n, corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: NodeNotReady", n.Name)
	}
	h.ready = readiness(n)
	c.health[n.Name] = h
	c.zones.set(n.Name, zoneOf(n), h.ready == corev1.ConditionTrue)
	c.updateBlackout(now)
	grace := c.opts.GracePeriod
	if ready == nil {
		grace = c.opts.StartupGracePeriod
	}
	return h.seen.Add(grace).Sub(now)
}

// updateBlackout reacts to all nodes having ceased to be ready, or to the first
// being so again; then all get their grace period anew.
func (c *Controller) updateBlackout(now time.Time) {
	is := c.zones.blackout()
	if is == c.blackout {
		return
	}
	c.blackout = is
	if is {
		c.runner.Logger().Info("no node is ready, no pods are evicted")
	} else {
		c.runner.Logger().Info("a node is ready again, evictions go on")
	}
	for name, h := range c.health {
		if !is {
			h.seen = now
			c.health[name] = h
		}
		c.runner.Enqueue(controller.Request{NamespacedName: types.NamespacedName{Name: name}})
	}
}

// markUnknown sets the conditions of a node that shows no life.
func (c *Controller) markUnknown(ctx context.Context, n *corev1.Node, now time.Time) error {
	was := n.Status.DeepCopy()
	wasReady := readiness(n) == corev1.ConditionTrue
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		cond := condition(n, t)
		switch {
		case cond == nil:
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{
				Type: t, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: metav1.NewTime(now),
			})
		case cond.Status != corev1.ConditionUnknown:
			cond.Status, cond.Reason, cond.Message = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status."
			cond.LastTransitionTime = metav1.NewTime(now)
		}
	}
	if equality.Semantic.DeepEqual(was, &n.Status) {
		return nil
	}
	if err := c.client.Status().Update(ctx, n); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h, ok := c.health[n.Name]; ok && wasReady {
		h.ready = corev1.ConditionUnknown
		c.health[n.Name] = h
		c.runner.Recorder().Eventf(n, corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: NodeNotReady", n.Name)
	}
	c.zones.set(n.Name, zoneOf(n), false)
	c.updateBlackout(now)
	return nil
}

// taint brings the node's taints in line with its conditions. It says when to
// try again a taint that may not be put yet.
func (c *Controller) taint(ctx context.Context, n *corev1.Node, now time.Time) (time.Duration, error) {
	base := n.DeepCopy()
	taints, changed := retaint(n.Spec.Taints, corev1.TaintEffectNoSchedule, noScheduleKeys, noSchedule(n), now)
	var wanted []string
	var later time.Duration
	key := noExecute(readiness(n))
	c.mu.Lock()
	if key != "" && condition(n, corev1.NodeReady) != nil && !c.blackout {
		wanted = []string{key}
		if !hasNoExecute(n) {
			ok, wait := c.zones.take(zoneOf(n), now)
			if !ok {
				wanted, later = nil, wait
			}
		}
	}
	c.mu.Unlock()
	taints, more := retaint(taints, corev1.TaintEffectNoExecute, []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable}, wanted, now)
	if !changed && !more {
		return later, nil
	}
	n.Spec.Taints = taints
	return later, c.client.Patch(ctx, n, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
}

func hasNoExecute(n *corev1.Node) bool {
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoExecute && (t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable) {
			return true
		}
	}
	return false
}

// markPods marks a node's pods not ready, lest they get traffic.
func (c *Controller) markPods(ctx context.Context, n *corev1.Node) error {
	ps, err := c.pods.By(ctx, pods.ByNode(), n.Name)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range ps {
		if !pods.IsReady(p) {
			continue
		}
		out := p.DeepCopy()
		cond := pods.Condition(out, corev1.PodReady)
		cond.Status = corev1.ConditionFalse
		cond.LastTransitionTime = metav1.NewTime(c.runner.Clock().Now())
		err := c.client.Status().Patch(ctx, out, client.StrategicMergeFrom(p, client.MergeFromWithOptimisticLock{}))
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			errs = append(errs, err)
			continue
		}
		c.runner.Recorder().Event(p, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
	}
	return errors.Join(errs...)
}
