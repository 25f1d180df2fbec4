package nodeipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/view"
)

// Options configures a Controller.
type Options struct {
	controller.Common
	// ClusterCIDRs hold the addresses of all pods: one network, or one of IPv4
	// and one of IPv6. Required.
	ClusterCIDRs []netip.Prefix
	// NodeMaskIPv4 and NodeMaskIPv6 are the lengths of nodes' prefixes; 0 means
	// 24 and 64.
	NodeMaskIPv4, NodeMaskIPv6 int
	// Reserved ranges, such as that of Services, are not given out.
	Reserved []netip.Prefix
}

func (o Options) validate() error {
	switch {
	case len(o.ClusterCIDRs) == 0 || len(o.ClusterCIDRs) > 2:
		return fmt.Errorf("nodeipam: Options.ClusterCIDRs has %d networks, expected one, or one of each family", len(o.ClusterCIDRs))
	case len(o.ClusterCIDRs) == 2 && o.ClusterCIDRs[0].Addr().Is4() == o.ClusterCIDRs[1].Addr().Is4():
		return errors.New("nodeipam: Options.ClusterCIDRs has two networks of one family")
	}
	for _, p := range o.ClusterCIDRs {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("nodeipam: Options.ClusterCIDRs has invalid network %v", p)
		}
		if m := o.mask(p); m < p.Bits() || m > p.Addr().BitLen() || m-p.Bits() > 16 {
			return fmt.Errorf("nodeipam: node mask is %d, expected from %d to 16 more for cluster network %v", m, p.Bits(), p)
		}
	}
	return nil
}

func (o Options) mask(p netip.Prefix) int {
	if p.Addr().Is4() {
		return o.NodeMaskIPv4
	}
	return o.NodeMaskIPv6
}

// Controller allocates ranges to Nodes.
type Controller struct {
	client client.WithWatch
	opts   Options
	runner *controller.Runner
	nodes  *view.View[*corev1.Node]

	mu     sync.Mutex
	ready  bool
	ranges []*ranges
	held   map[string][]netip.Prefix // by node
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	if o.NodeMaskIPv4 == 0 {
		o.NodeMaskIPv4 = 24
	}
	if o.NodeMaskIPv6 == 0 {
		o.NodeMaskIPv6 = 64
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	ctl := &Controller{client: c, opts: o}
	r, err := controller.New("node_ipam", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "cidrAllocator",
		Setup:     ctl.setup,
		Sources:   []controller.Source{controller.For(&corev1.Node{})},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.nodes = view.New(c, cc, &corev1.Node{})
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func (c *Controller) setup(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready, c.ranges, c.held = false, nil, map[string][]netip.Prefix{}
	for _, p := range c.opts.ClusterCIDRs {
		r := newRanges(p, c.opts.mask(p))
		for _, reserved := range c.opts.Reserved {
			r.mark(reserved, 1)
		}
		c.ranges = append(c.ranges, r)
	}
	return c.nodes.Start(ctx)
}

// prepare takes in what all nodes hold before anything is given out.
func (c *Controller) prepare(ctx context.Context) error {
	if c.ready {
		return nil
	}
	nodes, err := c.nodes.List(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		c.hold(n)
	}
	c.ready = true
	return nil
}

func (c *Controller) hold(n *corev1.Node) {
	now := prefixes(n)
	if slices.Equal(now, c.held[n.Name]) {
		return
	}
	c.release(n.Name)
	for _, p := range now {
		for _, r := range c.ranges {
			r.mark(p, 1)
		}
	}
	c.held[n.Name] = now
}

func (c *Controller) release(node string) {
	for _, p := range c.held[node] {
		for _, r := range c.ranges {
			r.mark(p, -1)
		}
	}
	delete(c.held, node)
}

func prefixes(n *corev1.Node) []netip.Prefix {
	list := n.Spec.PodCIDRs
	if len(list) == 0 && n.Spec.PodCIDR != "" {
		list = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// Reconcile gives one Node its ranges, or takes in those it has.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.prepare(ctx); err != nil {
		return controller.Result{}, err
	}
	n, err := c.nodes.Get(ctx, "", req.Name)
	if apierrors.IsNotFound(err) {
		c.release(req.Name)
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	if len(prefixes(n)) > 0 {
		c.hold(n)
		return controller.Result{}, nil
	}
	if len(c.held[n.Name]) > 0 {
		// Given out already; the cache does not show it yet. Should the node have
		// been made anew meanwhile, the same ranges do.
		return controller.Result{RequeueAfter: time.Second}, c.write(ctx, n, c.held[n.Name])
	}
	var given []netip.Prefix
	for _, r := range c.ranges {
		p, ok := r.allocate()
		if !ok {
			for i, g := range given {
				c.ranges[i].mark(g, -1)
			}
			c.runner.Recorder().Eventf(n, corev1.EventTypeNormal, "CIDRNotAvailable", "Node %s status is now: CIDRNotAvailable", n.Name)
			return controller.Result{RequeueAfter: 30 * time.Second}, nil
		}
		given = append(given, p)
	}
	// Marked per network above; hold as a whole from here.
	c.held[n.Name] = given
	if err := c.write(ctx, n, given); err != nil {
		if apierrors.IsNotFound(err) {
			c.release(n.Name)
			return controller.Result{}, nil
		}
		c.runner.Recorder().Eventf(n, corev1.EventTypeNormal, "CIDRAssignmentFailed", "Node %s status is now: CIDRAssignmentFailed", n.Name)
		return controller.Result{}, err
	}
	return controller.Result{}, nil
}

func (c *Controller) write(ctx context.Context, n *corev1.Node, given []netip.Prefix) error {
	all := make([]string, 0, len(given))
	for _, p := range given {
		all = append(all, p.String())
	}
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": n.UID},
		"spec":     map[string]any{"podCIDR": all[0], "podCIDRs": all},
	})
	if err != nil {
		return err
	}
	return c.client.Patch(ctx, n.DeepCopy(), client.RawPatch(types.StrategicMergePatchType, data))
}
