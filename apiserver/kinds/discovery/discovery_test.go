package discovery

import (
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver/kinds/internal/kindtest"
)

func ptr[T any](v T) *T { return &v }

func TestEndpointSlice(t *testing.T) {
	valid := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web"}, AddressType: "IPv4",
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}}, Ports: []discoveryv1.EndpointPort{{Port: ptr(int32(80))}},
	}
	k := kindtest.Find(t, Group(Options{}), "EndpointSlice")
	kindtest.CreateTable(t, k, valid, []kindtest.Change[*discoveryv1.EndpointSlice]{
		{"no type", func(s *discoveryv1.EndpointSlice) { s.AddressType = "" }, `addressType: Required value`},
		{"no address", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses = nil }, `endpoints[0].addresses: Required value: must contain at least 1 address`},
		{
			"loopback", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses[0] = "127.0.0.1" },
			`endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
		},
		{
			"family", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses[0] = "fd00::1" },
			`endpoints[0].addresses[0]: Invalid value: "fd00::1": must be an IPv4 address`,
		},
		{"same port names", func(s *discoveryv1.EndpointSlice) { s.Ports = append(s.Ports, discoveryv1.EndpointPort{}) }, `ports[1].name: Duplicate value: ""`},
	})
	kindtest.UpdateTable(t, k, valid, []kindtest.Change[*discoveryv1.EndpointSlice]{
		{
			"type", func(s *discoveryv1.EndpointSlice) {
				s.AddressType = "FQDN"
				s.Endpoints[0].Addresses[0] = "a.example.com"
			},
			`addressType: Invalid value: "FQDN": field is immutable`,
		},
	})
	local := valid.DeepCopy()
	local.Endpoints[0].Addresses[0] = "127.1.2.3"
	if got := kindtest.Create(kindtest.Find(t, Group(Options{AllowLoopback: true}), "EndpointSlice"), local); got != "" {
		t.Errorf("loopback addresses that are allowed: %s", got)
	}
	for _, a := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"} {
		valid.Endpoints = append(valid.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	if got, want := kindtest.Header(k)+"\n"+kindtest.Row(t, k, valid), "Name | AddressType | Ports | Endpoints | Age\nweb | IPv4 | 80 | 10.0.0.1,10.0.0.2,10.0.0.3 + 1 more... | <unknown>"; got != want {
		t.Errorf("table: %s", got)
	}
}
