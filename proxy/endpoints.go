package proxy

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// candidate is one endpoint of one port.
type candidate struct {
	addr               netip.AddrPort
	local              bool
	ready, lastResort  bool // lastResort: terminating but still serving
	zoneHints, forNode []string
}

// candidates collects the usable endpoints of one port from all slices of its Service, each address once.
func (p *Planner) candidates(e *service, port *corev1.ServicePort, v6 bool) []candidate {
	family := discoveryv1.AddressTypeIPv4
	if v6 {
		family = discoveryv1.AddressTypeIPv6
	}
	byAddr := map[netip.AddrPort]candidate{}
	for _, name := range slices.Sorted(maps.Keys(e.slices)) { // in order, so that of two claims to an address the same one wins
		slice := e.slices[name]
		if slice.AddressType != family {
			continue
		}
		for _, sp := range slice.Ports {
			if !samePort(sp, port) {
				continue
			}
			for i := range slice.Endpoints {
				c, ok := p.candidate(&slice.Endpoints[i], uint16(*sp.Port))
				if !ok {
					continue
				}
				// An address may stand in two slices while it moves; ready wins.
				if have, dup := byAddr[c.addr]; !dup || c.ready && !have.ready {
					byAddr[c.addr] = c
				}
			}
		}
	}
	out := make([]candidate, 0, len(byAddr))
	for _, c := range byAddr {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b candidate) int { return a.addr.Compare(b.addr) })
	return out
}

func samePort(sp discoveryv1.EndpointPort, port *corev1.ServicePort) bool {
	name, proto := "", corev1.ProtocolTCP
	if sp.Name != nil {
		name = *sp.Name
	}
	if sp.Protocol != nil {
		proto = *sp.Protocol
	}
	want := port.Protocol
	if want == "" {
		want = corev1.ProtocolTCP
	}
	return sp.Port != nil && name == port.Name && proto == want
}

func (p *Planner) candidate(ep *discoveryv1.Endpoint, port uint16) (candidate, bool) {
	if len(ep.Addresses) == 0 {
		return candidate{}, false
	}
	// Only the first address counts: EndpointSlice's API says that the others have no defined meaning.
	a, err := netip.ParseAddr(ep.Addresses[0])
	if err != nil {
		return candidate{}, false
	}
	c := candidate{addr: netip.AddrPortFrom(a, port), local: ep.NodeName != nil && *ep.NodeName == p.node}
	c.ready = ep.Conditions.Ready == nil || *ep.Conditions.Ready
	isServing := ep.Conditions.Serving == nil && c.ready || ptrIs(ep.Conditions.Serving, true)
	c.lastResort = !c.ready && isServing && ptrIs(ep.Conditions.Terminating, true)
	if ep.Hints != nil {
		for _, z := range ep.Hints.ForZones {
			c.zoneHints = append(c.zoneHints, z.Name)
		}
		for _, n := range ep.Hints.ForNodes {
			c.forNode = append(c.forNode, n.Name)
		}
	}
	return c, c.ready || c.lastResort
}

// serving keeps the ready ones or, if there is none, those that still serve while they terminate.
func serving(all []candidate) []candidate {
	ready := filter(all, func(c candidate) bool { return c.ready })
	if len(ready) > 0 {
		return ready
	}
	return filter(all, func(c candidate) bool { return c.lastResort })
}

func onlyLocal(all []candidate) []candidate {
	return filter(all, func(c candidate) bool { return c.local })
}

// near honours topology hints: for this node, else for its zone, if every endpoint has hints of that sort and some are meant.
func (p *Planner) near(all []candidate) []candidate {
	pick := func(hints func(candidate) []string, want string) []candidate {
		if want == "" {
			return nil
		}
		for _, c := range all {
			if len(hints(c)) == 0 {
				return nil
			}
		}
		return filter(all, func(c candidate) bool { return slices.Contains(hints(c), want) })
	}
	if got := pick(func(c candidate) []string { return c.forNode }, p.node); len(got) > 0 {
		return got
	}
	if got := pick(func(c candidate) []string { return c.zoneHints }, p.zone); len(got) > 0 {
		return got
	}
	return all
}

func filter(all []candidate, keep func(candidate) bool) []candidate {
	var out []candidate
	for _, c := range all {
		if keep(c) {
			out = append(out, c)
		}
	}
	return out
}

func addrs(all []candidate) []netip.AddrPort {
	var out []netip.AddrPort
	for _, c := range all {
		out = append(out, c.addr)
	}
	return out
}
