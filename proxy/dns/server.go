package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Options of New.
type Options struct {
	// Listen are the addresses to serve on, UDP and TCP. Required. Pods' resolv.conf can name port 53 only.
	Listen []netip.AddrPort
	// Domain of the cluster. Default cluster.local.
	Domain string
	// TTL of answers in seconds. Default 5; the specification leaves it open.
	TTL uint32
	// Upstream servers for all other names, asked in order. Empty: other names are refused.
	Upstream []netip.AddrPort
	// Timeout of one upstream question. Default 2s.
	Timeout time.Duration
	Logger  logr.Logger
}

// Server is the runner.
type Server struct {
	cache cache.Cache
	opts  Options
	zone  *Zone
}

// New returns a server that answers from c, which the caller starts.
func New(c cache.Cache, opts Options) (*Server, error) {
	opts.Domain = cmp.Or(opts.Domain, "cluster.local")
	opts.TTL = cmp.Or(opts.TTL, 5)
	opts.Timeout = cmp.Or(opts.Timeout, 2*time.Second)
	if opts.Logger.GetSink() == nil {
		opts.Logger = logr.Discard()
	}
	switch {
	case c == nil:
		return nil, errors.New("dns: want a cache")
	case len(opts.Listen) == 0:
		return nil, errors.New("dns: Options.Listen: want at least one address, such as 10.96.0.10:53")
	}
	if _, ok := dns.IsDomainName(opts.Domain); !ok {
		return nil, fmt.Errorf("dns: Options.Domain %q: want a domain name such as cluster.local", opts.Domain)
	}
	return &Server{cache: c, opts: opts, zone: NewZone(opts.Domain, opts.TTL)}, nil
}

// Run serves until ctx ends. It fails at once if an address can't be listened on.
func (s *Server) Run(ctx context.Context) error {
	stop, synced, err := s.follow(ctx)
	defer stop()
	if err != nil {
		return err
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	var servers []*dns.Server
	defer func() {
		for _, srv := range servers {
			if srv.Listener != nil {
				srv.Listener.Close()
			}
			if srv.PacketConn != nil {
				srv.PacketConn.Close()
			}
		}
	}()
	handler := dns.HandlerFunc(s.serve)
	for _, at := range s.opts.Listen {
		pc, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", at.String())
		if err != nil {
			return fmt.Errorf("dns: %w", err)
		}
		servers = append(servers, &dns.Server{PacketConn: pc, Handler: handler})
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at.String())
		if err != nil {
			return fmt.Errorf("dns: %w", err)
		}
		servers = append(servers, &dns.Server{Listener: l, Handler: handler})
	}
	var wg sync.WaitGroup
	failed := make(chan error, len(servers))
	for _, srv := range servers {
		wg.Go(func() {
			if err := srv.ActivateAndServe(); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
	}
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
		err = fmt.Errorf("dns: %w", err)
	}
	for _, srv := range servers {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Timeout+time.Second)
		_ = srv.ShutdownContext(grace)
		cancel()
	}
	wg.Wait()
	return err
}

func (s *Server) serve(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	if r.Opcode != dns.OpcodeQuery || len(r.Question) != 1 {
		m.Rcode = dns.RcodeNotImplemented
		_ = w.WriteMsg(m)
		return
	}
	q := r.Question[0]
	a := s.zone.Ask(q)
	if !a.Ours {
		_ = w.WriteMsg(fit(w, r, s.upstream(w, r)))
		return
	}
	m.Authoritative, m.RecursionAvailable = true, len(s.opts.Upstream) > 0
	m.Rcode, m.Answer, m.Extra = a.Rcode, a.Answer, a.Extra
	if a.Follow != "" && q.Qtype != dns.TypeCNAME {
		m.Answer = append(m.Answer, s.resolve(w, a.Follow, q.Qtype)...)
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{s.zone.SOA()}
	}
	_ = w.WriteMsg(fit(w, r, m))
}

