package nftproxy_test

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/keelson/keelson/proxy"
	"github.com/keelson/keelson/proxy/nftproxy"
	"github.com/keelson/keelson/proxy/proxytest"
)

func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") != "" {
		t.Fatal(err)
	}
	t.Skipf("needs CAP_SYS_ADMIN and nftables: %v", err)
}

// host makes a network namespace the thread's, with addresses for endpoints and a route for Services.
func host(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		missing(t, err)
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(func() { ns.Close() })
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	br.Name = "pods"
	if err := netlink.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.50.0.1/24", "10.50.0.2/24", "10.50.0.3/24"} {
		addr, _ := netlink.ParseAddr(a)
		if err := netlink.AddrAdd(br, addr); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []netlink.Link{lo, br} {
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
	_, services, _ := parse("10.96.0.0/12")
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: br.Attrs().Index, Dst: services}); err != nil {
		t.Fatal(err)
	}
}

func TestSuite(t *testing.T) {
	host(t)
	addr := netip.MustParseAddr
	proxytest.Run(t, proxytest.Config{
		New: func(t testing.TB) proxy.Backend {
			b, err := nftproxy.New(nftproxy.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Service: addr("10.96.0.20"), NodePortAddr: addr("10.50.0.1"),
		Endpoints: []netip.Addr{addr("10.50.0.1"), addr("10.50.0.2"), addr("10.50.0.3")},
	})
}

func parse(s string) (netip.Prefix, *net.IPNet, error) {
	_, n, err := net.ParseCIDR(s)
	return netip.MustParsePrefix(s), n, err
}
