// Package proxytest is the suite for implementations of proxy.Backend: real connections through what Apply set up.
package proxytest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/proxy"
)

// Config describes the backend under test.
type Config struct {
	New func(t testing.TB) proxy.Backend
	// Service is an address the backend can serve that no other subtest uses at the time, with a port above 1024.
	Service netip.Addr
	// NodePortAddr is an address of the host on which node ports answer.
	NodePortAddr netip.Addr
	// Endpoints are addresses of the host on which the suite may listen as the endpoints of Services: at least three.
	Endpoints []netip.Addr
	// Settle bounds how long after Apply a change may take to be seen. Default 2s.
	Settle time.Duration
	// SkipUDP leaves UDP out.
	SkipUDP bool
}

// Run tests an implementation. The backend is called, and connections are made, on the calling goroutine only, so that a caller may
// lock it to a thread in a network namespace of its own.
func Run(t *testing.T, cfg Config) {
	for name, err := range Check(t.Context(), cfg, t) {
		t.Errorf("%s: %v", name, err)
	}
}

type suite struct {
	cfg Config
	b   proxy.Backend
}

// Check runs every check on a new backend each and returns the failures by name.
func Check(ctx context.Context, cfg Config, t testing.TB) map[string]error {
	if cfg.Settle == 0 {
		cfg.Settle = 2 * time.Second
	}
	failures := map[string]error{}
	for _, c := range checks {
		if cfg.SkipUDP && c.udp {
			continue
		}
		s := &suite{cfg: cfg, b: cfg.New(t)}
		err := c.run(s, ctx)
		if cerr := s.b.Apply(ctx, proxy.Change{Full: true}); err == nil && cerr != nil {
			err = fmt.Errorf("removing everything: %w", cerr)
		}
		if cerr := s.b.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			failures[c.name] = err
		}
	}
	return failures
}

type check struct {
	name string
	udp  bool
	run  func(*suite, context.Context) error
}

var checks = []check{
	{"connections reach every endpoint", false, (*suite).spread},
	{"no endpoints refuses", false, (*suite).noEndpoints},
	{"an endpoint that is gone gets nothing new", false, (*suite).endpointGone},
	{"open connections survive other changes", false, (*suite).undisturbed},
	{"client affinity", false, (*suite).affinity},
	{"node port", false, (*suite).nodePort},
	{"a removed port is closed", false, (*suite).removed},
	{"full change removes the rest", false, (*suite).full},
	{"an address moves between services", false, (*suite).moved},
	{"udp", true, (*suite).udp},
}

func (s *suite) port(name string, endpoints ...*server) proxy.ServicePort {
	sp := proxy.ServicePort{
		Key:       proxy.Key{Namespace: "default", Name: name, Protocol: corev1.ProtocolTCP},
		ClusterIP: s.cfg.Service, Port: 8090,
	}
	for _, e := range endpoints {
		sp.Internal = append(sp.Internal, e.addr)
	}
	return sp
}

func (s *suite) set(ctx context.Context, ports ...proxy.ServicePort) error {
	if err := s.b.Apply(ctx, proxy.Change{Set: ports}); err != nil {
		return fmt.Errorf("Apply: %w", err)
	}
	return nil
}

// eventually retries f until it is nil or the time is over.
func (s *suite) eventually(f func() error) error {
	deadline := time.Now().Add(s.cfg.Settle)
	for {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond) // a data plane outside the process has nothing to wait on
	}
}

func (s *suite) service() string { return netip.AddrPortFrom(s.cfg.Service, 8090).String() }

func (s *suite) spread(ctx context.Context) error {
	es, stop, err := s.servers(3)
	if err != nil {
		return err
	}
	defer stop()
	if err := s.set(ctx, s.port("spread", es...)); err != nil {
		return err
	}
	return s.eventually(func() error {
		seen := map[string]int{}
		for range 60 {
			who, err := ask(s.service())
			if err != nil {
				return err
			}
			seen[who]++
		}
		if len(seen) != 3 {
			return fmt.Errorf("60 connections reached %v, want all three endpoints", seen)
		}
		return nil
	})
}

func (s *suite) noEndpoints(ctx context.Context) error {
	if err := s.set(ctx, s.port("empty")); err != nil {
		return err
	}
	return s.eventually(func() error { return refused(s.service()) })
}

func refused(addr string) error {
	began := time.Now()
	who, err := ask(addr)
	if err == nil {
		return fmt.Errorf("%s answered: %q", addr, who)
	}
	if time.Since(began) > time.Second {
		return fmt.Errorf("%s: took %v to be refused: %w", addr, time.Since(began), err)
	}
	return nil
}

func (s *suite) endpointGone(ctx context.Context) error {
	es, stop, err := s.servers(2)
	if err != nil {
		return err
	}
	defer stop()
	if err := s.set(ctx, s.port("gone", es...)); err != nil {
		return err
	}
	if err := s.set(ctx, s.port("gone", es[1])); err != nil {
		return err
	}
	return s.eventually(func() error {
		for range 20 {
			if who, err := ask(s.service()); err != nil || who != es[1].addr.String() {
				return fmt.Errorf("got %q, %v; want only %v", who, err, es[1].addr)
			}
		}
		return nil
	})
}

