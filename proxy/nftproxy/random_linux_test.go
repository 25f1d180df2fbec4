package nftproxy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/proxy"
	"github.com/keelson/keelson/proxy/nftproxy"
)

// TestIncrementalEqualsFull applies random changes one by one and compares the kernel's table with one made in a single full change.
func TestIncrementalEqualsFull(t *testing.T) {
	host(t)
	r := rand.New(rand.NewPCG(3, 4))
	opts := nftproxy.Options{ClusterCIDR: []netip.Prefix{netip.MustParsePrefix("10.50.0.0/16")}}
	opts.Table = "step"
	steps, err := nftproxy.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	opts.Table = "full"
	full, err := nftproxy.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	have := map[proxy.Key]proxy.ServicePort{}
	for i := range 40 {
		c := proxy.Change{Full: i == 0}
		for range 1 + r.IntN(3) {
			sp := randomPort(r)
			if slices.ContainsFunc(c.Set, func(o proxy.ServicePort) bool { return o.Key == sp.Key }) || slices.Contains(c.Removed, sp.Key) {
				continue
			}
			if r.IntN(4) == 0 {
				c.Removed = append(c.Removed, sp.Key)
				delete(have, sp.Key)
				continue
			}
			c.Set = append(c.Set, sp)
			have[sp.Key] = sp
		}
		if err := steps.Apply(t.Context(), c); err != nil {
			t.Fatalf("step %d: %v\n%+v", i, err, c)
		}
		all := proxy.Change{Full: true}
		for _, sp := range have {
			all.Set = append(all.Set, sp)
		}
		if err := full.Apply(t.Context(), all); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if d := cmp.Diff(dump(t, "full"), dump(t, "step")); d != "" {
			t.Fatalf("step %d: after %+v:\n%s", i, c, d)
		}
	}
	if err := steps.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("nft", "list", "table", "ip", "step").Output(); err == nil {
		t.Errorf("after Cleanup: %s", out)
	}
}

// randomPort draws Services whose addresses don't collide: the API server gives each its own.
func randomPort(r *rand.Rand) proxy.ServicePort {
	n := r.IntN(6)
	sp := proxy.ServicePort{
		Key:       proxy.Key{Namespace: "ns", Name: fmt.Sprint("s", n), Protocol: []corev1.Protocol{"TCP", "UDP"}[n%2]},
		ClusterIP: netip.AddrFrom4([4]byte{10, 96, 1, byte(n)}), Port: uint16(80 + r.IntN(2)),
	}
	endpoints := func() (out []netip.AddrPort) {
		for i := range r.IntN(4) {
			out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 50, 1, byte(i)}), 8080))
		}
		return out
	}
	sp.Internal = endpoints()
	if r.IntN(3) == 0 {
		sp.Affinity = time.Duration(1+r.IntN(2)) * time.Hour
	}
	if r.IntN(2) == 0 {
		sp.NodePort, sp.KeepSource = uint16(30000+n), r.IntN(2) == 0
		sp.External, sp.Cluster = endpoints(), sp.Internal
		if !sp.KeepSource {
			sp.External = sp.Internal
		}
		if r.IntN(2) == 0 {
			sp.LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})}
			sp.SourceRanges = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
		}
	}
	return sp
}

func dump(t *testing.T, table string) []string {
	t.Helper()
	out, err := exec.Command("nft", "-s", "list", "table", "ip", table).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text := strings.ReplaceAll(string(out), "table ip "+table, "table")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "elements = {", "elements = {\n"), ", ", ",\n")
	var lines []string
	for _, l := range strings.Split(text, "\n") {
		if l = strings.Trim(l, " \t,}{"); l != "" {
			lines = append(lines, l)
		}
	}
	slices.Sort(lines)
	return lines
}
