package routes

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func node(name, ip, cidr string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: cidr}}
	if ip != "" {
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}}
	}
	return n
}

func TestPlan(t *testing.T) {
	own, peers := Plan("b", []*corev1.Node{
		node("d", "10.0.0.4", "10.244.2.0/24"), node("c", "10.0.0.3", "10.244.2.0/24"), node("a", "10.0.0.1", "10.244.0.0/24"),
		node("b", "10.0.0.2", "10.244.1.0/24"), node("new", "10.0.0.9", ""), node("lost", "", "10.244.9.0/24"),
	})
	wantOwn := Peer{netip.MustParseAddr("10.0.0.2"), netip.MustParsePrefix("10.244.1.0/24")}
	want := []Peer{
		{netip.MustParseAddr("10.0.0.1"), netip.MustParsePrefix("10.244.0.0/24")},
		{netip.MustParseAddr("10.0.0.3"), netip.MustParsePrefix("10.244.2.0/24")},
	}
	if own != wantOwn {
		t.Errorf("own = %v, want %v", own, wantOwn)
	}
	if d := cmp.Diff(want, peers, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {NodeName: "a", Mode: "tunnel"}, {NodeName: "a", VNI: -1}, {NodeName: "a", Device: "sixteen-letters-"}} {
		if _, err := New(nil, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}
