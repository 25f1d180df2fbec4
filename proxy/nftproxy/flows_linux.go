package nftproxy

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/knftables"

	"github.com/keelson/keelson/proxy"
)

// flow is a UDP association that must be forgotten: datagrams to Dest that went to Endpoint, or, with no Endpoint, all to Dest.
// UDP has no connections to end by itself: without this a client that goes on sending keeps reaching an endpoint that is gone.
type flow struct {
	dest     netip.AddrPort // without an address: any address, a node port
	endpoint netip.Addr
}

func staleFlows(old, now map[proxy.Key]proxy.ServicePort) []flow {
	var out []flow
	for k, was := range old {
		if k.Protocol != corev1.ProtocolUDP {
			continue
		}
		is := now[k]
		have := endpointIPs(is)
		for ep := range endpointIPs(was) {
			if !have[ep] {
				for _, d := range dests(was) {
					out = append(out, flow{d, ep})
				}
			}
		}
	}
	for k, is := range now {
		// What was sent while there was no endpoint, or no Service, went nowhere.
		if k.Protocol == corev1.ProtocolUDP && len(endpointIPs(is)) > 0 && len(endpointIPs(old[k])) == 0 {
			for _, d := range dests(is) {
				out = append(out, flow{dest: d})
			}
		}
	}
	return out
}

func dests(sp proxy.ServicePort) []netip.AddrPort {
	out := []netip.AddrPort{netip.AddrPortFrom(sp.ClusterIP, sp.Port)}
	for _, a := range append(append([]netip.Addr{}, sp.ExternalIPs...), sp.LoadBalancerIPs...) {
		out = append(out, netip.AddrPortFrom(a, sp.Port))
	}
	if sp.NodePort != 0 {
		out = append(out, netip.AddrPortFrom(netip.Addr{}, sp.NodePort))
	}
	return out
}

type flowFilter struct{ stale []flow }

var _ netlink.CustomConntrackFilter = flowFilter{}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f flowFilter) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	if c.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	dst, _ := netip.AddrFromSlice(c.Forward.DstIP)
	from, _ := netip.AddrFromSlice(c.Reverse.SrcIP)
	for _, s := range f.stale {
		if s.dest.Port() == c.Forward.DstPort && (!s.dest.Addr().IsValid() || s.dest.Addr() == dst.Unmap()) &&
			(!s.endpoint.IsValid() || s.endpoint == from.Unmap()) {
			return true
		}
	}
	return false
}

func dropFlows(family knftables.Family, stale []flow) error {
	if len(stale) == 0 {
		return nil
	}
	f := netlink.InetFamily(unix.AF_INET)
	if family == knftables.IPv6Family {
		f = unix.AF_INET6
	}
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, f, flowFilter{stale})
	return err
}
