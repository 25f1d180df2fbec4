package compose

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/apiserver/auth/ca"
	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/builtin"
	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/scheduler"
)

// Identities of the components in this process.
func component(name string, groups ...string) user.Info {
	return &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}
}

// Cluster is a control plane and its nodes.
type Cluster struct {
	// Server is the API; everything else is a client of it.
	Server *apiserver.Server

	opts     Options
	isolated bool
	why      string // why not
	images   map[string]v1.Image
	nodes    []*Node
	started  chan struct{}
}

// New makes a cluster; nothing runs yet.
func New(o Options) (*Cluster, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	c := &Cluster{opts: o, images: map[string]v1.Image{}, started: make(chan struct{})}
	can, why := CanIsolate()
	fake := o.Runtime == "fake" || o.Nodes == 0
	c.isolated, c.why = can && o.Proxy != "user" && !fake, why
	if o.Proxy == "nft" && !can {
		return nil, fmt.Errorf("proxy nft: %s", why)
	}
	if c.opts.Proxy == "auto" {
		switch {
		case fake:
			c.opts.Proxy = "none"
		case c.isolated:
			c.opts.Proxy = "nft"
		default:
			c.opts.Proxy = "user"
		}
	}
	so := apiserver.Options{
		Dir: filepath.Join(o.Dir, "pki"), Listen: o.Listen, ClusterDomain: domain, DisableAdmission: o.DisableAdmission,
		ServiceCIDRs: []netip.Prefix{c.addrs().service}, Logger: o.Logger.WithName("apiserver"),
	}
	if c.isolated && c.loopbackOnly() {
		so.AdvertiseAddress = c.addrs().pods.Addr().Next() // the first node's bridge, from where connections are relayed
	}
	authority, err := ca.New(ca.Options{Dir: so.Dir})
	if err != nil {
		return nil, err
	}
	so.KubeletCAs = authority.Pool()
	if c.Server, err = apiserver.New(o.Store, so); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Cluster) addrs() addresses {
	if c.isolated || c.opts.Runtime == "fake" || c.opts.Nodes == 0 {
		return privileged
	}
	return unprivileged
}

func (c *Cluster) loopbackOnly() bool {
	return !slices.ContainsFunc(c.opts.Listen, func(l string) bool {
		host, _, err := net.SplitHostPort(l)
		ip, perr := netip.ParseAddr(host)
		return err != nil || perr != nil || !ip.IsLoopback()
	})
}

// Import makes an image known to all nodes under a name. Call it before Run.
func (c *Cluster) Import(name string, img v1.Image) { c.images[name] = img }

// Run works until ctx ends: nodes stop first, the API server last.
func (c *Cluster) Run(ctx context.Context) error {
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	served := make(chan error, 1)
	go func() { served <- c.Server.Run(serverCtx) }()
	g := newGroup(ctx)
	g.run("api server", func(ctx context.Context) error {
		select {
		case err := <-served:
			served <- err
			if err == nil {
				err = fmt.Errorf("ended")
			}
			return err
		case <-ctx.Done():
			return nil
		}
	})
	g.run("cluster", func(ctx context.Context) error {
		if err := c.Server.WaitReady(ctx); err != nil {
			return err
		}
		return c.work(ctx)
	})
	err := g.wait()
	stopServer()
	if serr := <-served; err == nil {
		err = ignoreCanceled(serr)
	}
	return err
}

// work runs the control plane's clients and the nodes.
func (c *Cluster) work(ctx context.Context) error {
	g := newGroup(ctx)
	log := c.opts.Logger
	master := component("system:kube-controller-manager", user.SystemPrivilegedGroup)
	if err := letNodesJoin(ctx, c.Server.Client(master)); err != nil {
		return err
	}
	if join := c.opts.Nodes == 0 && !c.opts.KillPods; c.isolated || join {
		if err := serviceOfDNS(ctx, c.Server.Client(master), privileged.dns); err != nil {
			return err
		}
	}
	cache := c.Server.Cache(master)
	g.run("cache", cache.Start)
	if !c.opts.NoControllers {
		bo := builtin.Options{Common: controller.Common{Logger: log.WithName("controller")}, RootCA: c.Server.CA().CertificatePEM(), NodeGracePeriod: c.opts.NodeGracePeriod}
		bo.SigningCert, bo.SigningKey, bo.ApproveKubeletServing = c.Server.CA().Certificate(), c.Server.CA().Key(), true
		bo.ClusterCIDRs = []netip.Prefix{c.addrs().pods}
		set, err := builtin.New(c.Server.Client(master), cache, bo)
		if err != nil {
			return err
		}
		g.run("controllers", set.Run)
	}
	if !c.opts.NoScheduler {
		me := component("system:kube-scheduler")
		cache := c.Server.Cache(me)
		g.run("scheduler's cache", cache.Start)
		s, err := scheduler.New(c.Server.Client(me), cache, scheduler.Options{Profile: c.opts.Profile, Logger: log.WithName("scheduler")})
		if err != nil {
			return err
		}
		g.run("scheduler", s.Run)
	}
	if err := c.startNodes(ctx, g); err != nil {
		g.cancel(err)
	}
	close(c.started)
	return g.wait()
}

func (c *Cluster) startNodes(ctx context.Context, g *group) error {
	if c.opts.Nodes == 0 {
		return nil
	}
	host := component("system:nodes-of-this-process", user.SystemPrivilegedGroup)
	cache := c.Server.Cache(host)
	g.run("nodes' cache", cache.Start)
	pods, err := kubelet.NewDispatcher(cache)
	if err != nil {
		return err
	}
	g.run("pods", pods.Run)
	for i := range c.opts.Nodes {
		name := fmt.Sprint("node-", i+1)
		o := NodeOptions{
			Name: name, Dir: filepath.Join(c.opts.Dir, "nodes", name), Runtime: c.opts.Runtime, Proxy: c.opts.Proxy, Index: i,
			Isolated: c.isolated, Shared: i > 0, KillPods: c.opts.KillPods, ClientCA: c.Server.CA().Pool(), Pods: pods, Images: c.images,
			ServingCert: c.Server.CA().ServingTLS("system:node:"+name, name, "127.0.0.1"),
			Logger:      c.opts.Logger.WithValues("node", name),
		}
		if c.isolated && c.loopbackOnly() {
			if url, err := netip.ParseAddrPort(hostPort(c.Server.URL())); err == nil {
				o.APIServer = url
			}
		}
		n, err := NewNode(ctx, c.Server.Client(component("system:node:"+name, user.NodesGroup)), cache, o)
		if err != nil {
			return err
		}
		c.nodes = append(c.nodes, n)
		g.run(name, n.Run)
	}
	return nil
}

func hostPort(url string) string {
	const scheme = "https://"
	if len(url) > len(scheme) {
		return url[len(scheme):]
	}
	return ""
}

// Isolation says in one line what separates pods on this machine.
func (c *Cluster) Isolation() string {
	select {
	case <-c.started:
	default:
		return "not started"
	}
	if len(c.nodes) == 0 {
		return "no nodes"
	}
	return c.nodes[0].Isolation()
}

// Started is closed when all components have been started.
func (c *Cluster) Started() <-chan struct{} { return c.started }
