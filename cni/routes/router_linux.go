package routes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// routeProtocol marks the routes that are ours (an unassigned value of rtnetlink's).
const routeProtocol = 0x6b

// retryAfter bounds how long a failed programming, or somebody else's removal of a route, stays.
const retryAfter = 10 * time.Second

// Router keeps one node's routes.
type Router struct {
	cache cache.Cache
	opts  Options
	host  *netlink.Handle
}

// New returns a Router for the network namespace of the calling thread. c must be started by the caller.
func New(c cache.Cache, opts Options) (*Router, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cni/routes: netlink: %w", err)
	}
	return &Router{cache: c, opts: opts, host: host}, nil
}

// Run follows the Nodes until ctx ends. Routes stay when it returns, so that a restart interrupts nothing.
func (r *Router) Run(ctx context.Context) error {
	inf, err := r.cache.GetInformer(ctx, &corev1.Node{})
	if err != nil {
		return fmt.Errorf("cni/routes: nodes: %w", err)
	}
	wake := make(chan struct{}, 1)
	kick := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	reg, err := inf.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { kick() },
		DeleteFunc: func(any) { kick() },
		UpdateFunc: func(o, n any) {
			before, _ := peerOf(o.(*corev1.Node))
			after, _ := peerOf(n.(*corev1.Node))
			if before != after {
				kick()
			}
		},
	})
	if err != nil {
		return fmt.Errorf("cni/routes: nodes: %w", err)
	}
	defer func() { _ = inf.RemoveEventHandler(reg) }()
	if !toolscache.WaitForCacheSync(ctx.Done(), reg.HasSynced) {
		return nil
	}
	kick()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-time.After(retryAfter):
		}
		if err := r.sync(ctx); err != nil && ctx.Err() == nil {
			r.opts.Logger.Error(err, "routes to other nodes' pods")
		}
	}
}

func (r *Router) sync(ctx context.Context) error {
	var list corev1.NodeList
	if err := r.cache.List(ctx, &list); err != nil {
		return err
	}
	nodes := make([]*corev1.Node, len(list.Items))
	for i := range list.Items {
		nodes[i] = &list.Items[i]
	}
	own, peers := Plan(r.opts.NodeName, nodes)
	return r.Program(own, peers)
}

// Program makes the node's routes those to peers and removes other routes it made before.
func (r *Router) Program(own Peer, peers []Peer) error {
	if !own.Node.IsValid() {
		return nil // this node is not registered yet
	}
	device := 0
	if r.opts.Mode == VXLAN {
		link, err := r.ensureDevice(own)
		if err != nil {
			return err
		}
		device = link.Attrs().Index
	}
	have, err := r.host.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("cni/routes: listing routes: %w", err)
	}
	stale := map[netip.Prefix]*netlink.Route{}
	for i := range have {
		if p, ok := prefixOf(have[i].Dst); ok {
			stale[p] = &have[i]
		}
	}
	var errs []error
	for _, p := range peers {
		delete(stale, p.CIDR)
		if err := r.connect(p, device); err != nil {
			errs = append(errs, fmt.Errorf("cni/routes: pods %v at %v: %w", p.CIDR, p.Node, err))
		}
	}
	for p, route := range stale {
		if err := r.host.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("cni/routes: removing route to %v: %w", p, err))
		}
	}
	if device != 0 {
		errs = append(errs, r.forgetPeers(device, peers))
	}
	return errors.Join(errs...)
}

func (r *Router) connect(p Peer, device int) error {
	route := &netlink.Route{Dst: ipNet(p.CIDR), Protocol: routeProtocol}
	if device == 0 {
		route.Gw = p.Node.AsSlice()
		return r.host.RouteReplace(route)
	}
	// The peer's own address on the overlay is its range's network address, its MAC derives from its node address: nothing to learn or to store.
	mac := macOf(p.Node)
	gw := p.CIDR.Addr()
	if err := r.host.NeighSet(&netlink.Neigh{
		LinkIndex: device, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
		HardwareAddr: mac, IP: p.Node.AsSlice(),
	}); err != nil {
		return fmt.Errorf("forwarding entry: %w", err)
	}
	if err := r.host.NeighSet(&netlink.Neigh{
		LinkIndex: device, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, HardwareAddr: mac, IP: gw.AsSlice(),
	}); err != nil {
		return fmt.Errorf("neighbour: %w", err)
	}
	route.LinkIndex, route.Gw, route.Flags = device, gw.AsSlice(), int(netlink.FLAG_ONLINK)
	return r.host.RouteReplace(route)
}

func (r *Router) ensureDevice(own Peer) (netlink.Link, error) {
	link, err := r.host.LinkByName(r.opts.Device)
	if err == nil {
		v, ok := link.(*netlink.Vxlan)
		if ok && v.VxlanId == r.opts.VNI && v.Port == r.opts.Port && v.SrcAddr.Equal(own.Node.AsSlice()) {
			return link, r.up(link, own)
		}
		if err := r.host.LinkDel(link); err != nil {
			return nil, fmt.Errorf("cni/routes: replacing %s: %w", r.opts.Device, err)
		}
	}
	under, err := r.linkWith(own.Node)
	if err != nil {
		return nil, err
	}
	v := &netlink.Vxlan{
		LinkAttrs: netlink.NewLinkAttrs(), VxlanId: r.opts.VNI, Port: r.opts.Port,
		VtepDevIndex: under.Attrs().Index, SrcAddr: own.Node.AsSlice(),
	}
	v.Name, v.HardwareAddr, v.MTU = r.opts.Device, macOf(own.Node), under.Attrs().MTU-50
	if err := r.host.LinkAdd(v); err != nil {
		return nil, fmt.Errorf("cni/routes: adding %s: %w", r.opts.Device, err)
	}
	if link, err = r.host.LinkByName(r.opts.Device); err != nil {
		return nil, fmt.Errorf("cni/routes: %s: %w", r.opts.Device, err)
	}
	return link, r.up(link, own)
}

func (r *Router) up(link netlink.Link, own Peer) error {
	if own.CIDR.IsValid() {
		addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(own.CIDR.Addr(), 32)), Scope: int(netlink.SCOPE_LINK)}
		if err := r.host.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("cni/routes: address of %s: %w", r.opts.Device, err)
		}
	}
	if err := r.host.LinkSetUp(link); err != nil {
		return fmt.Errorf("cni/routes: %s up: %w", r.opts.Device, err)
	}
	return nil
}

// linkWith finds the device that holds a node's address.
func (r *Router) linkWith(a netip.Addr) (netlink.Link, error) {
	addrs, err := r.host.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("cni/routes: addresses: %w", err)
	}
	for _, h := range addrs {
		if h.IP.Equal(a.AsSlice()) {
			return r.host.LinkByIndex(h.LinkIndex)
		}
	}
	return nil, fmt.Errorf("cni/routes: no device has this node's address %v", a)
}

// forgetPeers removes forwarding and neighbour entries of nodes that are gone.
func (r *Router) forgetPeers(device int, peers []Peer) error {
	keep := map[string]bool{}
	for _, p := range peers {
		keep[macOf(p.Node).String()] = true
	}
	var errs []error
	for _, family := range []int{unix.AF_BRIDGE, unix.AF_INET} {
		entries, err := r.host.NeighList(device, family)
		if err != nil {
			errs = append(errs, err)
		}
		for i := range entries {
			if e := &entries[i]; e.LinkIndex == device && e.State == netlink.NUD_PERMANENT && !keep[e.HardwareAddr.String()] {
				if err := r.host.NeighDel(e); err != nil && !errors.Is(err, unix.ENOENT) {
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}

func macOf(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}
