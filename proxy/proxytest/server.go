package proxytest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// server is an endpoint: it says its address, then echoes lines.
type server struct{ addr netip.AddrPort }

func (s *suite) servers(n int) (out []*server, stop func(), err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var closers []io.Closer
	stop = func() {
		mu.Lock()
		for _, c := range closers {
			c.Close()
		}
		closers = nil
		mu.Unlock()
		wg.Wait()
	}
	for i := range n {
		l, err := net.Listen("tcp", netip.AddrPortFrom(s.cfg.Endpoints[i], 0).String())
		if err != nil {
			stop()
			return nil, nil, err
		}
		e := &server{addr: l.Addr().(*net.TCPAddr).AddrPort()}
		out = append(out, e)
		mu.Lock()
		closers = append(closers, l)
		mu.Unlock()
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				closers = append(closers, c)
				mu.Unlock()
				wg.Go(func() {
					defer c.Close()
					fmt.Fprintln(c, e.addr)
					_, _ = io.Copy(c, c)
				})
			}
		})
	}
	return out, stop, nil
}

// ask connects and returns who answered.
func ask(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}
