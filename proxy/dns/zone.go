package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// schemaVersion is the specification's, served as dns-version.ZONE.
const schemaVersion = "1.1.0"

// Zone answers questions about one cluster domain. Safe for concurrent use.
type Zone struct {
	domain string // with the final dot
	ttl    uint32

	mu         sync.RWMutex
	services   map[types.NamespacedName]*entry
	namespaces map[string]int // how many entries each has
	byIP       map[netip.Addr]map[types.NamespacedName]int
}

type entry struct {
	svc    *corev1.Service
	slices map[string]*discoveryv1.EndpointSlice
	ips    []netip.Addr // what byIP holds of it
}

// NewZone returns an empty zone for a domain such as cluster.local; ttl is in seconds.
func NewZone(domain string, ttl uint32) *Zone {
	return &Zone{
		domain: dns.CanonicalName(domain), ttl: ttl,
		services: map[types.NamespacedName]*entry{}, namespaces: map[string]int{}, byIP: map[netip.Addr]map[types.NamespacedName]int{},
	}
}

// SetService adds or replaces a Service.
func (z *Zone) SetService(s *corev1.Service) {
	z.update(types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, func(e *entry) { e.svc = s })
}

// DeleteService removes a Service.
func (z *Zone) DeleteService(namespace, name string) {
	z.update(types.NamespacedName{Namespace: namespace, Name: name}, func(e *entry) { e.svc = nil })
}

// SetEndpointSlice adds or replaces a slice.
func (z *Zone) SetEndpointSlice(s *discoveryv1.EndpointSlice) {
	if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
		z.update(types.NamespacedName{Namespace: s.Namespace, Name: name}, func(e *entry) { e.slices[s.Name] = s })
	}
}

// DeleteEndpointSlice removes a slice.
func (z *Zone) DeleteEndpointSlice(s *discoveryv1.EndpointSlice) {
	if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
		z.update(types.NamespacedName{Namespace: s.Namespace, Name: name}, func(e *entry) { delete(e.slices, s.Name) })
	}
}

func (z *Zone) update(name types.NamespacedName, change func(*entry)) {
	z.mu.Lock()
	defer z.mu.Unlock()
	e := z.services[name]
	if e == nil {
		e = &entry{slices: map[string]*discoveryv1.EndpointSlice{}}
		z.services[name] = e
	}
	had := e.svc != nil
	change(e)
	if has := e.svc != nil; has != had {
		if has {
			z.namespaces[name.Namespace]++
		} else if z.namespaces[name.Namespace]--; z.namespaces[name.Namespace] == 0 {
			delete(z.namespaces, name.Namespace)
		}
	}
	for _, ip := range e.ips {
		if m := z.byIP[ip]; m != nil {
			if delete(m, name); len(m) == 0 {
				delete(z.byIP, ip)
			}
		}
	}
	e.ips = e.addresses()
	for _, ip := range e.ips {
		if z.byIP[ip] == nil {
			z.byIP[ip] = map[types.NamespacedName]int{}
		}
		z.byIP[ip][name]++
	}
	if e.svc == nil && len(e.slices) == 0 {
		delete(z.services, name)
	}
}

func (e *entry) addresses() (out []netip.Addr) {
	switch {
	case e.svc == nil:
	case e.headless():
		for _, ep := range e.endpoints() {
			out = append(out, ep.ip)
		}
	default:
		out = e.clusterIPs()
	}
	return out
}

func (e *entry) headless() bool { return e.svc.Spec.ClusterIP == corev1.ClusterIPNone }

func (e *entry) clusterIPs() (out []netip.Addr) {
	ips := e.svc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{e.svc.Spec.ClusterIP}
	}
	for _, text := range ips {
		if ip, err := netip.ParseAddr(text); err == nil {
			out = append(out, ip)
		}
	}
	return out
}

// endpoint is one address behind a headless Service.
type endpoint struct {
	host  string // its label below the Service's name
	named bool   // the label is the pod's own hostname
	ip    netip.Addr
	ports []discoveryv1.EndpointPort
}

// endpoints returns the ready ones, ordered. Whether a pod that is not ready counts (publishNotReadyAddresses) the slices
// say themselves, by their ready conditions.
func (e *entry) endpoints() (out []endpoint) {
	for _, s := range e.slices {
		if s.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for i := range s.Endpoints {
			ep := &s.Endpoints[i]
			if ep.Conditions.Ready != nil && !*ep.Conditions.Ready {
				continue
			}
			for _, text := range ep.Addresses {
				ip, err := netip.ParseAddr(text)
				if err != nil {
					continue
				}
				x := endpoint{ip: ip, ports: s.Ports, host: strings.NewReplacer(".", "-", ":", "-").Replace(ip.String())}
				if ep.Hostname != nil && *ep.Hostname != "" {
					x.host, x.named = strings.ToLower(*ep.Hostname), true
				}
				out = append(out, x)
			}
		}
	}
	slices.SortFunc(out, func(a, b endpoint) int { return a.ip.Compare(b.ip) })
	return slices.CompactFunc(out, func(a, b endpoint) bool { return a.ip == b.ip && a.host == b.host && samePorts(a.ports, b.ports) })
}

