package proxy

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Planner computes what a node's data plane should be. Not safe for concurrent use. It keeps the objects it is given and never
// modifies them.
type Planner struct {
	node, zone string
	services   map[types.NamespacedName]*service
	dirty      map[types.NamespacedName]bool
	planned    bool
}

type service struct {
	obj    *corev1.Service
	slices map[string]*discoveryv1.EndpointSlice
	ports  map[Key]ServicePort // as last handed out
}

// NewPlanner returns a planner for the node of that name.
func NewPlanner(nodeName string) *Planner {
	return &Planner{node: nodeName, services: map[types.NamespacedName]*service{}, dirty: map[types.NamespacedName]bool{}}
}

// SetNode tells the planner the node's labels; only the zone matters.
func (p *Planner) SetNode(labels map[string]string) {
	if zone := labels[corev1.LabelTopologyZone]; zone != p.zone {
		p.zone = zone
		for name := range p.services {
			p.dirty[name] = true
		}
	}
}

// SetService adds or replaces a Service.
func (p *Planner) SetService(s *corev1.Service) {
	name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	p.entry(name).obj = s
	p.dirty[name] = true
}

// DeleteService removes a Service.
func (p *Planner) DeleteService(namespace, name string) {
	n := types.NamespacedName{Namespace: namespace, Name: name}
	if e := p.services[n]; e != nil {
		e.obj = nil
		p.dirty[n] = true
	}
}

// SetEndpointSlice adds or replaces a slice. One without the label kubernetes.io/service-name belongs to no Service.
func (p *Planner) SetEndpointSlice(s *discoveryv1.EndpointSlice) {
	name := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
	if name.Name == "" {
		return
	}
	p.entry(name).slices[s.Name] = s
	p.dirty[name] = true
}

// DeleteEndpointSlice removes a slice.
func (p *Planner) DeleteEndpointSlice(s *discoveryv1.EndpointSlice) {
	name := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
	if e := p.services[name]; e != nil {
		delete(e.slices, s.Name)
		p.dirty[name] = true
	}
}

func (p *Planner) entry(name types.NamespacedName) *service {
	e := p.services[name]
	if e == nil {
		e = &service{slices: map[string]*discoveryv1.EndpointSlice{}}
		p.services[name] = e
	}
	return e
}

// Plan returns what changed since the last Plan; the first one is full. The result is the same for the same objects, in whatever order
// they came.
func (p *Planner) Plan() Change {
	if !p.planned {
		p.planned = true
		p.advance()
		return Change{Full: true, Set: p.State()}
	}
	return p.advance()
}

func (p *Planner) advance() Change {
	var c Change
	for name := range p.dirty {
		e := p.services[name]
		next := p.portsOf(e)
		for k, sp := range next {
			if old, had := e.ports[k]; !had || !reflect.DeepEqual(old, sp) {
				c.Set = append(c.Set, sp)
			}
		}
		for k := range e.ports {
			if _, still := next[k]; !still {
				c.Removed = append(c.Removed, k)
			}
		}
		e.ports = next
		if e.obj == nil && len(e.slices) == 0 {
			delete(p.services, name)
		}
	}
	clear(p.dirty)
	slices.SortFunc(c.Set, func(a, b ServicePort) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(c.Removed, Key.Compare)
	return c
}

// State returns everything as last planned, ordered by Key.
func (p *Planner) State() []ServicePort {
	var all []ServicePort
	for _, e := range p.services {
		all = slices.AppendSeq(all, maps.Values(e.ports))
	}
	slices.SortFunc(all, func(a, b ServicePort) int { return a.Key.Compare(b.Key) })
	return all
}

func (p *Planner) portsOf(e *service) map[Key]ServicePort {
	s := e.obj
	if s == nil || skip(s) {
		return nil
	}
	out := map[Key]ServicePort{}
	for _, text := range clusterIPs(s) {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		for i := range s.Spec.Ports {
			sp := p.port(e, &s.Spec.Ports[i], ip)
			out[sp.Key] = sp
		}
	}
	return out
}

// labelProxyName hands a Service to another proxy.
const labelProxyName = "service.kubernetes.io/service-proxy-name"

func skip(s *corev1.Service) bool {
	_, other := s.Labels[labelProxyName]
	return other || s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.ClusterIP == corev1.ClusterIPNone || s.Spec.ClusterIP == ""
}

func clusterIPs(s *corev1.Service) []string {
	if len(s.Spec.ClusterIPs) > 0 {
		return s.Spec.ClusterIPs
	}
	return []string{s.Spec.ClusterIP}
}

func (p *Planner) port(e *service, port *corev1.ServicePort, ip netip.Addr) ServicePort {
	s := e.obj
	proto := port.Protocol
	if proto == "" {
		proto = corev1.ProtocolTCP
	}
	sp := ServicePort{
		Key:       Key{Namespace: s.Namespace, Name: s.Name, Port: port.Name, Protocol: proto, IPv6: ip.Is6()},
		ClusterIP: ip, Port: uint16(port.Port), NodePort: uint16(port.NodePort),
	}
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		sp.Affinity = 3 * time.Hour // the documented default of timeoutSeconds
		if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			sp.Affinity = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	for _, text := range s.Spec.ExternalIPs {
		if a, err := netip.ParseAddr(text); err == nil && a.Is6() == ip.Is6() {
			sp.ExternalIPs = append(sp.ExternalIPs, a)
		}
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		for _, in := range s.Status.LoadBalancer.Ingress {
			vip := in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP
			if a, err := netip.ParseAddr(in.IP); err == nil && vip && a.Is6() == ip.Is6() {
				sp.LoadBalancerIPs = append(sp.LoadBalancerIPs, a)
			}
		}
		for _, text := range s.Spec.LoadBalancerSourceRanges {
			if r, err := netip.ParsePrefix(text); err == nil && r.Addr().Is6() == ip.Is6() {
				sp.SourceRanges = append(sp.SourceRanges, r.Masked())
			}
		}
	}
	slices.SortFunc(sp.ExternalIPs, netip.Addr.Compare)
	slices.SortFunc(sp.LoadBalancerIPs, netip.Addr.Compare)
	slices.SortFunc(sp.SourceRanges, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr())*100 + a.Bits() - b.Bits() })

	all := p.candidates(e, port, ip.Is6())
	cluster, local := p.near(serving(all)), serving(onlyLocal(all))
	sp.Internal, sp.External, sp.Cluster = addrs(cluster), addrs(cluster), addrs(cluster)
	if ptrIs(s.Spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyLocal) {
		sp.Internal = addrs(local)
	}
	external := sp.NodePort != 0 || len(sp.ExternalIPs) > 0 || len(sp.LoadBalancerIPs) > 0
	if !external {
		sp.External, sp.Cluster = nil, nil
	} else if s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		sp.External, sp.KeepSource = addrs(local), true
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
			sp.HealthCheckNodePort = uint16(s.Spec.HealthCheckNodePort)
			for _, c := range local {
				if c.ready {
					sp.LocalEndpoints++
				}
			}
		}
	}
	return sp
}

func ptrIs[T comparable](p *T, v T) bool { return p != nil && *p == v }
