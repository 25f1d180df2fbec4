package bridge_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/keelson/keelson/cni"
	"github.com/keelson/keelson/cni/bridge"
	"github.com/keelson/keelson/cni/cnitest"
)

// inNamespace gives the test a network namespace of its own as its host. The thread is not given back.
func inNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		runtime.UnlockOSThread()
		if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") != "" {
			t.Fatalf("needs CAP_SYS_ADMIN to make network namespaces: %v", err)
		}
		t.Skipf("needs CAP_SYS_ADMIN to make network namespaces: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
}

// podNamespace makes a namespace and returns its path, while the thread stays where it is.
func podNamespace(t testing.TB) string {
	t.Helper()
	host, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	pod, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Set(host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pod.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(pod))
}

// dial and listen run f in the namespace at path.
func within(t testing.TB, path string, f func()) {
	t.Helper()
	host, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
	f()
	if err := netns.Set(host); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string) *bridge.Network {
	t.Helper()
	n, err := bridge.New(bridge.Options{PodCIDR: netip.MustParsePrefix("10.99.1.0/24"), StateDir: filepath.Join(dir, "ipam"), Bridge: "kltest0"})
	if err != nil {
		if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return n
}

// TestSuite runs without subtest goroutines of the suite leaving the namespace: netlink handles are bound to the
// thread's namespace at New, nftables is run from the calling thread.
func TestSuite(t *testing.T) {
	inNamespace(t)
	n := open(t, t.TempDir())
	for name, err := range cnitest.CheckIn(t.Context(), n, func() string { return podNamespace(t) }) {
		t.Errorf("%s: %v", name, err)
	}
}

func TestPodsReachEachOther(t *testing.T) {
	inNamespace(t)
	if lo, err := netlink.LinkByName("lo"); err != nil || netlink.LinkSetUp(lo) != nil {
		t.Fatal("lo up")
	}
	n := open(t, t.TempDir())
	a := cni.Sandbox{ID: "a", Name: "a", NetNS: podNamespace(t)}
	b := cni.Sandbox{
		ID: "b", Name: "b", NetNS: podNamespace(t),
		HostPorts: []cni.HostPort{{HostPort: 18080, ContainerPort: 8080, Protocol: "TCP"}},
	}
	ra, err := n.Setup(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	rb, err := n.Setup(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	within(t, b.NetNS, func() {
		if l, err = net.Listen("tcp", "0.0.0.0:8080"); err != nil {
			t.Fatal(err)
		}
	})
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			} else if err == nil {
				fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		}
	}()
	defer l.Close()
	ask := func(addr string) string {
		c, err := net.DialTimeout("tcp", addr, 3*time.Second)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			return ""
		}
		defer c.Close()
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil && err != io.EOF {
			t.Errorf("%s: %v", addr, err)
		}
		return line
	}
	within(t, a.NetNS, func() {
		if got, want := ask(rb.IPs[0].String()+":8080"), ra.IPs[0].String()+"\n"; got != want {
			t.Errorf("pod to pod: seen as %q, want %q", got, want)
		}
		if got := ask(n.Gateway().String() + ":18080"); got == "" {
			t.Error("pod to host port: no answer")
		}
	})
	if got := ask(rb.IPs[0].String() + ":8080"); got == "" {
		t.Error("node to pod: no answer")
	}
	if got := ask("127.0.0.1:18080"); got == "" {
		t.Error("node to host port on loopback: no answer")
	}
	if err := n.Teardown(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if c, err := net.DialTimeout("tcp", n.Gateway().String()+":18080", 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("host port still open after Teardown")
	}
	if err := n.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []bridge.Options{
		{},
		{PodCIDR: netip.MustParsePrefix("10.99.1.0/24")},
		{PodCIDR: netip.MustParsePrefix("fd00::/64"), StateDir: "x"},
		{PodCIDR: netip.MustParsePrefix("10.99.1.0/24"), StateDir: "x", MTU: 5},
		{PodCIDR: netip.MustParsePrefix("10.99.1.0/24"), StateDir: "x", Bridge: "a-name-that-is-too-long"},
	} {
		if _, err := bridge.New(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}
