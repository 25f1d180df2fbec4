package dns

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func zone() *Zone {
	z := NewZone("cluster.local", 5)
	web := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.5", ClusterIPs: []string{"10.96.0.5", "fd00::5"},
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP"}, {Name: "quic", Port: 443, Protocol: "UDP"}},
	}}
	db := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}, Spec: corev1.ServiceSpec{ClusterIP: "None"}}
	none := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "none"}, Spec: corev1.ServiceSpec{ClusterIP: "None"}}
	ext := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "ext"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}}
	for _, s := range []*corev1.Service{web, db, none, ext} {
		z.SetService(s)
	}
	z.SetEndpointSlice(&discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "db-1", Labels: map[string]string{discoveryv1.LabelServiceName: "db"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("sql"), Port: ptr.To[int32](5432), Protocol: ptr.To(corev1.ProtocolTCP)}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.244.0.7"}, Hostname: ptr.To("db-0")},
			{Addresses: []string{"10.244.0.8"}},
			{Addresses: []string{"10.244.0.9"}, Hostname: ptr.To("db-2"), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}},
		},
	})
	return z
}

func TestAnswers(t *testing.T) {
	z := zone()
	for _, tc := range []struct {
		name  string
		qtype uint16
		want  string // the answers' data, or NXDOMAIN, NODATA, ELSEWHERE
	}{
		{"web.shop.svc.cluster.local.", dns.TypeA, "10.96.0.5"},
		{"WEB.Shop.svc.cluster.local.", dns.TypeA, "10.96.0.5"},
		{"web.shop.svc.cluster.local.", dns.TypeAAAA, "fd00::5"},
		{"web.shop.svc.cluster.local.", dns.TypeMX, "NODATA"},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, "0 100 80 web.shop.svc.cluster.local."},
		{"_quic._udp.web.shop.svc.cluster.local.", dns.TypeSRV, "0 100 443 web.shop.svc.cluster.local."},
		{"_quic._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, "NXDOMAIN"},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeA, "NODATA"},
		{"x.web.shop.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"5.0.96.10.in-addr.arpa.", dns.TypePTR, "web.shop.svc.cluster.local."},
		{"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "web.shop.svc.cluster.local."},
		{"6.0.96.10.in-addr.arpa.", dns.TypePTR, "ELSEWHERE"},
		{"db.shop.svc.cluster.local.", dns.TypeA, "10.244.0.7 | 10.244.0.8"},
		{"db.shop.svc.cluster.local.", dns.TypeAAAA, "NODATA"},
		{"db-0.db.shop.svc.cluster.local.", dns.TypeA, "10.244.0.7"},
		{"10-244-0-8.db.shop.svc.cluster.local.", dns.TypeA, "10.244.0.8"},
		{"db-2.db.shop.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"_sql._tcp.db.shop.svc.cluster.local.", dns.TypeSRV, "0 100 5432 db-0.db.shop.svc.cluster.local. | 0 100 5432 10-244-0-8.db.shop.svc.cluster.local."},
		{"7.0.244.10.in-addr.arpa.", dns.TypePTR, "db-0.db.shop.svc.cluster.local."},
		{"none.shop.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"ext.shop.svc.cluster.local.", dns.TypeA, "example.com."},
		{"missing.shop.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"web.other.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"shop.svc.cluster.local.", dns.TypeA, "NODATA"},
		{"svc.cluster.local.", dns.TypeA, "NODATA"},
		{"cluster.local.", dns.TypeA, "NODATA"},
		{"nonsense.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"dns-version.cluster.local.", dns.TypeTXT, `"1.1.0"`},
		{"10-244-0-8.shop.pod.cluster.local.", dns.TypeA, "10.244.0.8"},
		{"junk.shop.pod.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"example.com.", dns.TypeA, "ELSEWHERE"},
		{"notcluster.local.", dns.TypeA, "ELSEWHERE"},
	} {
		if got := text(z.Ask(dns.Question{Name: tc.name, Qtype: tc.qtype, Qclass: dns.ClassINET})); got != tc.want {
			t.Errorf("%s %s: got %s, want %s", tc.name, dns.TypeToString[tc.qtype], got, tc.want)
		}
	}
}

func text(a Answer) string {
	switch {
	case !a.Ours:
		return "ELSEWHERE"
	case a.Rcode == dns.RcodeNameError:
		return "NXDOMAIN"
	case len(a.Answer) == 0:
		return "NODATA"
	}
	var out []string
	for _, rr := range a.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return strings.Join(out, " | ")
}

func TestChanges(t *testing.T) {
	z := zone()
	ask := func(name string, qtype uint16) string {
		return text(z.Ask(dns.Question{Name: name, Qtype: qtype, Qclass: dns.ClassINET}))
	}
	z.DeleteService("shop", "web")
	if got := []string{ask("web.shop.svc.cluster.local.", dns.TypeA), ask("5.0.96.10.in-addr.arpa.", dns.TypePTR)}; !slices.Equal(got, []string{"NXDOMAIN", "ELSEWHERE"}) {
		t.Errorf("deleted Service: %v", got)
	}
	z.DeleteEndpointSlice(&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db-1", Labels: map[string]string{discoveryv1.LabelServiceName: "db"}}})
	if got := ask("db-0.db.shop.svc.cluster.local.", dns.TypeA); got != "NXDOMAIN" {
		t.Errorf("deleted slice: %v", got)
	}
	for _, s := range []string{"db", "none", "ext"} {
		z.DeleteService("shop", s)
	}
	if got := ask("shop.svc.cluster.local.", dns.TypeA); got != "NXDOMAIN" {
		t.Errorf("empty namespace: %v", got)
	}
	if d := cmp.Diff([]int{0, 0, 0}, []int{len(z.services), len(z.namespaces), len(z.byIP)}); d != "" {
		t.Error(d)
	}
}

func FuzzAsk(f *testing.F) {
	f.Add("web.shop.svc.cluster.local.", uint16(1))
	f.Add("..svc.cluster.local.", uint16(33))
	f.Add("1.2.ip6.arpa.", uint16(12))
	f.Add("_._.web.shop.svc.cluster.local.", uint16(33))
	z := zone()
	f.Fuzz(func(t *testing.T, name string, qtype uint16) {
		a := z.Ask(dns.Question{Name: name, Qtype: qtype, Qclass: dns.ClassINET})
		if !a.Ours && len(a.Answer) > 0 {
			t.Errorf("%q: answers for a name that is not ours", name)
		}
	})
}
