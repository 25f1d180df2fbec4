package networking

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/keelson/keelson/apiserver/kinds/internal/kindtest"
)

func ptr[T any](v T) *T { return &v }

func TestIngress(t *testing.T) {
	k := kindtest.Find(t, Group(), "Ingress")
	type ing = *networkingv1.Ingress
	valid := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web"}, Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{
		Host: "a.example.com", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
			Path: "/", PathType: ptr(networkingv1.PathTypePrefix),
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}},
		}}}},
	}}}}
	path := func(i ing) *networkingv1.HTTPIngressPath { return &i.Spec.Rules[0].HTTP.Paths[0] }
	kindtest.CreateTable(t, k, valid, []kindtest.Change[ing]{
		{"nothing", func(i ing) { i.Spec.Rules = nil }, "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"},
		{"address as host", func(i ing) { i.Spec.Rules[0].Host = "1.2.3.4" }, `spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address`},
		{"no path type", func(i ing) { path(i).PathType = nil }, `spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified`},
		{"path", func(i ing) { path(i).Path = "a//b/.." }, `spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must be an absolute path
spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must not contain '//'
spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": cannot end with '/..'`},
		{"no backend", func(i ing) { path(i).Backend = networkingv1.IngressBackend{} }, `spec.rules[0].http.paths[0].backend: Invalid value: "": resource or service backend is required`},
		{"no port", func(i ing) { path(i).Backend.Service.Port.Number = 0 }, `spec.rules[0].http.paths[0].backend.service: Required value: port name or number is required`},
		{"two classes", func(i ing) {
			i.Spec.IngressClassName, i.Annotations = ptr("a"), map[string]string{ingressClassAnnotation: "b"}
		}, `annotations.kubernetes.io/ingress.class: Invalid value: "b": can not be set when the class field is also set`},
	})
	valid.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "10.0.0.1"}, {Hostname: "lb"}}
	valid.Spec.TLS = []networkingv1.IngressTLS{{}}
	if got, want := kindtest.Header(k)+"\n"+kindtest.Row(t, k, valid), "Name | Class | Hosts | Address | Ports | Age\nweb | <none> | a.example.com | 10.0.0.1,lb | 80, 443 | <unknown>"; got != want {
		t.Errorf("table: %s", got)
	}
}

func TestNetworkPolicy(t *testing.T) {
	k := kindtest.Find(t, Group(), "NetworkPolicy")
	type pol = *networkingv1.NetworkPolicy
	valid := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p"}, Spec: networkingv1.NetworkPolicySpec{
		Egress: []networkingv1.NetworkPolicyEgressRule{{
			Ports: []networkingv1.NetworkPolicyPort{{Port: ptr(intstr.FromInt32(53))}},
			To:    []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16"}}}},
		}},
	}}
	kindtest.CreateTable(t, k, valid, []kindtest.Change[pol]{
		{"no peer", func(p pol) { p.Spec.Egress[0].To[0].IPBlock = nil }, `spec.egress[0].to[0]: Required value: must specify a peer`},
		{
			"block and selector", func(p pol) { p.Spec.Egress[0].To[0].PodSelector = &metav1.LabelSelector{} },
			`spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer`,
		},
		{
			"exception", func(p pol) { p.Spec.Egress[0].To[0].IPBlock.Except[0] = "11.0.0.0/16" },
			"spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `10.0.0.0/8`",
		},
		{
			"end port", func(p pol) { p.Spec.Egress[0].Ports[0].EndPort = ptr(int32(50)) },
			"spec.egress[0].ports[0].endPort: Invalid value: 50: must be greater than or equal to `port`",
		},
	})
	p := valid.DeepCopy()
	kindtest.Create(k, p)
	if len(p.Spec.PolicyTypes) != 2 || *p.Spec.Egress[0].Ports[0].Protocol != corev1.ProtocolTCP {
		t.Errorf("defaults: %+v", p.Spec)
	}
}
