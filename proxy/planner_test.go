package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var addrCmp = []cmp.Option{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

type ep struct {
	ip, node    string
	notReady    bool
	serving     bool
	terminating bool
	zones       []string
	nodes       []string
}

func svc(name string, mod func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.0.0.1",
			Ports: []corev1.ServicePort{{Name: "web", Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
	if mod != nil {
		mod(s)
	}
	return s
}

func slice(name, service string, eps ...ep) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("web"), Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	for _, e := range eps {
		out := discoveryv1.Endpoint{Addresses: []string{e.ip}, NodeName: ptr.To(e.node)}
		out.Conditions = discoveryv1.EndpointConditions{
			Ready: ptr.To(!e.notReady), Serving: ptr.To(!e.notReady || e.serving), Terminating: ptr.To(e.terminating),
		}
		if len(e.zones)+len(e.nodes) > 0 {
			out.Hints = &discoveryv1.EndpointHints{}
			for _, z := range e.zones {
				out.Hints.ForZones = append(out.Hints.ForZones, discoveryv1.ForZone{Name: z})
			}
			for _, n := range e.nodes {
				out.Hints.ForNodes = append(out.Hints.ForNodes, discoveryv1.ForNode{Name: n})
			}
		}
		s.Endpoints = append(s.Endpoints, out)
	}
	return s
}

func TestEndpointChoice(t *testing.T) {
	nodePort := func(local bool) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30000
			s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
			if local {
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			}
		}
	}
	internalLocal := func(s *corev1.Service) {
		s.Spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyLocal)
	}
	for _, tc := range []struct {
		name               string
		mod                func(*corev1.Service)
		eps                []ep
		internal, external []string
	}{
		{name: "ready ones", eps: []ep{{ip: "1.0.0.2"}, {ip: "1.0.0.1"}, {ip: "1.0.0.3", notReady: true}}, internal: []string{"1.0.0.1", "1.0.0.2"}},
		{name: "terminating but serving is the last resort", eps: []ep{{ip: "1.0.0.1", notReady: true, serving: true, terminating: true}, {ip: "1.0.0.2", notReady: true}}, internal: []string{"1.0.0.1"}},
		{name: "terminating is left while one is ready", eps: []ep{{ip: "1.0.0.1", notReady: true, serving: true, terminating: true}, {ip: "1.0.0.2"}}, internal: []string{"1.0.0.2"}},
		{name: "node port, cluster policy", mod: nodePort(false), eps: []ep{{ip: "1.0.0.1", node: "me"}, {ip: "1.0.0.2", node: "other"}}, internal: []string{"1.0.0.1", "1.0.0.2"}, external: []string{"1.0.0.1", "1.0.0.2"}},
		{name: "node port, local policy", mod: nodePort(true), eps: []ep{{ip: "1.0.0.1", node: "me"}, {ip: "1.0.0.2", node: "other"}}, internal: []string{"1.0.0.1", "1.0.0.2"}, external: []string{"1.0.0.1"}},
		{name: "internal local policy", mod: internalLocal, eps: []ep{{ip: "1.0.0.1", node: "me"}, {ip: "1.0.0.2", node: "other"}}, internal: []string{"1.0.0.1"}},
		{name: "internal local policy, none here", mod: internalLocal, eps: []ep{{ip: "1.0.0.2", node: "other"}}},
		{name: "zone hints", eps: []ep{{ip: "1.0.0.1", zones: []string{"z1"}}, {ip: "1.0.0.2", zones: []string{"z2"}}}, internal: []string{"1.0.0.1"}},
		{name: "zone hints count only if all have them", eps: []ep{{ip: "1.0.0.1", zones: []string{"z1"}}, {ip: "1.0.0.2"}}, internal: []string{"1.0.0.1", "1.0.0.2"}},
		{name: "no hint for this zone", eps: []ep{{ip: "1.0.0.1", zones: []string{"z3"}}, {ip: "1.0.0.2", zones: []string{"z2"}}}, internal: []string{"1.0.0.1", "1.0.0.2"}},
		{name: "node hints come before zone hints", eps: []ep{{ip: "1.0.0.1", zones: []string{"z1"}, nodes: []string{"other"}}, {ip: "1.0.0.2", zones: []string{"z2"}, nodes: []string{"me"}}}, internal: []string{"1.0.0.2"}},
		{name: "hints do not bind a local policy", mod: nodePort(true), eps: []ep{{ip: "1.0.0.1", node: "me", zones: []string{"z2"}}, {ip: "1.0.0.2", node: "other", zones: []string{"z1"}}}, internal: []string{"1.0.0.2"}, external: []string{"1.0.0.1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := NewPlanner("me")
			p.SetNode(map[string]string{corev1.LabelTopologyZone: "z1"})
			p.SetService(svc("a", tc.mod))
			p.SetEndpointSlice(slice("a-1", "a", tc.eps...))
			c := p.Plan()
			if !c.Full || len(c.Set) != 1 {
				t.Fatalf("first plan: %+v", c)
			}
			got := c.Set[0]
			if d := cmp.Diff(ports(tc.internal), got.Internal, addrCmp...); d != "" {
				t.Errorf("internal: %s", d)
			}
			if d := cmp.Diff(ports(tc.external), got.External, addrCmp...); d != "" {
				t.Errorf("external: %s", d)
			}
		})
	}
}

func ports(ips []string) (out []netip.AddrPort) {
	for _, ip := range ips {
		out = append(out, netip.AddrPortFrom(netip.MustParseAddr(ip), 8080))
	}
	return out
}