// resolve follows a CNAME, within the zone or upstream.
func (s *Server) resolve(w dns.ResponseWriter, name string, qtype uint16) []dns.RR {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	if a := s.zone.Ask(q.Question[0]); a.Ours {
		return a.Answer
	}
	return s.upstream(w, q).Answer
}

func (s *Server) upstream(w dns.ResponseWriter, r *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	if len(s.opts.Upstream) == 0 {
		return m.SetRcode(r, dns.RcodeRefused)
	}
	network := "udp"
	if _, tcp := w.RemoteAddr().(*net.TCPAddr); tcp {
		network = "tcp"
	}
	for _, up := range s.opts.Upstream {
		c := dns.Client{Net: network, Timeout: s.opts.Timeout}
		ans, _, err := c.Exchange(r, up.String())
		if err == nil && ans.Truncated && network == "udp" {
			c.Net = "tcp"
			if full, _, terr := c.Exchange(r, up.String()); terr == nil {
				ans = full
			}
		}
		if err == nil {
			return ans
		}
		s.opts.Logger.V(1).Info("upstream does not answer", "server", up, "reason", err.Error())
	}
	return m.SetRcode(r, dns.RcodeServerFailure)
}

// fit truncates an answer to what the client can take.
func fit(w dns.ResponseWriter, r, m *dns.Msg) *dns.Msg {
	size := dns.MinMsgSize
	if opt := r.IsEdns0(); opt != nil {
		size = max(size, int(opt.UDPSize()))
		if m.IsEdns0() == nil {
			m.SetEdns0(opt.UDPSize(), false)
		}
	}
	if _, tcp := w.RemoteAddr().(*net.TCPAddr); tcp {
		size = dns.MaxMsgSize
	}
	m.Truncate(size)
	return m
}

func (s *Server) follow(ctx context.Context) (stop func(), synced []toolscache.InformerSynced, err error) {
	var undo []func()
	stop = func() {
		for _, f := range undo {
			f()
		}
	}
	for _, w := range []struct {
		obj         client.Object
		set, remove func(any)
	}{
		{
			&corev1.Service{},
			func(o any) { s.zone.SetService(o.(*corev1.Service)) },
			func(o any) { v := o.(*corev1.Service); s.zone.DeleteService(v.Namespace, v.Name) },
		},
		{
			&discoveryv1.EndpointSlice{},
			func(o any) { s.zone.SetEndpointSlice(o.(*discoveryv1.EndpointSlice)) },
			func(o any) { s.zone.DeleteEndpointSlice(o.(*discoveryv1.EndpointSlice)) },
		},
	} {
		inf, err := s.cache.GetInformer(ctx, w.obj)
		if err != nil {
			return stop, synced, fmt.Errorf("dns: informer for %T: %w", w.obj, err)
		}
		reg, err := inf.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: w.set,
			UpdateFunc: func(old, now any) {
				if a, ok := old.(*discoveryv1.EndpointSlice); ok && a.Labels[discoveryv1.LabelServiceName] != now.(*discoveryv1.EndpointSlice).Labels[discoveryv1.LabelServiceName] {
					w.remove(old)
				}
				w.set(now)
			},
			DeleteFunc: func(o any) {
				if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
					o = gone.Obj
				}
				w.remove(o)
			},
		})
		if err != nil {
			return stop, synced, fmt.Errorf("dns: informer for %T: %w", w.obj, err)
		}
		undo = append(undo, func() { _ = inf.RemoveEventHandler(reg) })
		synced = append(synced, reg.HasSynced)
	}
	return stop, synced, nil
}

// SystemUpstreams reads the host's own servers from a resolv.conf; "" names /etc/resolv.conf.
func SystemUpstreams(path string) ([]netip.AddrPort, error) {
	conf, err := dns.ClientConfigFromFile(cmp.Or(path, "/etc/resolv.conf"))
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	var out []netip.AddrPort
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddrPort(net.JoinHostPort(s, conf.Port)); err == nil {
			out = append(out, a)
		}
	}
	return out, nil
}
