package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"github.com/keelson/keelson/cni"
	"github.com/keelson/keelson/cni/internal/ipam"
)

const podInterface = "eth0"

// Network implements cni.Network.
type Network struct {
	opts Options
	pool *ipam.Pool
	host *netlink.Handle // of the network namespace New was called in
	nft  knftables.Interface

	mu       sync.Mutex
	ready    bool
	locks    map[string]*sandboxLock
	hostPort map[string][]knftables.Object // what to take away again, by sandbox
}

type sandboxLock struct {
	sync.Mutex
	users int
}

var _ cni.Network = (*Network)(nil)

// New checks the options and what the host permits; the bridge is made by the first Setup.
func New(opts Options) (*Network, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	pool, err := ipam.Open(opts.StateDir, opts.PodCIDR)
	if err != nil {
		return nil, err
	}
	nft, err := knftables.New(knftables.IPv4Family, tableName(opts.Bridge), knftables.EmulateDestroy)
	if err != nil {
		return nil, fmt.Errorf("cni/bridge: %w (install nftables, and run with CAP_NET_ADMIN)", err)
	}
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cni/bridge: netlink: %w", err)
	}
	return &Network{
		opts: opts, pool: pool, host: host, nft: nft,
		locks: map[string]*sandboxLock{}, hostPort: map[string][]knftables.Object{},
	}, nil
}

// Gateway is the node's address on the bridge, where node-local services such as DNS can listen once a pod is set up or EnsureBridge was called.
func (n *Network) Gateway() netip.Addr { return n.pool.Gateway() }

// EnsureBridge makes the bridge and the node's rules if they are not there yet.
func (n *Network) EnsureBridge(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ready {
		if _, err := n.host.LinkByName(n.opts.Bridge); err == nil {
			return nil
		}
	}
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	br.Name, br.MTU = n.opts.Bridge, n.opts.MTU
	if err := n.host.LinkAdd(br); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cni/bridge: adding %s: %w", br.Name, err)
	}
	link, err := n.host.LinkByName(n.opts.Bridge)
	if err != nil {
		return fmt.Errorf("cni/bridge: %s: %w", n.opts.Bridge, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("cni/bridge: device %s is a %s; name another in Options.Bridge", n.opts.Bridge, link.Type())
	}
	gw := netip.PrefixFrom(n.pool.Gateway(), n.opts.PodCIDR.Bits())
	if err := n.host.AddrReplace(link, &netlink.Addr{IPNet: ipNet(gw)}); err != nil {
		return fmt.Errorf("cni/bridge: address %v of %s: %w", gw, n.opts.Bridge, err)
	}
	if err := n.host.LinkSetUp(link); err != nil {
		return fmt.Errorf("cni/bridge: %s up: %w", n.opts.Bridge, err)
	}
	// Routed traffic that leaves where it came in must not make the node tell pods to talk directly.
	for key, value := range map[string]string{
		"net/ipv4/ip_forward":                                "1",
		"net/ipv4/conf/all/send_redirects":                   "0",
		"net/ipv4/conf/" + n.opts.Bridge + "/send_redirects": "0",
		"net/ipv4/conf/" + n.opts.Bridge + "/route_localnet": "1",
		"net/ipv4/conf/" + n.opts.Bridge + "/rp_filter":      "0",
	} {
		if err := sysctl(key, value); err != nil && key == "net/ipv4/ip_forward" {
			return fmt.Errorf("cni/bridge: %w", err)
		}
	}
	if n.opts.ServiceCIDR.IsValid() {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(n.opts.ServiceCIDR.Masked()), Src: n.pool.Gateway().AsSlice()}
		if err := n.host.RouteReplace(route); err != nil {
			return fmt.Errorf("cni/bridge: route to Services %v: %w", n.opts.ServiceCIDR, err)
		}
	}
	if err := n.nft.Run(ctx, n.baseRules()); err != nil {
		return fmt.Errorf("cni/bridge: nftables: %w", err)
	}
	n.ready = true
	return nil
}

// sysctl is read and written in the calling thread's network namespace.
func sysctl(key, value string) error {
	path := filepath.Join("/proc/sys", key)
	if b, err := os.ReadFile(path); err == nil && len(b) > 0 && string(b[:len(b)-1]) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", key, value, err)
	}
	return nil
}

