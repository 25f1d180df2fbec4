package routes

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

type host struct {
	ns   netns.NsHandle
	link *netlink.Handle
	peer Peer
	r    *Router
}

// TestPodRangesReachEachOther makes two hosts joined by a cable, each with an address that stands for its pods.
func TestPodRangesReachEachOther(t *testing.T) {
	for _, mode := range []Mode{Direct, VXLAN} {
		t.Run(string(mode), func(t *testing.T) {
			runtime.LockOSThread()
			a, b := newHost(t, 1, mode), newHost(t, 2, mode)
			veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "wire", PeerNamespace: netlink.NsFd(b.ns)}
			veth.Name = "wire"
			if err := a.link.LinkAdd(veth); err != nil {
				t.Fatal(err)
			}
			for _, h := range []*host{a, b} {
				wire, err := h.link.LinkByName("wire")
				must(t, err)
				must(t, h.link.AddrAdd(wire, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(h.peer.Node, 24))}))
				must(t, h.link.LinkSetUp(wire))
				pods := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
				pods.Name = "pods"
				must(t, h.link.LinkAdd(pods))
				must(t, h.link.AddrAdd(pods, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(h.peer.CIDR.Addr().Next(), 24))}))
				must(t, h.link.LinkSetUp(pods))
			}
			must(t, a.r.Program(a.peer, []Peer{b.peer}))
			must(t, b.r.Program(b.peer, []Peer{a.peer}))
			must(t, a.r.Program(a.peer, []Peer{b.peer})) // and again, changing nothing

			must(t, netns.Set(b.ns))
			l, err := net.Listen("tcp", b.peer.CIDR.Addr().Next().String()+":80")
			must(t, err)
			defer l.Close()
			must(t, netns.Set(a.ns))
			d := net.Dialer{Timeout: 3 * time.Second, LocalAddr: &net.TCPAddr{IP: a.peer.CIDR.Addr().Next().AsSlice()}}
			c, err := d.Dial("tcp", l.Addr().String())
			must(t, err)
			c.Close()

			must(t, a.r.Program(a.peer, nil))
			routes, err := a.link.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
			must(t, err)
			if len(routes) != 0 {
				t.Errorf("routes of a peer that is gone: %v", routes)
			}
		})
	}
}

func newHost(t *testing.T, i byte, mode Mode) *host {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") != "" {
			t.Fatal(err)
		}
		t.Skipf("needs CAP_SYS_ADMIN to make network namespaces: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	link, err := netlink.NewHandle()
	must(t, err)
	lo, err := link.LinkByName("lo")
	must(t, err)
	must(t, link.LinkSetUp(lo))
	r, err := New(nil, Options{NodeName: fmt.Sprint("n", i), Mode: mode})
	must(t, err)
	return &host{ns: ns, link: link, r: r, peer: Peer{
		Node: netip.AddrFrom4([4]byte{192, 168, 77, i}),
		CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 98, i, 0}), 24),
	}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
