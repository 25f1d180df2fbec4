package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// listen opens the sockets.
func (s *Server) listen(ctx context.Context) ([]net.Listener, error) {
	all := slices.Clone(s.opts.Listeners)
	for _, addr := range s.opts.Listen {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, fmt.Errorf("apiserver: Options.Listen: %w", err)
		}
		all = append(all, l)
	}
	return all, nil
}

// advertised is where clients inside the cluster find the server; invalid if there is no such address. Of several listeners it is the first
// that others can reach. Endpoints can't name loopback addresses, but in clusters that live on those.
func (s *Server) advertised(listeners []net.Listener) netip.AddrPort {
	var best netip.AddrPort
	for _, l := range listeners {
		t, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			continue
		}
		at := t.AddrPort()
		addr := at.Addr().Unmap().WithZone("")
		if addr.IsUnspecified() {
			addr = interfaceAddress(addr.Is4())
		}
		if !best.IsValid() || best.Addr().IsLoopback() && !addr.IsLoopback() && !s.opts.unprivileged() {
			best = netip.AddrPortFrom(addr, at.Port())
		}
	}
	addr, port := best.Addr(), best.Port()
	if s.opts.AdvertiseAddress.IsValid() {
		addr = s.opts.AdvertiseAddress
	}
	if s.opts.AdvertisePort != 0 {
		port = uint16(s.opts.AdvertisePort)
	}
	if !addr.IsValid() || port == 0 || addr.IsLoopback() && !s.opts.unprivileged() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr, port)
}

// local is where programs on this machine find a listener.
func local(l net.Listener) (netip.AddrPort, bool) {
	t, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	at := t.AddrPort()
	addr := at.Addr().Unmap()
	switch {
	case addr.IsUnspecified() && addr.Is4(), addr == netip.IPv6Unspecified():
		// An unspecified IPv6 listener takes IPv4 too, and 127.0.0.1 exists where ::1 may not.
		addr = netip.MustParseAddr("127.0.0.1")
	}
	return netip.AddrPortFrom(addr, at.Port()), true
}

// interfaceAddress is one by which other machines reach this one, or loopback.
func interfaceAddress(preferV4 bool) netip.Addr {
	best := netip.MustParseAddr("127.0.0.1")
	for _, a := range interfaceAddresses() {
		if a.IsLoopback() || a.IsLinkLocalUnicast() {
			continue
		}
		if best.IsLoopback() || preferV4 && a.Is4() && !best.Is4() {
			best = a
		}
	}
	return best
}

func interfaceAddresses() []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// serverNames are what the serving certificate is good for.
func (s *Server) serverNames(listeners []net.Listener) []string {
	names := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + s.opts.ClusterDomain, "localhost", "127.0.0.1", "::1",
	}
	if h, err := os.Hostname(); err == nil && !strings.ContainsAny(h, " _") {
		names = append(names, h)
	}
	for _, p := range s.opts.ServiceCIDRs {
		names = append(names, firstAddress(p).String())
	}
	if a := s.opts.AdvertiseAddress; a.IsValid() {
		names = append(names, a.String())
	}
	for _, l := range listeners {
		t, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			continue
		}
		a := t.AddrPort().Addr().Unmap()
		if !a.IsUnspecified() {
			names = append(names, a.String())
			continue
		}
		for _, i := range interfaceAddresses() {
			names = append(names, i.WithZone("").String())
		}
	}
	return append(names, s.opts.ServerNames...)
}

// firstAddress is that of the kubernetes Service.
func firstAddress(p netip.Prefix) netip.Addr { return p.Addr().Next() }

// serve answers on the listeners until ctx ends, then lets requests end for a while.
func (s *Server) serve(ctx context.Context, listeners []net.Listener) error {
	if len(listeners) == 0 {
		<-ctx.Done()
		return nil
	}
	tlsConfig := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: s.ca.ServingTLS("kube-apiserver", s.serverNames(listeners)...),
		// The authenticator verifies: a client without a certificate may have a token.
		ClientAuth: tls.RequestClientCert,
		ClientCAs:  s.ca.Pool(),
		NextProtos: []string{"h2", "http/1.1"},
	}
	srv := &http.Server{
		Handler:           s,
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: 32 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    1 << 20,
		ErrorLog:          log.New(logWriter{s.opts.Logger}, "", 0),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1000, MaxReadFrameSize: 1 << 20},
	}
	var wg sync.WaitGroup
	errs := make(chan error, len(listeners))
	for _, l := range listeners {
		wg.Go(func() {
			if err := srv.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
				errs <- fmt.Errorf("apiserver: serving on %s: %w", l.Addr(), err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	done := make(chan struct{})
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*s.opts.ShutdownTimeout)
	defer cancel()
	wg.Go(func() {
		defer close(done)
		_ = srv.Shutdown(grace) // what is left after that, Close ends
	})
	s.drain()
	// Shutdown would wait a second for each HTTP/2 connection, used or not. All answers have been written; this is for them to arrive.
	timer := s.opts.Clock.NewTimer(lingering)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C():
	}
	srv.Close()
	wg.Wait()
	return err
}

// lingering is what connections are given after the last answer was written.
const lingering = 50 * time.Millisecond

// drain ends streams, refuses requests, and waits for those that run.
func (s *Server) drain() {
	s.handler.StopStreams()
	s.inflight.stop(s.opts.Clock, s.opts.ShutdownTimeout)
}

// logWriter gets what net/http complains of, mostly clients that break off handshakes.
type logWriter struct{ logger logr.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.logger.V(1).Info("HTTP server: " + strings.TrimSpace(string(b)))
	return len(b), nil
}
