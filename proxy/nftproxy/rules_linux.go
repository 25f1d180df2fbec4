package nftproxy

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/keelson/keelson/proxy"
)

// svcChain is a chain of one ServicePort.
type svcChain struct {
	name  string
	rules []string
	set   *knftables.Set // of clients that stick to the chain's endpoint
}

// chainID makes a chain name unique and short: names are 128 characters at most, a Service's parts can be longer.
func chainID(sp proxy.ServicePort) string {
	sum := sha256.Sum256([]byte(sp.Key.String()))
	id := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:12]
	name := sp.Key.Namespace + "-" + sp.Key.Name + "-" + strings.ToLower(string(sp.Key.Protocol))
	if len(name) > 80 {
		name = name[:80]
	}
	return id + "-" + name
}

func internalChain(sp proxy.ServicePort) string { return "svc-" + chainID(sp) }
func clusterChain(sp proxy.ServicePort) string  { return "all-" + chainID(sp) }
func externalChain(sp proxy.ServicePort) string { return "ext-" + chainID(sp) }
func localChain(sp proxy.ServicePort) string    { return "loc-" + chainID(sp) }

func hasExternal(sp proxy.ServicePort) bool {
	return sp.NodePort != 0 || len(sp.ExternalIPs) > 0 || len(sp.LoadBalancerIPs) > 0
}

// elements are what leads packets to a port's chains, by identity.
func (t *table) elements(sp proxy.ServicePort) map[string]*knftables.Element {
	out := map[string]*knftables.Element{}
	proto := strings.ToLower(string(sp.Key.Protocol))
	put := func(m string, key []string, verdict string) {
		out[m+" "+strings.Join(key, " ")] = &knftables.Element{Map: m, Key: key, Value: []string{verdict}}
	}
	vip := func(a netip.Addr, endpoints []netip.AddrPort, chain string) {
		key := []string{a.String(), proto, strconv.Itoa(int(sp.Port))}
		if len(endpoints) == 0 {
			put(mapRejects, key, "goto "+chainRefuse)
			return
		}
		put(mapServices, key, "goto "+chain)
	}
	vip(sp.ClusterIP, sp.Internal, internalChain(sp))
	// With externalTrafficPolicy Local, clients in the cluster may use endpoints anywhere, so the address exists while there is any.
	usable := sp.External
	if len(usable) == 0 {
		usable = sp.Cluster
	}
	for _, a := range append(append([]netip.Addr{}, sp.ExternalIPs...), sp.LoadBalancerIPs...) {
		vip(a, usable, externalChain(sp))
	}
	if sp.NodePort != 0 {
		key := []string{proto, strconv.Itoa(int(sp.NodePort))}
		if len(usable) == 0 {
			put(mapRejectsNP, key, "goto "+chainRefuse)
		} else {
			put(mapNodePorts, key, "goto "+externalChain(sp))
		}
	}
	return out
}

// chains are a port's chains, those jumped to first.
func (t *table) chains(sp proxy.ServicePort) []svcChain {
	var out []svcChain
	pick := func(name string, endpoints []netip.AddrPort) {
		if len(endpoints) == 0 {
			return
		}
		if sp.Affinity == 0 {
			out = append(out, svcChain{name: name, rules: []string{t.dnat(endpoints)}})
			return
		}
		var stick []string
		var spread strings.Builder
		for i, ep := range endpoints {
			ch := t.stickyChain(name, ep, sp.Affinity)
			out = append(out, ch)
			stick = append(stick, fmt.Sprintf("%s saddr @%s goto %s", t.addr, ch.set.Name, ch.name))
			if i > 0 {
				spread.WriteString(", ")
			}
			fmt.Fprintf(&spread, "%d : goto %s", i, ch.name)
		}
		out = append(out, svcChain{name: name, rules: append(stick, fmt.Sprintf("numgen random mod %d vmap { %s }", len(endpoints), spread.String()))})
	}
	pick(internalChain(sp), sp.Internal)
	if !hasExternal(sp) {
		return out
	}
	ext := svcChain{name: externalChain(sp)}
	for _, a := range sp.LoadBalancerIPs {
		if len(sp.SourceRanges) > 0 {
			ext.rules = append(ext.rules, fmt.Sprintf("%s daddr %s %s saddr != { %s } drop", t.addr, a, t.addr, join(sp.SourceRanges)))
		}
	}
	if sp.KeepSource {
		if len(sp.Cluster) > 0 {
			pick(clusterChain(sp), sp.Cluster)
			for _, cidr := range t.opts.ClusterCIDR {
				if cidr.Addr().Is6() == sp.Key.IPv6 {
					ext.rules = append(ext.rules, fmt.Sprintf("%s saddr %s goto %s", t.addr, cidr.Masked(), clusterChain(sp)))
				}
			}
			ext.rules = append(ext.rules,
				"fib saddr type local jump "+chainMasq,
				"fib saddr type local goto "+clusterChain(sp))
		}
		if len(sp.External) > 0 {
			pick(localChain(sp), sp.External)
			ext.rules = append(ext.rules, "goto "+localChain(sp))
		} else {
			ext.rules = append(ext.rules, "drop") // a load balancer takes its traffic to nodes that have endpoints
		}
	} else if len(sp.External) > 0 {
		pick(localChain(sp), sp.External)
		ext.rules = append(ext.rules, "jump "+chainMasq, "goto "+localChain(sp))
	}
	return append(out, ext)
}

func (t *table) stickyChain(service string, ep netip.AddrPort, timeout time.Duration) svcChain {
	sum := sha256.Sum256([]byte(ep.String()))
	name := service + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:8]
	set := &knftables.Set{
		Name: "affinity-" + name, Type: t.typ, Flags: []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag}, Timeout: &timeout,
	}
	return svcChain{name: name, set: set, rules: []string{
		fmt.Sprintf("update @%s { %s saddr }", set.Name, t.addr),
		t.dnat([]netip.AddrPort{ep}),
	}}
}

// dnat sends a connection to one of the endpoints at random.
func (t *table) dnat(endpoints []netip.AddrPort) string {
	if len(endpoints) == 1 {
		return "meta l4proto { tcp, udp, sctp } dnat to " + endpoints[0].String()
	}
	var b strings.Builder
	for i, ep := range endpoints {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d : %s . %d", i, ep.Addr(), ep.Port())
	}
	return fmt.Sprintf("meta l4proto { tcp, udp, sctp } dnat %s addr . port to numgen random mod %d map { %s }", t.addr, len(endpoints), b.String())
}

func join(prefixes []netip.Prefix) string {
	var s []string
	for _, p := range prefixes {
		s = append(s, p.String())
	}
	return strings.Join(s, ", ")
}
