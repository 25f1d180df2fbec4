package userproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// frontend is one listening address.
type frontend struct {
	backend  *Backend
	balancer *balancer
	ctx      context.Context // ends with close: no new connections
	cancel   context.CancelFunc
	listener io.Closer
}

// close frees the address before it returns, for another Service may want it.
func (f *frontend) close() {
	f.cancel()
	f.listener.Close()
}

func (f *frontend) listenTCP(at netip.AddrPort) error {
	l, err := (&net.ListenConfig{}).Listen(f.ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	f.listener = l
	f.backend.wg.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // out of file descriptors: let some connections end
				select {
				case <-f.ctx.Done():
					return
				case <-f.backend.opts.Clock.After(50 * time.Millisecond):
				}
				continue
			}
			f.backend.wg.Go(func() { f.serveTCP(c.(*net.TCPConn)) })
		}
	})
	return nil
}

// serveTCP copies both ways until both ends are done. A connection lives on when its endpoint leaves the Service, as with any data plane
// that tracks connections, and ends with the backend.
func (f *frontend) serveTCP(client *net.TCPConn) {
	defer client.Close()
	addr := client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	server := f.dialTCP(addr)
	if server == nil {
		_ = client.SetLinger(0) // a reset, as the kernel answers where nobody listens
		return
	}
	defer server.Close()
	defer context.AfterFunc(f.backend.ctx, func() { client.Close(); server.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.CloseWrite()
	})
	_, _ = io.Copy(client, server)
	_ = client.CloseWrite()
	wg.Wait()
}

func (f *frontend) dialTCP(client netip.Addr) *net.TCPConn {
	d := net.Dialer{Timeout: f.backend.opts.DialTimeout}
	for _, ep := range f.balancer.order(client) {
		c, err := d.DialContext(f.backend.ctx, "tcp", ep.String())
		if err == nil {
			f.balancer.used(client, ep)
			return c.(*net.TCPConn)
		}
		f.backend.opts.Logger.V(2).Info("endpoint does not answer", "endpoint", ep, "reason", err.Error())
		if f.backend.ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// udpSession is one client's association with an endpoint.
type udpSession struct {
	conn     *net.UDPConn
	endpoint netip.AddrPort
}

func (f *frontend) listenUDP(at netip.AddrPort) error {
	pc, err := (&net.ListenConfig{}).ListenPacket(f.ctx, "udp", at.String())
	if err != nil {
		return err
	}
	conn := pc.(*net.UDPConn)
	f.listener = conn
	f.backend.wg.Go(func() { f.serveUDP(conn) })
	return nil
}

func (f *frontend) serveUDP(conn *net.UDPConn) {
	var mu sync.Mutex
	sessions := map[netip.AddrPort]*udpSession{}
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range sessions {
			s.conn.Close()
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, client, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		mu.Lock()
		s := sessions[client]
		if s != nil && !f.balancer.has(s.endpoint) {
			s.conn.Close()
			delete(sessions, client)
			s = nil
		}
		if s == nil {
			if s = f.dialUDP(client.Addr()); s == nil {
				mu.Unlock()
				continue
			}
			sessions[client] = s
			f.backend.wg.Go(func() {
				f.answerUDP(conn, s, client)
				s.conn.Close()
				mu.Lock()
				if sessions[client] == s {
					delete(sessions, client)
				}
				mu.Unlock()
			})
		}
		mu.Unlock()
		_ = s.conn.SetReadDeadline(time.Now().Add(f.backend.opts.UDPIdle))
		_, _ = s.conn.Write(buf[:n])
	}
}

func (f *frontend) dialUDP(client netip.Addr) *udpSession {
	for _, ep := range f.balancer.order(client) {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(ep))
		if err == nil {
			f.balancer.used(client, ep)
			return &udpSession{conn: c, endpoint: ep}
		}
	}
	return nil
}

func (f *frontend) answerUDP(conn *net.UDPConn, s *udpSession, client netip.AddrPort) {
	buf := make([]byte, 64<<10)
	for {
		n, err := s.conn.Read(buf)
		if err != nil {
			return // idle, closed, or the endpoint refused: the next datagram chooses anew
		}
		_ = s.conn.SetReadDeadline(time.Now().Add(f.backend.opts.UDPIdle))
		if _, err := conn.WriteToUDPAddrPort(buf[:n], client); err != nil {
			return
		}
	}
}