func (s *suite) undisturbed(ctx context.Context) error {
	es, stop, err := s.servers(2)
	if err != nil {
		return err
	}
	defer stop()
	if err := s.set(ctx, s.port("stay", es...)); err != nil {
		return err
	}
	c, err := net.DialTimeout("tcp", s.service(), s.cfg.Settle)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		return err
	}
	other := s.port("other", es[0])
	other.Port = 8091
	for _, sp := range []proxy.ServicePort{other, s.port("stay", es[0]), s.port("stay", es...)} {
		if err := s.set(ctx, sp); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c, "still here"); err != nil {
			return err
		}
		if line, err := r.ReadString('\n'); err != nil || line != "still here\n" {
			return fmt.Errorf("connection disturbed: %q, %v", line, err)
		}
	}
	return nil
}

func (s *suite) affinity(ctx context.Context) error {
	es, stop, err := s.servers(3)
	if err != nil {
		return err
	}
	defer stop()
	sp := s.port("sticky", es...)
	sp.Affinity = time.Hour
	if err := s.set(ctx, sp); err != nil {
		return err
	}
	var first string
	if err := s.eventually(func() error { first, err = ask(s.service()); return err }); err != nil {
		return err
	}
	for range 20 {
		if who, err := ask(s.service()); err != nil || who != first {
			return fmt.Errorf("got %q, %v; first was %q", who, err, first)
		}
	}
	// The endpoint it stuck to leaves: the client gets another, and stays there.
	var rest []*server
	for _, e := range es {
		if e.addr.String() != first {
			rest = append(rest, e)
		}
	}
	sp = s.port("sticky", rest...)
	sp.Affinity = time.Hour
	if err := s.set(ctx, sp); err != nil {
		return err
	}
	return s.eventually(func() error {
		who, err := ask(s.service())
		if err != nil || who == first {
			return fmt.Errorf("after the endpoint left: %q, %v", who, err)
		}
		if again, err := ask(s.service()); err != nil || again != who {
			return fmt.Errorf("moved from %q to %q, %v", who, again, err)
		}
		return nil
	})
}

func (s *suite) nodePort(ctx context.Context) error {
	es, stop, err := s.servers(1)
	if err != nil {
		return err
	}
	defer stop()
	sp := s.port("np", es...)
	sp.NodePort, sp.External, sp.Cluster = 30123, sp.Internal, sp.Internal
	if err := s.set(ctx, sp); err != nil {
		return err
	}
	return s.eventually(func() error {
		who, err := ask(netip.AddrPortFrom(s.cfg.NodePortAddr, 30123).String())
		if err == nil && who != es[0].addr.String() {
			err = fmt.Errorf("got %q, want %v", who, es[0].addr)
		}
		return err
	})
}

func (s *suite) removed(ctx context.Context) error {
	es, stop, err := s.servers(1)
	if err != nil {
		return err
	}
	defer stop()
	sp := s.port("removed", es...)
	if err := s.set(ctx, sp); err != nil {
		return err
	}
	if err := s.eventually(func() error { _, err := ask(s.service()); return err }); err != nil {
		return err
	}
	for range 2 { // removing what is gone is no error
		if err := s.b.Apply(ctx, proxy.Change{Removed: []proxy.Key{sp.Key}}); err != nil {
			return err
		}
	}
	return s.eventually(func() error {
		if who, err := ask(s.service()); err == nil {
			return fmt.Errorf("still answers: %q", who)
		}
		return nil
	})
}

func (s *suite) full(ctx context.Context) error {
	es, stop, err := s.servers(1)
	if err != nil {
		return err
	}
	defer stop()
	gone, stays := s.port("gone", es...), s.port("stays", es...)
	gone.Port = 8092
	if err := s.set(ctx, gone, stays); err != nil {
		return err
	}
	if err := s.b.Apply(ctx, proxy.Change{Full: true, Set: []proxy.ServicePort{stays}}); err != nil {
		return err
	}
	return s.eventually(func() error {
		if who, err := ask(netip.AddrPortFrom(s.cfg.Service, 8092).String()); err == nil {
			return fmt.Errorf("the port left out still answers: %q", who)
		}
		_, err := ask(s.service())
		return err
	})
}

func (s *suite) moved(ctx context.Context) error {
	es, stop, err := s.servers(2)
	if err != nil {
		return err
	}
	defer stop()
	a, b := s.port("a", es[0]), s.port("b", es[1])
	if err := s.set(ctx, a); err != nil {
		return err
	}
	if err := s.b.Apply(ctx, proxy.Change{Removed: []proxy.Key{a.Key}, Set: []proxy.ServicePort{b}}); err != nil {
		return err
	}
	return s.eventually(func() error {
		who, err := ask(s.service())
		if err == nil && who != es[1].addr.String() {
			err = fmt.Errorf("got %q, want %v", who, es[1].addr)
		}
		return err
	})
}

func (s *suite) udp(ctx context.Context) error {
	pc, err := net.ListenPacket("udp", netip.AddrPortFrom(s.cfg.Endpoints[0], 0).String())
	if err != nil {
		return err
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			} else if err == nil {
				_, _ = pc.WriteTo(buf[:n], from)
			}
		}
	}()
	sp := s.port("udp")
	sp.Key.Protocol = corev1.ProtocolUDP
	sp.Internal = []netip.AddrPort{pc.LocalAddr().(*net.UDPAddr).AddrPort()}
	if err := s.set(ctx, sp); err != nil {
		return err
	}
	return s.eventually(func() error {
		c, err := net.Dial("udp", s.service())
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		if err == nil && string(buf[:n]) != "hello" {
			err = fmt.Errorf("got %q", buf[:n])
		}
		return err
	})
}
