package nodeipam_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/nodeipam"
)

func node(name, cidr string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if cidr != "" {
		n.Spec.PodCIDR, n.Spec.PodCIDRs = cidr, []string{cidr}
	}
	return n
}

func cidrs(e *controllertest.Env) string {
	var out []string
	for _, n := range controllertest.All[*corev1.Node](e.Cluster) {
		out = append(out, n.Name+"="+strings.Join(n.Spec.PodCIDRs, ","))
	}
	return strings.Join(out, " ")
}

func TestAllocation(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		ctl, err := nodeipam.New(e.Client, e.Cache, nodeipam.Options{
			ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/22")},
			Reserved:     []netip.Prefix{netip.MustParsePrefix("10.0.3.128/25")},
		})
		e.Check(err)
		e.Start(ctl.Run)
		e.Settle()
		e.Create(node("b", ""))
		e.Settle()
		e.Create(node("c", ""))
		e.Settle()
		if got := cidrs(e); got != "a=10.0.1.0/24 b=10.0.0.0/24 c=10.0.2.0/24" {
			t.Fatal(got)
		}
		e.Create(node("d", ""))
		e.Settle()
		if got := cidrs(e); !strings.HasSuffix(got, " d=") {
			t.Fatal(got)
		}
		if ev := e.Events(); len(ev) != 1 || ev[0] != "CIDRNotAvailable: Node d status is now: CIDRNotAvailable" {
			t.Error(ev)
		}
		e.Cluster.Remove(node("a", ""))
		e.Advance(time.Minute)
		if got := cidrs(e); got != "b=10.0.0.0/24 c=10.0.2.0/24 d=10.0.1.0/24" {
			t.Error(got)
		}
	}, node("a", "10.0.1.0/24"))
}

func TestManyNodes(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		ctl, err := nodeipam.New(e.Client, e.Cache, nodeipam.Options{
			ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/56")},
		})
		e.Check(err)
		e.Start(ctl.Run)
		for i := range 200 {
			e.Create(node(fmt.Sprint("n", i), ""))
		}
		e.Settle()
		seen := map[string]bool{}
		for _, n := range controllertest.All[*corev1.Node](e.Cluster) {
			if len(n.Spec.PodCIDRs) != 2 || n.Spec.PodCIDR != n.Spec.PodCIDRs[0] || seen[n.Spec.PodCIDRs[0]] || seen[n.Spec.PodCIDRs[1]] {
				t.Fatalf("%s has %v", n.Name, n.Spec.PodCIDRs)
			}
			seen[n.Spec.PodCIDRs[0]], seen[n.Spec.PodCIDRs[1]] = true, true
		}
	})
}

func TestNewRefuses(t *testing.T) {
	for _, o := range []nodeipam.Options{
		{},
		{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("11.0.0.0/8")}},
		{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/25")}},
	} {
		if _, err := nodeipam.New(controllertest.NewCluster().Client(), nil, o); err == nil || !strings.HasPrefix(err.Error(), "nodeipam: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
