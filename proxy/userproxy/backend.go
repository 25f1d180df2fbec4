// Package userproxy is a proxy backend in pure Go: it listens on the Services' addresses and copies between client and endpoint.
// It needs no privilege, runs on any system, and serves addresses that the host itself has, which on Linux is all of 127/8: give the API server
// a Service range there. Endpoints see the proxy's address as their client's.
//
// Not served: SCTP, external and load balancer addresses that the host doesn't have, and, without privilege, ports below 1024
// (below net.ipv4.ip_unprivileged_port_start). Each is reported as an error of Apply through Options.Report or the log.
package userproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/proxy"
)

// Options of New. The zero value is usable.
type Options struct {
	// NodePortAddress is what node ports listen on. Default 0.0.0.0 and, for IPv6 Services, ::.
	NodePortAddress netip.Addr
	// UDPIdle ends a UDP client's session. Default 1 minute.
	UDPIdle time.Duration
	// DialTimeout bounds one attempt to reach an endpoint. Default 5s.
	DialTimeout time.Duration
	// Seed of the choice of endpoints. Default 1.
	Seed uint64
	// Report is told, from Apply, of each address that can't be served; nil logs it.
	Report func(key proxy.Key, addr netip.AddrPort, err error)
	Clock  clock.Clock
	Logger logr.Logger
}

func (o Options) withDefaults() Options {
	if o.UDPIdle == 0 {
		o.UDPIdle = time.Minute
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = 5 * time.Second
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	if o.Report == nil {
		log := o.Logger
		o.Report = func(key proxy.Key, addr netip.AddrPort, err error) {
			log.Error(err, "Service address not served", "service", key.String(), "address", addr)
		}
	}
	return o
}

// Backend implements proxy.Backend.
type Backend struct {
	opts Options

	ctx    context.Context // ends with Close: connections outlive the calls that opened their listeners
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	ports  map[proxy.Key]*port
}

var _ proxy.Backend = (*Backend)(nil)

// port is what one ServicePort listens on.
type port struct {
	frontends map[front]*frontend
}

type front struct {
	addr     netip.AddrPort
	external bool
}

// New returns a backend that serves nothing yet.
func New(opts Options) (*Backend, error) {
	if opts.UDPIdle < 0 || opts.DialTimeout < 0 {
		return nil, fmt.Errorf("userproxy: Options.UDPIdle and DialTimeout: want no negative durations")
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Backend{opts: opts.withDefaults(), ctx: ctx, cancel: cancel, ports: map[proxy.Key]*port{}}, nil
}

// Apply implements proxy.Backend. An address that can't be served fails neither the others nor the call: it is reported, and tried
// again when its Service changes or with the next full change.
func (b *Backend) Apply(_ context.Context, c proxy.Change) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errors.New("userproxy: closed")
	}
	if c.Full {
		keep := map[proxy.Key]bool{}
		for _, sp := range c.Set {
			keep[sp.Key] = true
		}
		for k := range b.ports {
			if !keep[k] {
				c.Removed = append(c.Removed, k)
			}
		}
	}
	for _, k := range c.Removed { // first, for an address may move to another Service
		if p := b.ports[k]; p != nil {
			for _, f := range p.frontends {
				f.close()
			}
			delete(b.ports, k)
		}
	}
	for _, sp := range c.Set {
		b.drop(sp)
	}
	for _, sp := range c.Set {
		b.set(sp)
	}
	return nil
}

// drop closes what the new form of a port no longer has.
func (b *Backend) drop(sp proxy.ServicePort) {
	p := b.ports[sp.Key]
	if p == nil {
		return
	}
	want := b.fronts(sp)
	for at, f := range p.frontends {
		if _, still := want[at]; !still {
			f.close()
			delete(p.frontends, at)
		}
	}
}

func (b *Backend) set(sp proxy.ServicePort) {
	p := b.ports[sp.Key]
	if p == nil {
		p = &port{frontends: map[front]*frontend{}}
		b.ports[sp.Key] = p
	}
	for at, to := range b.fronts(sp) {
		if f := p.frontends[at]; f != nil {
			f.balancer.set(to, sp.Affinity, sp.SourceRanges)
			continue
		}
		f, err := b.listen(sp, at, to)
		if err != nil {
			b.opts.Report(sp.Key, at.addr, err)
			continue
		}
		p.frontends[at] = f
	}
}

// fronts are the addresses of a port, each with its endpoints.
func (b *Backend) fronts(sp proxy.ServicePort) map[front][]netip.AddrPort {
	out := map[front][]netip.AddrPort{{addr: netip.AddrPortFrom(sp.ClusterIP, sp.Port)}: sp.Internal}
	for _, a := range sp.ExternalIPs {
		out[front{netip.AddrPortFrom(a, sp.Port), true}] = sp.External
	}
	for _, a := range sp.LoadBalancerIPs {
		out[front{netip.AddrPortFrom(a, sp.Port), true}] = sp.External
	}
	if sp.NodePort != 0 {
		a := b.opts.NodePortAddress
		switch {
		case a.IsValid() && a.Is6() == sp.Key.IPv6:
		case sp.Key.IPv6:
			a = netip.IPv6Unspecified()
		default:
			a = netip.IPv4Unspecified()
		}
		out[front{netip.AddrPortFrom(a, sp.NodePort), true}] = sp.External
	}
	return out
}

func (b *Backend) listen(sp proxy.ServicePort, at front, to []netip.AddrPort) (*frontend, error) {
	f := &frontend{backend: b, balancer: newBalancer(b.opts.Clock, b.opts.Seed, at.addr)}
	f.balancer.set(to, sp.Affinity, sp.SourceRanges)
	f.ctx, f.cancel = context.WithCancel(b.ctx)
	var err error
	switch sp.Key.Protocol {
	case corev1.ProtocolTCP:
		err = f.listenTCP(at.addr)
	case corev1.ProtocolUDP:
		err = f.listenUDP(at.addr)
	default:
		err = fmt.Errorf("userproxy: protocol %s is not supported; use nftproxy", sp.Key.Protocol)
	}
	if err != nil {
		f.cancel()
		return nil, err
	}
	return f, nil
}

// Close stops serving: listeners and connections are closed, and no goroutine is left.
func (b *Backend) Close() error {
	b.mu.Lock()
	b.closed = true
	for _, p := range b.ports {
		for _, f := range p.frontends {
			f.close()
		}
	}
	clear(b.ports)
	b.mu.Unlock()
	b.cancel()
	b.wg.Wait()
	return nil
}
