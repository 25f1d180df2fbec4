package compose

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/cni"
	"github.com/keelson/keelson/cni/bridge"
	"github.com/keelson/keelson/cni/loopback"
	"github.com/keelson/keelson/cni/routes"
	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/criruntime"
	"github.com/keelson/keelson/kubelet/fakeruntime"
	"github.com/keelson/keelson/kubelet/processruntime"
	"github.com/keelson/keelson/proxy"
	"github.com/keelson/keelson/proxy/userproxy"
)

// NodeOptions of NewNode.
type NodeOptions struct {
	Name string
	// Dir holds the node's state: images, pods, addresses.
	Dir string
	// Runtime and Proxy as in Options; Proxy "auto" is decided by CanIsolate.
	Runtime, Proxy string
	// IP is the node's address. Default: the one that routes to other hosts, or 127.0.0.1.
	IP netip.Addr
	// Index tells nodes of one host apart: the first is 0.
	Index int
	// Isolated gives pods network namespaces on a bridge.
	Isolated bool
	// Shared leaves out what a host needs once: Service data plane, DNS, routes. Set for all nodes of a host but one.
	Shared bool
	// Overlay wraps traffic between nodes in VXLAN.
	Overlay  bool
	KillPods bool
	// ClientCA verifies the API server's client certificate.
	ClientCA *x509.CertPool
	// ServingCert is the kubelet's certificate. Default: one that it signs itself.
	ServingCert func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// APIServer, if set, is made reachable for pods at the bridge's gateway on the same port.
	APIServer netip.AddrPort
	// Pods hands out pods to many nodes of a process.
	Pods   *kubelet.Dispatcher
	Images map[string]v1.Image
	Logger logr.Logger
}

// Node is a worker.
type Node struct {
	opts    NodeOptions
	addrs   addresses
	client  client.WithWatch
	cache   cache.Cache
	kubelet *kubelet.Kubelet
	runtime *processruntime.Runtime // nil for others
	network *cni.Deferred           // nil where nothing waits for the node's pod range
	closers []func(context.Context) error
}

// NewNode makes a node over an API, by client and cache, whoever serves it.
func NewNode(ctx context.Context, c client.WithWatch, cc cache.Cache, o NodeOptions) (*Node, error) {
	n := &Node{opts: o, client: c, cache: cc, addrs: unprivileged}
	if o.Isolated {
		n.addrs = privileged
	}
	rt, images, err := n.newRuntime(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("node %s: runtime: %w", o.Name, err), n.close(ctx))
	}
	ip := o.IP
	if !ip.IsValid() {
		ip = addr("127.0.0.1")
	}
	ko := kubelet.Options{
		NodeName: o.Name, RootDir: filepath.Join(o.Dir, "kubelet"), NodeIPs: []netip.Addr{ip}, Hostname: o.Name,
		Listen: net.JoinHostPort(ip.String(), "0"), ClientCA: o.ClientCA, Pods: o.Pods,
		ClusterDNS: []string{n.addrs.dns.String()}, ClusterDomain: domain, Logger: o.Logger.WithName("kubelet"),
		Simulated: o.Runtime == "fake",
	}
	if o.ServingCert != nil {
		ko.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: o.ServingCert}
	}
	if n.kubelet, err = kubelet.New(c, cc, rt, images, ko); err != nil {
		return nil, errors.Join(fmt.Errorf("node %s: %w", o.Name, err), n.close(ctx))
	}
	return n, nil
}

func (n *Node) newRuntime(ctx context.Context) (kubelet.RuntimeService, kubelet.ImageService, error) {
	o := n.opts
	if o.Runtime == "fake" {
		rt, err := fakeruntime.New(fakeruntime.Options{Logger: o.Logger})
		return rt, rt, err
	}
	if socket, ok := strings.CutPrefix(o.Runtime, "cri="); ok {
		if !strings.Contains(socket, "://") {
			socket = "unix://" + socket
		}
		rt, err := criruntime.New(ctx, socket, criruntime.Options{Logger: o.Logger.WithName("runtime")})
		if err != nil {
			return nil, nil, err
		}
		n.closers = append(n.closers, rt.Close)
		return rt, rt, nil
	}
	po := processruntime.Options{Root: filepath.Join(o.Dir, "runtime"), KillOnClose: o.KillPods, Logger: o.Logger.WithName("runtime")}
	if o.Isolated {
		n.network = &cni.Deferred{}
		po.Network = n.network
	} else {
		network, err := loopback.New(loopback.Options{Prefix: podRange(n.addrs.pods, o.Index), StateDir: filepath.Join(o.Dir, "addresses")})
		if err != nil {
			return nil, nil, err
		}
		po.Network = network
	}
	rt, err := processruntime.New(po)
	if err != nil {
		return nil, nil, err
	}
	n.runtime, n.closers = rt, append(n.closers, rt.Close)
	for name, img := range o.Images {
		if _, err := rt.ImportImage(ctx, img, name); err != nil {
			return nil, nil, err
		}
	}
	return rt, rt, nil
}

// podRange is the i-th /20 of the range without privilege, where no controller gives nodes theirs.
func podRange(all netip.Prefix, i int) netip.Prefix {
	a := all.Addr().As4()
	a[2] = byte(i << 4)
	return netip.PrefixFrom(netip.AddrFrom4(a), 20)
}

// Isolation says in one line what separates pods.
func (n *Node) Isolation() string {
	switch {
	case n.runtime != nil:
		return n.runtime.Isolation()
	case n.opts.Runtime == "fake":
		return "none: pods are simulated"
	}
	return "by the CRI runtime at " + strings.TrimPrefix(n.opts.Runtime, "cri=")
}

