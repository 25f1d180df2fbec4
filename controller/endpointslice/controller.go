package endpointslice

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	lib "k8s.io/endpointslice"
	"k8s.io/endpointslice/topologycache"
	"k8s.io/endpointslice/util"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/services"
	"github.com/keelson/keelson/controller/internal/view"
)

// ManagedBy is the value of label endpointslice.kubernetes.io/managed-by of
// the slices that this controller keeps.
const ManagedBy = "endpointslice-controller.k8s.io"

// Options configures a Controller.
type Options struct {
	controller.Common
	// MaxEndpoints is the most endpoints in one slice, 1 to 1000; 0 means 100.
	MaxEndpoints int32
}

// Controller reconciles Services.
type Controller struct {
	client   client.WithWatch
	max      int32
	runner   *controller.Runner
	services *view.View[*corev1.Service]
	pods     *view.View[*corev1.Pod]
	nodes    *view.View[*corev1.Node]
	slices   *view.View[*discoveryv1.EndpointSlice]
	tracker  *util.EndpointSliceTracker
	triggers *util.TriggerTimeTracker
	topology *topologycache.TopologyCache
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	if o.MaxEndpoints < 0 || o.MaxEndpoints > 1000 {
		return nil, fmt.Errorf("endpointslice: Options.MaxEndpoints is %d, expected 1 to 1000, or 0 for the default", o.MaxEndpoints)
	}
	if o.MaxEndpoints == 0 {
		o.MaxEndpoints = 100
	}
	o.Common = o.Common.WithDefaults(5)
	ctl := &Controller{client: c, max: o.MaxEndpoints}
	if c != nil && cc != nil {
		ctl.services = view.New(c, cc, &corev1.Service{})
		ctl.pods = view.New(c, cc, &corev1.Pod{}, view.Label())
		ctl.nodes = view.New(c, cc, &corev1.Node{})
		ctl.slices = view.New(c, cc, &discoveryv1.EndpointSlice{}, view.Label())
	}
	r, err := controller.New("endpoint_slice", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "endpoint-slice-controller",
		Setup:     ctl.setup,
		Sources: []controller.Source{
			controller.For(&corev1.Service{}),
			{Object: &corev1.Pod{}, Handler: services.PodHandler(ctl.services, func(err error) {
				ctl.runner.Logger().Error(err, "listing Services")
			})},
			{Object: &discoveryv1.EndpointSlice{}, Handler: ctl.sliceHandler(), Predicates: []predicate.Predicate{
				predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetLabels()[discoveryv1.LabelManagedBy] == ManagedBy }),
			}},
			{Object: &corev1.Node{}, Handler: nodeHandler()},
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

func (c *Controller) setup(ctx context.Context) error {
	c.tracker = util.NewEndpointSliceTracker()
	c.triggers = util.NewTriggerTimeTracker()
	c.topology = topologycache.NewTopologyCache()
	return view.StartAll(ctx, c.services, c.pods, c.nodes, c.slices)
}

// topologyRequest asks to look at the nodes again. No service is named so:
// they all have a namespace.
var topologyRequest = controller.Request{NamespacedName: types.NamespacedName{Name: "topology"}}

func nodeHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, _ event.CreateEvent, q controller.Queue) { q.Add(topologyRequest) },
		DeleteFunc: func(_ context.Context, _ event.DeleteEvent, q controller.Queue) { q.Add(topologyRequest) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q controller.Queue) {
			old, ok := e.ObjectOld.(*corev1.Node)
			cur, ok2 := e.ObjectNew.(*corev1.Node)
			if ok && ok2 && (old.Labels[corev1.LabelTopologyZone] != cur.Labels[corev1.LabelTopologyZone] || nodeReady(old) != nodeReady(cur) ||
				!equality.Semantic.DeepEqual(old.Status.Allocatable, cur.Status.Allocatable)) {
				q.Add(topologyRequest)
			}
		},
	}
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// sliceHandler enqueues the service of a slice that is not as written last.
func (c *Controller) sliceHandler() handler.EventHandler {
	enqueue := func(o client.Object, q controller.Queue) {
		if name := o.GetLabels()[discoveryv1.LabelServiceName]; name != "" {
			q.Add(controller.Request{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}})
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q controller.Queue) {
			if s, ok := e.Object.(*discoveryv1.EndpointSlice); ok && c.tracker.ShouldSync(s) {
				enqueue(s, q)
			}
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q controller.Queue) {
			old, ok := e.ObjectOld.(*discoveryv1.EndpointSlice)
			cur, ok2 := e.ObjectNew.(*discoveryv1.EndpointSlice)
			switch {
			case !ok || !ok2:
			case old.Labels[discoveryv1.LabelServiceName] != cur.Labels[discoveryv1.LabelServiceName],
				old.Labels[discoveryv1.LabelManagedBy] != cur.Labels[discoveryv1.LabelManagedBy]:
				enqueue(old, q)
				enqueue(cur, q)
			case c.tracker.ShouldSync(cur):
				enqueue(cur, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q controller.Queue) {
			if s, ok := e.Object.(*discoveryv1.EndpointSlice); ok && c.tracker.Has(s) && !c.tracker.HandleDeletion(s) {
				enqueue(s, q)
			}
		},
	}
}

var errStale = errors.New("EndpointSlice informer cache is out of date")

// Reconcile brings the slices of one Service up to date.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	if req == topologyRequest {
		return controller.Result{}, c.reconcileTopology(ctx)
	}
	svc, err := c.services.Get(ctx, req.Namespace, req.Name)
	if apierrors.IsNotFound(err) {
		c.triggers.DeleteService(req.Namespace, req.Name)
		c.tracker.DeleteService(req.Namespace, req.Name)
		// The slices go by their owner reference.
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	if svc.Spec.Selector == nil {
		// Its slices are somebody else's.
		return controller.Result{}, nil
	}
	ps, err := services.Pods(ctx, c.pods, svc)
	if err != nil {
		return controller.Result{}, err
	}
	all, err := c.slices.By(ctx, view.Label(), view.LabelValue(svc.Namespace, discoveryv1.LabelServiceName, svc.Name))
	if err != nil {
		return controller.Result{}, err
	}
	var slices []*discoveryv1.EndpointSlice
	for _, s := range all {
		if s.DeletionTimestamp == nil && s.Labels[discoveryv1.LabelManagedBy] == ManagedBy {
			slices = append(slices, s)
		}
	}
	if c.tracker.StaleSlices(svc, slices) {
		return controller.Result{}, errStale
	}
	trigger := c.triggers.ComputeEndpointLastChangeTriggerTime(svc.Namespace, svc, ps)
	base := func() context.Context { return ctx }
	r := lib.NewReconciler(&clientset{base: base, client: c.client}, &nodeLister{base: base, view: c.nodes},
		c.max, c.tracker, c.topology, c.runner.Recorder(), ManagedBy, lib.WithPreferSameTrafficDistributionEnabled(true))
	if err := r.Reconcile(c.runner.Logger(), svc, ps, slices, trigger); err != nil {
		c.runner.Recorder().Eventf(svc, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices",
			"Error updating Endpoint Slices for Service %s/%s: %v", svc.Namespace, svc.Name, err)
		return controller.Result{}, err
	}
	return controller.Result{}, nil
}

// reconcileTopology tells the topology cache of the nodes, and reconciles the
// services whose hints don't fit any more.
func (c *Controller) reconcileTopology(ctx context.Context) error {
	nodes, err := c.nodes.List(ctx)
	if err != nil {
		return err
	}
	c.topology.SetNodes(c.runner.Logger(), nodes)
	for _, key := range c.topology.GetOverloadedServices() {
		if ns, name, ok := strings.Cut(key, "/"); ok {
			c.runner.Enqueue(controller.Request{NamespacedName: types.NamespacedName{Namespace: ns, Name: name}})
		}
	}
	return nil
}
