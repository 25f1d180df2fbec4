package ipalloc

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
)

func TestAddressesBounds(t *testing.T) {
	for _, tc := range []struct {
		prefix      string
		size        uint64
		first, last string
		outside     []string
	}{
		{"10.0.0.0/24", 254, "10.0.0.1", "10.0.0.254", []string{"10.0.0.0", "10.0.0.255", "10.0.1.1", "::1"}},
		{"10.0.0.0/30", 2, "10.0.0.1", "10.0.0.2", []string{"10.0.0.3"}},
		{"127.200.0.0/16", 65534, "127.200.0.1", "127.200.255.254", []string{"127.0.0.1"}},
		{"fd00::/108", 1<<20 - 1, "fd00::1", "fd00::f:ffff", []string{"fd00::", "fd00::10:0", "10.0.0.1"}},
	} {
		a, err := NewAddresses(netip.MustParsePrefix(tc.prefix))
		if err != nil {
			t.Fatal(err)
		}
		if a.Size() != tc.size {
			t.Errorf("%s: size %d, want %d", tc.prefix, a.Size(), tc.size)
		}
		for _, ip := range []string{tc.first, tc.last} {
			if err := a.Allocate(netip.MustParseAddr(ip)); err != nil {
				t.Errorf("%s: %s: %v", tc.prefix, ip, err)
			}
			if err := a.Allocate(netip.MustParseAddr(ip)); !errors.Is(err, ErrAllocated) {
				t.Errorf("%s: %s twice: %v", tc.prefix, ip, err)
			}
		}
		for _, ip := range tc.outside {
			if err := a.Allocate(netip.MustParseAddr(ip)); !errors.Is(err, ErrRange) {
				t.Errorf("%s: %s: %v, want ErrRange", tc.prefix, ip, err)
			}
		}
	}
	for _, bad := range []string{"10.0.0.0/31", "10.0.0.0/32"} {
		if _, err := NewAddresses(netip.MustParsePrefix(bad)); err == nil {
			t.Errorf("%s accepted", bad)
		}
	}
	if _, err := NewAddresses(netip.Prefix{}); err == nil {
		t.Error("the zero prefix accepted")
	}
}

func TestAddressesExhaust(t *testing.T) {
	a, err := NewAddresses(netip.MustParsePrefix("10.1.0.0/26"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]bool{}
	for i := range 62 {
		ip, err := a.AllocateNext()
		if err != nil {
			t.Fatalf("allocation %d: %v", i, err)
		}
		if seen[ip] || !a.Prefix().Contains(ip) {
			t.Fatalf("allocation %d: %s again or outside", i, ip)
		}
		// The lower 16 are for those who ask by name, until nothing else is left.
		if i < 46 && ip.As4()[3] <= 16 {
			t.Fatalf("allocation %d took %s from the static part", i, ip)
		}
		seen[ip] = true
	}
	if _, err := a.AllocateNext(); !errors.Is(err, ErrFull) {
		t.Fatalf("full range: %v", err)
	}
	a.Release(netip.MustParseAddr("10.1.0.7"))
	if ip, err := a.AllocateNext(); err != nil || ip.String() != "10.1.0.7" {
		t.Fatalf("after release: %s, %v", ip, err)
	}
}

func TestPorts(t *testing.T) {
	if _, err := NewPorts(30000, 29999); err == nil {
		t.Error("reversed range accepted")
	}
	p, err := NewPorts(30000, 32767)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Allocate(29999); !errors.Is(err, ErrRange) {
		t.Error(err)
	}
	if err := p.Allocate(30000); err != nil {
		t.Error(err)
	}
	if err := p.Allocate(30000); !errors.Is(err, ErrAllocated) {
		t.Error(err)
	}
	port, err := p.AllocateNext()
	if err != nil || port < 30086 || port > 32767 {
		t.Errorf("port %d, %v: want one above the static part", port, err)
	}
	p.Reset([]int32{31000, 1})
	if p.Has(30000) || !p.Has(31000) || p.Len() != 1 {
		t.Error("reset does not replace what was taken")
	}
}

// TestConcurrent runs random operations from many goroutines; no value is ever given to two.
func TestConcurrent(t *testing.T) {
	p, err := NewPorts(1000, 1200)
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		owner = map[int32]int{}
		wg    sync.WaitGroup
	)
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			var mine []int32
			for range 2000 {
				if len(mine) > 0 && r.IntN(2) == 0 {
					port := mine[len(mine)-1]
					mine = mine[:len(mine)-1]
					mu.Lock()
					delete(owner, port)
					mu.Unlock()
					p.Release(port)
					continue
				}
				port, err := p.AllocateNext()
				if r.IntN(3) == 0 && err == nil {
					p.Release(port)
					port = 1000 + r.Int32N(201)
					err = p.Allocate(port)
				}
				if err != nil {
					continue
				}
				mu.Lock()
				if other, taken := owner[port]; taken {
					t.Errorf("port %d given to %d and %d", port, other, g)
				}
				owner[port] = g
				mu.Unlock()
				mine = append(mine, port)
			}
		})
	}
	wg.Wait()
	if p.Len() != len(owner) {
		t.Errorf("%d taken, %d owned", p.Len(), len(owner))
	}
}