// Setup implements cni.Network.
func (n *Network) Setup(ctx context.Context, s cni.Sandbox) (res cni.Result, err error) {
	if s.ID == "" || s.NetNS == "" {
		return res, fmt.Errorf("cni/bridge: sandbox %q, namespace %q: want both", s.ID, s.NetNS)
	}
	defer n.lock(s.ID)()
	if err := ctx.Err(); err != nil {
		return res, err
	}
	if err := n.EnsureBridge(ctx); err != nil {
		return res, err
	}
	ns, err := netns.GetFromPath(s.NetNS)
	if err != nil {
		return res, fmt.Errorf("cni/bridge: network namespace %s: %w", s.NetNS, err)
	}
	defer ns.Close()
	pod, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return res, fmt.Errorf("cni/bridge: entering %s: %w", s.NetNS, err)
	}
	defer pod.Close()

	_, had := n.pool.Lookup(s.ID)
	addr, err := n.pool.Acquire(s.ID)
	if err != nil {
		return res, err
	}
	defer func() {
		if err != nil && !had {
			err = errors.Join(err, n.teardown(context.WithoutCancel(ctx), s.ID))
		}
	}()
	if err := n.attach(pod, ns, s.ID, addr); err != nil {
		return res, fmt.Errorf("cni/bridge: pod %s/%s: %w", s.Namespace, s.Name, err)
	}
	if err := n.openHostPorts(ctx, s, addr); err != nil {
		return res, fmt.Errorf("cni/bridge: pod %s/%s: host ports: %w", s.Namespace, s.Name, err)
	}
	return cni.Result{IPs: []netip.Addr{addr}, Interface: podInterface}, nil
}

func (n *Network) attach(pod *netlink.Handle, ns netns.NsHandle, id string, addr netip.Addr) error {
	if lo, err := pod.LinkByName("lo"); err == nil {
		if err := pod.LinkSetUp(lo); err != nil {
			return fmt.Errorf("lo up: %w", err)
		}
	}
	br, err := n.host.LinkByName(n.opts.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", n.opts.Bridge, err)
	}
	eth, err := pod.LinkByName(podInterface)
	if err != nil {
		veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: podInterface, PeerNamespace: netlink.NsFd(ns)}
		veth.Name, veth.MTU, veth.MasterIndex = hostInterface(id), n.opts.MTU, br.Attrs().Index
		veth.PeerMTU = uint32(n.opts.MTU)
		if old, err := n.host.LinkByName(veth.Name); err == nil { // its other end went with an earlier namespace
			_ = n.host.LinkDel(old)
		}
		if err := n.host.LinkAdd(veth); err != nil {
			return fmt.Errorf("veth pair: %w", err)
		}
		if eth, err = pod.LinkByName(podInterface); err != nil {
			return fmt.Errorf("%s in the pod: %w", podInterface, err)
		}
	}
	outer, err := n.host.LinkByName(hostInterface(id))
	if err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	if err := n.host.LinkSetUp(outer); err != nil {
		return fmt.Errorf("veth up: %w", err)
	}
	if err := pod.AddrReplace(eth, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, 32))}); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if err := pod.LinkSetUp(eth); err != nil {
		return fmt.Errorf("%s up: %w", podInterface, err)
	}
	gw := n.pool.Gateway()
	onlink := &netlink.Route{LinkIndex: eth.Attrs().Index, Dst: ipNet(netip.PrefixFrom(gw, 32)), Scope: netlink.SCOPE_LINK}
	if err := pod.RouteReplace(onlink); err != nil {
		return fmt.Errorf("route to the node: %w", err)
	}
	def := &netlink.Route{LinkIndex: eth.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: gw.AsSlice(), Src: addr.AsSlice()}
	if err := pod.RouteReplace(def); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

// Teardown implements cni.Network.
func (n *Network) Teardown(ctx context.Context, s cni.Sandbox) error {
	defer n.lock(s.ID)()
	return n.teardown(ctx, s.ID)
}

func (n *Network) teardown(ctx context.Context, id string) error {
	if err := n.closeHostPorts(ctx, id); err != nil {
		return fmt.Errorf("cni/bridge: host ports: %w", err)
	}
	link, err := n.host.LinkByName(hostInterface(id))
	var missing netlink.LinkNotFoundError
	switch {
	case err == nil:
		if err := n.host.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("cni/bridge: removing veth: %w", err)
		}
	case !errors.As(err, &missing):
		return fmt.Errorf("cni/bridge: veth: %w", err)
	}
	_, err = n.pool.Release(id)
	return err
}

// Status implements cni.Network.
func (n *Network) Status(ctx context.Context) error { return n.EnsureBridge(ctx) }

// Remove takes the bridge and the rules away; pods that are still attached lose their network.
func (n *Network) Remove(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ready = false
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	err := n.nft.Run(ctx, tx)
	if link, lerr := n.host.LinkByName(n.opts.Bridge); lerr == nil {
		err = errors.Join(err, n.host.LinkDel(link))
	}
	if err != nil {
		return fmt.Errorf("cni/bridge: removing %s: %w", n.opts.Bridge, err)
	}
	return nil
}

func (n *Network) lock(id string) (unlock func()) {
	n.mu.Lock()
	l := n.locks[id]
	if l == nil {
		l = &sandboxLock{}
		n.locks[id] = l
	}
	l.users++
	n.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		n.mu.Lock()
		if l.users--; l.users == 0 {
			delete(n.locks, id)
		}
		n.mu.Unlock()
	}
}

// hostInterface derives the name of the node's end: names are 15 characters at most, ids longer.
func hostInterface(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "veth" + hex.EncodeToString(sum[:])[:11]
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
