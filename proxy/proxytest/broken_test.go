package proxytest_test

import (
	"context"
	"net/netip"
	"runtime"
	"testing"

	"github.com/keelson/keelson/proxy"
	"github.com/keelson/keelson/proxy/proxytest"
	"github.com/keelson/keelson/proxy/userproxy"
)

// broken changes what it is told before it applies it.
type broken struct {
	proxy.Backend
	spoil func(*proxy.Change)
}

func (b broken) Apply(ctx context.Context, c proxy.Change) error {
	b.spoil(&c)
	return b.Backend.Apply(ctx, c)
}

func each(f func(*proxy.ServicePort)) func(*proxy.Change) {
	return func(c *proxy.Change) {
		for i := range c.Set {
			f(&c.Set[i])
		}
	}
}

func TestSuiteFindsBrokenBackends(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs all of 127/8")
	}
	addr := netip.MustParseAddr
	for name, spoil := range map[string]func(*proxy.Change){
		"keeps removed ports": func(c *proxy.Change) { c.Removed = nil },
		"forgets full":        func(c *proxy.Change) { c.Full = c.Full && len(c.Set) == 0 },
		"first endpoint only": each(func(sp *proxy.ServicePort) { sp.Internal = sp.Internal[:min(1, len(sp.Internal))] }),
		"no affinity":         each(func(sp *proxy.ServicePort) { sp.Affinity = 0 }),
		"no node ports":       each(func(sp *proxy.ServicePort) { sp.NodePort = 0 }),
	} {
		failures := proxytest.Check(t.Context(), proxytest.Config{
			New: func(t testing.TB) proxy.Backend {
				b, err := userproxy.New(userproxy.Options{Report: func(proxy.Key, netip.AddrPort, error) {}})
				if err != nil {
					t.Fatal(err)
				}
				return broken{b, spoil}
			},
			Service: addr("127.73.0.10"), NodePortAddr: addr("127.0.0.1"), Settle: 100e6,
			Endpoints: []netip.Addr{addr("127.74.0.1"), addr("127.74.0.2"), addr("127.74.0.3")},
		}, t)
		if len(failures) == 0 {
			t.Errorf("%s: the suite passes it", name)
		}
	}
}