func TestPlanIsTheDifference(t *testing.T) {
	p := NewPlanner("me")
	p.Plan()
	p.SetService(svc("a", nil))
	p.SetService(svc("headless", func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }))
	p.SetService(svc("external", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName; s.Spec.ClusterIP = "" }))
	p.SetService(svc("others", func(s *corev1.Service) { s.Labels = map[string]string{labelProxyName: "x"} }))
	if c := p.Plan(); len(c.Set) != 1 || c.Full {
		t.Errorf("new Service: %+v", c)
	}
	p.SetService(svc("a", func(s *corev1.Service) { s.Annotations = map[string]string{"x": "y"} }))
	if c := p.Plan(); !c.Empty() {
		t.Errorf("an annotation changed the plan: %+v", c)
	}
	p.SetEndpointSlice(slice("s", "a", ep{ip: "1.0.0.1"}))
	if c := p.Plan(); len(c.Set) != 1 || len(c.Set[0].Internal) != 1 {
		t.Errorf("new endpoint: %+v", c)
	}
	p.SetService(svc("a", func(s *corev1.Service) {
		s.Spec.ClusterIPs = []string{"10.0.0.1", "fd00::1"}
		s.Spec.Ports[0].Name = "web"
	}))
	if c := p.Plan(); len(c.Set) != 1 || !c.Set[0].Key.IPv6 || len(c.Set[0].Internal) != 0 {
		t.Errorf("second family: %+v", c)
	}
	p.DeleteService("ns", "a")
	if c := p.Plan(); len(c.Removed) != 2 || len(c.Set) != 0 {
		t.Errorf("deleted: %+v", c)
	}
	p.SetService(svc("a", nil))
	if c := p.Plan(); len(c.Set) != 1 || len(c.Set[0].Internal) != 1 {
		t.Errorf("the slice outlived its Service's absence: %+v", c)
	}
}

// TestPlanAgainstFromScratch applies random events; folding the changes must give what a planner gives that sees only the
// final objects, in another order.
func TestPlanAgainstFromScratch(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		p := NewPlanner("me")
		svcs, eps := map[string]*corev1.Service{}, map[string]*discoveryv1.EndpointSlice{}
		zone := ""
		have := map[Key]ServicePort{}
		for range 60 {
			name := fmt.Sprint("s", r.IntN(4))
			switch r.IntN(6) {
			case 0:
				s := svc(name, func(s *corev1.Service) {
					s.Spec.ClusterIP = fmt.Sprintf("10.0.0.%d", 1+r.IntN(9))
					if r.IntN(2) == 0 {
						s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30001
						s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
					}
				})
				svcs[name] = s
				p.SetService(s)
			case 1:
				delete(svcs, name)
				p.DeleteService("ns", name)
			case 2, 3:
				sl := slice(fmt.Sprint("sl", r.IntN(6)), name)
				for i := range r.IntN(4) {
					e := ep{ip: fmt.Sprint("1.0.0.", 1+i+r.IntN(3)), node: []string{"me", "you"}[r.IntN(2)], notReady: r.IntN(3) == 0, serving: r.IntN(2) == 0, terminating: r.IntN(2) == 0}
					if r.IntN(2) == 0 {
						e.zones = []string{"z1"}
					}
					sl.Endpoints = append(sl.Endpoints, slice("", "", e).Endpoints...)
				}
				if old := eps[sl.Name]; old != nil && old.Labels[discoveryv1.LabelServiceName] != name {
					p.DeleteEndpointSlice(old)
				}
				eps[sl.Name] = sl
				p.SetEndpointSlice(sl)
			case 4:
				if sl := eps[fmt.Sprint("sl", r.IntN(6))]; sl != nil {
					delete(eps, sl.Name)
					p.DeleteEndpointSlice(sl)
				}
			case 5:
				zone = []string{"", "z1", "z2"}[r.IntN(3)]
				p.SetNode(map[string]string{corev1.LabelTopologyZone: zone})
			}
			if r.IntN(2) == 0 {
				fold(have, p.Plan())
			}
		}
		fold(have, p.Plan())
		q := NewPlanner("me")
		for _, sl := range eps {
			q.SetEndpointSlice(sl)
		}
		for _, s := range svcs {
			q.SetService(s)
		}
		q.SetNode(map[string]string{corev1.LabelTopologyZone: zone})
		want := map[Key]ServicePort{}
		fold(want, q.Plan())
		if !reflect.DeepEqual(have, want) {
			t.Fatalf("seed %d: %s", seed, cmp.Diff(want, have, addrCmp...))
		}
		if !slices.IsSortedFunc(p.State(), func(a, b ServicePort) int { return a.Key.Compare(b.Key) }) {
			t.Fatalf("seed %d: State is not sorted", seed)
		}
	}
}

func fold(state map[Key]ServicePort, c Change) {
	if c.Full {
		clear(state)
	}
	for _, k := range c.Removed {
		delete(state, k)
	}
	for _, sp := range c.Set {
		state[sp.Key] = sp
	}
}

func BenchmarkPlanOneEndpoint(b *testing.B) {
	p := NewPlanner("me")
	for i := range 5000 {
		name := fmt.Sprint("s", i)
		p.SetService(svc(name, func(s *corev1.Service) { s.Spec.ClusterIP = fmt.Sprintf("10.%d.%d.1", i/250, i%250) }))
		p.SetEndpointSlice(slice(name, name, ep{ip: "1.0.0.1"}, ep{ip: "1.0.0.2"}))
	}
	p.Plan()
	b.ReportAllocs()
	for i := range b.N {
		p.SetEndpointSlice(slice("s7", "s7", ep{ip: fmt.Sprint("1.0.0.", 1+i%200)}))
		if c := p.Plan(); len(c.Set) != 1 {
			b.Fatal(c)
		}
	}
}
