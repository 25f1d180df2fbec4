package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
)

func TestPool(t *testing.T) {
	dir := t.TempDir()
	p, err := Open(dir, netip.MustParsePrefix("10.1.2.0/29"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[netip.Addr]bool{}
	for i := range 5 { // .2 to .6
		a, err := p.Acquire(fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		if got[a] || a == p.Gateway() || a == netip.MustParseAddr("10.1.2.7") || a == netip.MustParseAddr("10.1.2.0") {
			t.Errorf("handed out %v", a)
		}
		got[a] = true
	}
	if _, err := p.Acquire("more"); !errors.Is(err, ErrExhausted) {
		t.Errorf("full pool: %v", err)
	}
	first, _ := p.Lookup("0")
	if again, _ := p.Acquire("0"); again != first {
		t.Errorf("Acquire is not idempotent: %v, %v", first, again)
	}
	if a, err := p.Release("3"); err != nil || !a.IsValid() {
		t.Errorf("Release: %v, %v", a, err)
	}
	if a, err := p.Release("3"); err != nil || a.IsValid() {
		t.Errorf("second Release: %v, %v", a, err)
	}
	q, err := Open(dir, netip.MustParsePrefix("10.1.2.0/29"))
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := q.Lookup("0"); !ok || a != first {
		t.Errorf("after reopening: %v, %v; want %v", a, ok, first)
	}
	if _, ok := q.Lookup("3"); ok {
		t.Error("a released address came back")
	}
	if a, err := q.Acquire("new"); err != nil || !got[a] {
		t.Errorf("after reopening: %v, %v", a, err)
	}
}

func TestPoolConcurrent(t *testing.T) {
	p, err := Open("", netip.MustParsePrefix("127.20.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[netip.Addr]string{}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				id := fmt.Sprint(g, "-", i)
				a, err := p.Acquire(id)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if o, dup := seen[a]; dup {
					t.Errorf("%v given to %s and %s", a, o, id)
				}
				seen[a] = id
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestPoolRefuses(t *testing.T) {
	for _, s := range []string{"10.0.0.1/32", "10.0.0.0/31"} {
		if _, err := Open("", netip.MustParsePrefix(s)); err == nil {
			t.Errorf("%s: no error", s)
		}
	}
}