// Run works until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	g := newGroup(ctx)
	g.run("kubelet", n.kubelet.Run)
	if n.network != nil {
		g.run("network", n.runNetwork)
	}
	if !n.opts.Shared && n.opts.Runtime != "fake" {
		g.run("services", n.runServices)
		if n.network == nil && !strings.HasPrefix(n.opts.Runtime, "cri=") {
			g.run("dns", func(ctx context.Context) error { return n.serveDNS(ctx, netip.AddrPortFrom(n.addrs.dns, 53)) })
		}
	}
	err := g.wait()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return errors.Join(err, n.close(grace))
}

func (n *Node) close(ctx context.Context) error {
	var errs []error
	for _, f := range n.closers {
		errs = append(errs, f(ctx))
	}
	n.closers = nil
	return errors.Join(errs...)
}

func (n *Node) runServices(ctx context.Context) error {
	backend, err := newBackend(n.opts.Proxy, n.addrs.pods, n.opts.Logger.WithName("proxy"))
	if err != nil || backend == nil {
		return err
	}
	if nft, ok := backend.(interface{ Cleanup(context.Context) error }); ok && n.opts.KillPods {
		defer func() { _ = nft.Cleanup(context.WithoutCancel(ctx)) }()
	}
	p, err := proxy.New(n.cache, backend, proxy.Options{NodeName: n.opts.Name, Logger: n.opts.Logger.WithName("proxy")})
	if err != nil {
		return err
	}
	return p.Run(ctx)
}

// serveDNS goes without, and says so, where port 53 isn't to be had.
func (n *Node) serveDNS(ctx context.Context, at netip.AddrPort) error {
	err := runDNS(ctx, n.client, n.cache, n.opts.Name, at, n.addrs.dns, n.opts.Logger.WithName("dns"))
	if err != nil && ctx.Err() == nil {
		n.opts.Logger.Info("pods can't resolve the cluster's names", "reason", err.Error())
		<-ctx.Done()
	}
	return nil
}

// runNetwork makes the pod network once the node has its range, and serves on its gateway.
func (n *Node) runNetwork(ctx context.Context) error {
	cidr, err := n.waitForPodCIDR(ctx)
	if err != nil {
		return err
	}
	br, err := bridge.New(bridge.Options{
		PodCIDR: cidr, ClusterCIDR: n.addrs.pods, ServiceCIDR: n.addrs.service, Bridge: fmt.Sprint("keelson", n.opts.Index),
		StateDir: filepath.Join(n.opts.Dir, "addresses"), Logger: n.opts.Logger.WithName("cni"),
	})
	if err != nil {
		return err
	}
	if err := br.EnsureBridge(ctx); err != nil {
		return err
	}
	if n.opts.KillPods {
		defer func() { _ = br.Remove(context.WithoutCancel(ctx)) }()
	}
	n.network.Set(br)
	g := newGroup(ctx)
	if !n.opts.Shared {
		g.run("dns", func(ctx context.Context) error { return n.serveDNS(ctx, netip.AddrPortFrom(br.Gateway(), 53)) })
		g.run("routes", func(ctx context.Context) error {
			mode := routes.Direct
			if n.opts.Overlay {
				mode = routes.VXLAN
			}
			r, err := routes.New(n.cache, routes.Options{NodeName: n.opts.Name, Mode: mode, Logger: n.opts.Logger.WithName("routes")})
			if err != nil {
				return err
			}
			return r.Run(ctx)
		})
	}
	if n.opts.APIServer.IsValid() {
		g.run("api server relay", func(ctx context.Context) error {
			return relay(ctx, netip.AddrPortFrom(br.Gateway(), n.opts.APIServer.Port()), n.opts.APIServer)
		})
	}
	return g.wait()
}

// relay forwards connections from an address that pods can reach.
func relay(ctx context.Context, from, to netip.AddrPort) error {
	b, err := userproxy.New(userproxy.Options{})
	if err != nil {
		return err
	}
	defer b.Close()
	err = b.Apply(ctx, proxy.Change{Full: true, Set: []proxy.ServicePort{{
		Key:       proxy.Key{Name: "kubernetes", Protocol: corev1.ProtocolTCP},
		ClusterIP: from.Addr(), Port: from.Port(), Internal: []netip.AddrPort{to},
	}}})
	<-ctx.Done()
	return err
}

func (n *Node) waitForPodCIDR(ctx context.Context) (netip.Prefix, error) {
	for {
		var node corev1.Node
		if err := n.client.Get(ctx, types.NamespacedName{Name: n.opts.Name}, &node); err == nil {
			if cidr, err := netip.ParsePrefix(node.Spec.PodCIDR); err == nil {
				return cidr, nil
			}
		}
		select {
		case <-ctx.Done():
			return netip.Prefix{}, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// group runs functions until one fails or the context ends, and then waits for all.
type group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func newGroup(ctx context.Context) *group {
	g := &group{}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

func (g *group) run(name string, f func(context.Context) error) {
	g.wg.Go(func() {
		if err := f(g.ctx); err != nil && g.ctx.Err() == nil {
			g.cancel(fmt.Errorf("%s: %w", name, err))
		}
	})
}

func (g *group) wait() error {
	<-g.ctx.Done()
	g.wg.Wait()
	err := context.Cause(g.ctx)
	g.cancel(nil)
	return ignoreCanceled(err)
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
