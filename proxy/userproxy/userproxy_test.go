package userproxy_test

import (
	"net/netip"
	"runtime"
	"testing"

	"go.uber.org/goleak"

	"github.com/keelson/keelson/proxy"
	"github.com/keelson/keelson/proxy/proxytest"
	"github.com/keelson/keelson/proxy/userproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config() proxytest.Config {
	addr := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	cfg := proxytest.Config{
		New: func(t testing.TB) proxy.Backend {
			b, err := userproxy.New(userproxy.Options{NodePortAddress: addr("127.0.0.1")})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Service: addr("127.71.0.10"), NodePortAddr: addr("127.0.0.1"),
		Endpoints: []netip.Addr{addr("127.72.0.1"), addr("127.72.0.2"), addr("127.72.0.3")},
	}
	if runtime.GOOS != "linux" { // only Linux has all of 127/8
		cfg.Service = addr("127.0.0.1")
		cfg.Endpoints = []netip.Addr{addr("127.0.0.1"), addr("127.0.0.1"), addr("127.0.0.1")}
	}
	return cfg
}

func TestSuite(t *testing.T) { proxytest.Run(t, config()) }

func TestReportsWhatItCannotServe(t *testing.T) {
	var reported []netip.AddrPort
	b, err := userproxy.New(userproxy.Options{Report: func(_ proxy.Key, a netip.AddrPort, err error) { reported = append(reported, a) }})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	bad := proxy.ServicePort{Key: proxy.Key{Name: "bad", Protocol: "TCP"}, ClusterIP: netip.MustParseAddr("192.0.2.1"), Port: 8080}
	sctp := proxy.ServicePort{Key: proxy.Key{Name: "sctp", Protocol: "SCTP"}, ClusterIP: netip.MustParseAddr("127.0.0.1"), Port: 8081}
	if err := b.Apply(t.Context(), proxy.Change{Full: true, Set: []proxy.ServicePort{bad, sctp}}); err != nil {
		t.Fatal(err)
	}
	if len(reported) != 2 {
		t.Errorf("reported %v, want both", reported)
	}
}