func samePorts(a, b []discoveryv1.EndpointPort) bool {
	return slices.EqualFunc(a, b, func(p, q discoveryv1.EndpointPort) bool {
		return deref(p.Name) == deref(q.Name) && deref(p.Port) == deref(q.Port) && deref(p.Protocol) == deref(q.Protocol)
	})
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// Answer is what a zone says to a question.
type Answer struct {
	// Ours is false for names outside the zone, to be asked elsewhere.
	Ours bool
	// Rcode is dns.RcodeSuccess or dns.RcodeNameError.
	Rcode  int
	Answer []dns.RR
	Extra  []dns.RR
	// Follow is the target of a CNAME outside the zone, for the server to resolve.
	Follow string
}

// Ask answers one question.
func (z *Zone) Ask(q dns.Question) Answer {
	name := dns.CanonicalName(q.Name)
	if q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY {
		return Answer{Ours: dns.IsSubDomain(z.domain, name), Rcode: dns.RcodeNameError}
	}
	if ip, ok := reverseAddr(name); ok {
		return z.reverse(q, ip)
	}
	if !dns.IsSubDomain(z.domain, name) {
		return Answer{}
	}
	a := z.forward(q, name, strings.TrimSuffix(strings.TrimSuffix(name, z.domain), "."))
	a.Ours = true
	return a
}

func (z *Zone) forward(q dns.Question, full, rest string) Answer {
	var labels []string
	if rest != "" {
		labels = strings.Split(rest, ".")
	}
	n := len(labels)
	exists := Answer{Rcode: dns.RcodeSuccess}
	missing := Answer{Rcode: dns.RcodeNameError}
	switch {
	case n == 0:
		if q.Qtype == dns.TypeSOA {
			exists.Answer = []dns.RR{z.SOA()}
		} else if q.Qtype == dns.TypeNS {
			exists.Answer = []dns.RR{&dns.NS{Hdr: z.header(full, dns.TypeNS), Ns: "ns.dns." + z.domain}}
		}
		return exists
	case n == 1 && labels[0] == "dns-version":
		if q.Qtype == dns.TypeTXT || q.Qtype == dns.TypeANY {
			exists.Answer = []dns.RR{&dns.TXT{Hdr: z.header(full, dns.TypeTXT), Txt: []string{schemaVersion}}}
		}
		return exists
	case n == 1 && (labels[0] == "svc" || labels[0] == "pod"):
		return exists
	}
	kind, ns := labels[n-1], ""
	if n >= 2 {
		ns = labels[n-2]
	}
	z.mu.RLock()
	defer z.mu.RUnlock()
	if z.namespaces[ns] == 0 && kind == "svc" {
		return missing
	}
	switch {
	case kind != "svc" && kind != "pod":
		return missing
	case n == 2:
		return exists
	case kind == "pod":
		return z.pod(q, full, labels[:n-2])
	}
	e := z.services[types.NamespacedName{Namespace: ns, Name: labels[n-3]}]
	if e == nil || e.svc == nil {
		return missing
	}
	return z.service(q, full, e, labels[:n-3])
}

func (z *Zone) pod(q dns.Question, full string, labels []string) Answer {
	if len(labels) != 1 {
		return Answer{Rcode: dns.RcodeNameError}
	}
	ip, err := netip.ParseAddr(strings.ReplaceAll(labels[0], "-", "."))
	if err != nil {
		if ip, err = netip.ParseAddr(strings.ReplaceAll(labels[0], "-", ":")); err != nil {
			return Answer{Rcode: dns.RcodeNameError}
		}
	}
	return Answer{Answer: z.address(q, full, ip)}
}

func (z *Zone) service(q dns.Question, full string, e *entry, sub []string) Answer {
	missing := Answer{Rcode: dns.RcodeNameError}
	if e.svc.Spec.Type == corev1.ServiceTypeExternalName {
		if len(sub) > 0 {
			return missing
		}
		target := dns.CanonicalName(e.svc.Spec.ExternalName)
		return Answer{Answer: []dns.RR{&dns.CNAME{Hdr: z.header(full, dns.TypeCNAME), Target: target}}, Follow: target}
	}
	switch {
	case len(sub) == 0 && q.Qtype == dns.TypeSRV:
		return z.srv(full, e, "", "")
	case len(sub) == 0:
		var a Answer
		ips := e.clusterIPs()
		if e.headless() {
			ips = nil
			for _, ep := range e.endpoints() {
				ips = append(ips, ep.ip)
			}
			if len(ips) == 0 { // the specification leaves it open; resolvers go on with their search list on NXDOMAIN
				return missing
			}
			ips = slices.Compact(ips)
		}
		for _, ip := range ips {
			a.Answer = append(a.Answer, z.address(q, full, ip)...)
		}
		return a
	case len(sub) == 2 && strings.HasPrefix(sub[0], "_") && strings.HasPrefix(sub[1], "_"):
		a := z.srv(full, e, sub[0][1:], sub[1][1:])
		if q.Qtype != dns.TypeSRV && q.Qtype != dns.TypeANY {
			a.Answer, a.Extra = nil, nil
		}
		return a
	case len(sub) == 1 && e.headless():
		var a Answer
		found := false
		for _, ep := range e.endpoints() {
			if ep.host == sub[0] {
				found = true
				a.Answer = append(a.Answer, z.address(q, full, ep.ip)...)
			}
		}
		if found {
			return a
		}
	}
	return missing
}

// srv answers for the port named port over protocol proto, or for all named ports.
func (z *Zone) srv(full string, e *entry, port, proto string) Answer {
	var a Answer
	seen := map[string]bool{}
	add := func(target string, number int32, ip netip.Addr) {
		if id := target + strconv.Itoa(int(number)); !seen[id] {
			seen[id] = true
			a.Answer = append(a.Answer, &dns.SRV{Hdr: z.header(full, dns.TypeSRV), Priority: 0, Weight: 100, Port: uint16(number), Target: target})
		}
		qtype := dns.TypeA
		if ip.Is6() {
			qtype = dns.TypeAAAA
		}
		if id := target + ip.String(); !seen[id] {
			seen[id] = true
			a.Extra = append(a.Extra, z.address(dns.Question{Qtype: qtype}, target, ip)...)
		}
	}
	match := func(name string, p corev1.Protocol) bool {
		if p == "" {
			p = corev1.ProtocolTCP
		}
		return name != "" && (port == "" || strings.EqualFold(name, port) && strings.EqualFold(string(p), proto))
	}
	base := e.svc.Name + "." + e.svc.Namespace + ".svc." + z.domain
	if e.headless() {
		for _, ep := range e.endpoints() {
			for _, p := range ep.ports {
				if p.Port != nil && match(deref(p.Name), deref(p.Protocol)) {
					add(ep.host+"."+base, *p.Port, ep.ip)
				}
			}
		}
	} else {
		for _, p := range e.svc.Spec.Ports {
			if match(p.Name, p.Protocol) {
				for _, ip := range e.clusterIPs() {
					add(base, p.Port, ip)
				}
			}
		}
	}
	if len(a.Answer) == 0 && port != "" {
		a.Rcode = dns.RcodeNameError
	}
	return a
}

func (z *Zone) reverse(q dns.Question, ip netip.Addr) Answer {
	z.mu.RLock()
	defer z.mu.RUnlock()
	names := z.byIP[ip]
	if len(names) == 0 {
		return Answer{}
	}
	a := Answer{Ours: true}
	if q.Qtype != dns.TypePTR && q.Qtype != dns.TypeANY {
		return a
	}
	var targets []string
	for name := range names {
		e := z.services[name]
		base := name.Name + "." + name.Namespace + ".svc." + z.domain
		if !e.headless() {
			targets = append(targets, base)
			continue
		}
		for _, ep := range e.endpoints() {
			if ep.ip == ip && ep.named {
				targets = append(targets, ep.host+"."+base)
			}
		}
	}
	slices.Sort(targets)
	for _, t := range slices.Compact(targets) {
		a.Answer = append(a.Answer, &dns.PTR{Hdr: z.header(q.Name, dns.TypePTR), Ptr: t})
	}
	if len(a.Answer) == 0 {
		a.Rcode = dns.RcodeNameError
	}
	return a
}

func (z *Zone) address(q dns.Question, name string, ip netip.Addr) []dns.RR {
	switch {
	case ip.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
		return []dns.RR{&dns.A{Hdr: z.header(name, dns.TypeA), A: ip.AsSlice()}}
	case ip.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
		return []dns.RR{&dns.AAAA{Hdr: z.header(name, dns.TypeAAAA), AAAA: ip.AsSlice()}}
	}
	return nil
}

func (z *Zone) header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: z.ttl}
}

// SOA goes with answers that say there is nothing.
func (z *Zone) SOA() dns.RR {
	return &dns.SOA{
		Hdr: z.header(z.domain, dns.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: z.ttl,
	}
}

// reverseAddr reads an address out of a name below in-addr.arpa or ip6.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		parts := strings.Split(rest, ".")
		slices.Reverse(parts)
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 31; i >= 0; i-- {
		b.WriteByte(rest[2*i])
		if i%4 == 0 && i > 0 {
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}
