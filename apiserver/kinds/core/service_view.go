package core

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/apiserver/kind"
)

var (
	errAddressTaken = errors.New("provided IP is already allocated")
	errPortTaken    = errors.New("provided port is already allocated")
	errNoRange      = errors.New("no range of its family is configured")
	errNoPorts      = errors.New("no range of node ports is configured")
)

// refresh reads the view from the store if it is out of date, or in any case if force is set.
func (a *serviceAllocator) refresh(ctx context.Context, access kind.Access, force bool) error {
	if access == nil {
		return nil // nothing is stored that could be read
	}
	a.fill.Lock()
	defer a.fill.Unlock()
	a.mu.Lock()
	if a.view.fresh && !force {
		a.mu.Unlock()
		return nil
	}
	a.view.reading, a.view.recent = true, map[string]bool{}
	a.mu.Unlock()
	objs, err := access.List(ctx, serviceGVK, "")
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view.reading = false
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, obj := range objs {
		if s, ok := obj.(*corev1.Service); ok {
			for _, claim := range claims(s) {
				taken[claim] = true
			}
		}
	}
	for claim, isTaken := range a.view.recent {
		taken[claim] = isTaken
	}
	for claim := range a.view.held {
		taken[claim] = true
	}
	a.reset(taken)
	a.view.fresh, a.view.recent = true, nil
	return nil
}

func (a *serviceAllocator) reset(taken map[string]bool) {
	var ips []netip.Addr
	var ports []int32
	for claim, isTaken := range taken {
		if !isTaken {
			continue
		}
		if text, ok := strings.CutPrefix(claim, "serviceips/"); ok {
			if ip, err := netip.ParseAddr(text); err == nil {
				ips = append(ips, ip)
			}
			continue
		}
		var port int32
		if _, err := fmt.Sscanf(claim, "servicenodeports/%d", &port); err == nil {
			ports = append(ports, port)
		}
	}
	for _, r := range a.ranges {
		r.Reset(ips)
	}
	if a.ports != nil {
		a.ports.Reset(ports)
	}
}

// outdated makes the next request read the view again.
func (a *serviceAllocator) outdated() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view.fresh = false
}

// free gives back what before had and s, if any, has not.
func (a *serviceAllocator) free(before, s *corev1.Service) {
	kept := map[string]bool{}
	if s != nil {
		for _, claim := range claims(s) {
			kept[claim] = true
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, claim := range claims(before) {
		if !kept[claim] && a.view.held[claim] == 0 {
			a.release(claim)
			if a.view.reading {
				a.view.recent[claim] = false
			}
		}
	}
}

func (a *serviceAllocator) release(claim string) {
	if text, ok := strings.CutPrefix(claim, "serviceips/"); ok {
		if ip, err := netip.ParseAddr(text); err == nil {
			for _, r := range a.ranges {
				if r.Prefix().Contains(ip) {
					r.Release(ip)
				}
			}
		}
		return
	}
	var port int32
	if _, err := fmt.Sscanf(claim, "servicenodeports/%d", &port); err == nil && a.ports != nil {
		a.ports.Release(port)
	}
}

// twice runs f, and if it fails once more on a view that was read anew: what is in the way may be gone.
func (al *allocation) twice(f func() error) error {
	err := al.locked(f)
	if err == nil || al.access == nil {
		return err
	}
	if refreshErr := al.a.refresh(al.ctx, al.access, true); refreshErr != nil {
		return refreshErr
	}
	return al.locked(f)
}

func (al *allocation) locked(f func() error) error {
	al.a.mu.Lock()
	defer al.a.mu.Unlock()
	return f()
}

func (al *allocation) takeAddress(r AddressAllocator, ip netip.Addr) error {
	if r == nil {
		return errNoRange
	}
	if !r.Prefix().Contains(ip.Unmap()) {
		return errors.New("the provided network does not match the current range")
	}
	return al.twice(func() error {
		if err := r.Allocate(ip); err != nil {
			return errAddressTaken
		}
		al.hold(ip)
		return nil
	})
}

func (al *allocation) nextAddress(r AddressAllocator) (ip netip.Addr, err error) {
	err = al.twice(func() error {
		var err error
		if ip, err = r.AllocateNext(); err == nil {
			al.hold(ip)
		}
		return err
	})
	return ip, err
}

func (al *allocation) hold(ip netip.Addr) {
	al.ips = append(al.ips, ip)
	al.a.view.held[ipClaim(ip)]++
}

func (al *allocation) takePort(port int32) error {
	if al.a.ports == nil {
		return errNoPorts
	}
	if first, last := al.a.ports.Range(); port < first || port > last {
		return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %d-%d", first, last)
	}
	return al.twice(func() error {
		if err := al.a.ports.Allocate(port); err != nil {
			return errPortTaken
		}
		al.holdPort(port)
		return nil
	})
}

func (al *allocation) nextPort() (port int32, err error) {
	if al.a.ports == nil {
		return 0, errNoPorts
	}
	err = al.twice(func() error {
		var err error
		if port, err = al.a.ports.AllocateNext(); err == nil {
			al.holdPort(port)
		}
		return err
	})
	return port, err
}

func (al *allocation) holdPort(port int32) {
	al.ports = append(al.ports, port)
	al.a.view.held[portClaim(port)]++
}

// settle: what was taken is now stored.
func (al *allocation) settle() { al.end(true) }

// giveBack frees what was taken for a request that came to nothing.
func (al *allocation) giveBack() { al.end(false) }

func (al *allocation) end(stored bool) {
	al.a.mu.Lock()
	defer al.a.mu.Unlock()
	one := func(claim string) {
		if al.a.view.held[claim]--; al.a.view.held[claim] <= 0 {
			delete(al.a.view.held, claim)
		}
		if !stored {
			al.a.release(claim)
		}
		if al.a.view.reading {
			al.a.view.recent[claim] = stored
		}
	}
	for _, ip := range al.ips {
		one(ipClaim(ip))
	}
	for _, port := range al.ports {
		one(portClaim(port))
	}
	al.ips, al.ports = nil, nil
}
