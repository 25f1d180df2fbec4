// Package cnitest is the suite for implementations of cni.Network.
package cnitest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/keelson/keelson/cni"
)

// Config describes the implementation under test.
type Config struct {
	// New returns a network with nothing attached.
	New func(t testing.TB) cni.Network
	// Reopen returns a network on the state of the last one, as after a restart of the process; nil if nothing is kept.
	Reopen func(t testing.TB) cni.Network
	// NetNS makes a network namespace and returns its path; nil for networks that need none.
	NetNS func(t testing.TB) string
}

type check struct {
	name string
	run  func(ctx context.Context, c *checker) error
}

type checker struct {
	n      cni.Network
	reopen func() cni.Network
	netns  func() string
}

func (c *checker) sandbox(id string) cni.Sandbox {
	s := cni.Sandbox{ID: id, Namespace: "default", Name: "pod-" + id, UID: "uid-" + id}
	if c.netns != nil {
		s.NetNS = c.netns()
	}
	return s
}

// Run tests an implementation, one bounded subtest a sentence of the contract.
func Run(t *testing.T, cfg Config) {
	for _, ch := range checks {
		t.Run(ch.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c := &checker{n: cfg.New(t)}
			if cfg.Reopen != nil {
				c.reopen = func() cni.Network { return cfg.Reopen(t) }
			}
			if cfg.NetNS != nil {
				c.netns = func() string { return cfg.NetNS(t) }
			}
			if err := ch.run(ctx, c); err != nil {
				t.Error(err)
			}
		})
	}
}

// Check runs every check on n and returns the failures by name; for testing the suite itself.
func Check(ctx context.Context, n cni.Network) map[string]error { return CheckIn(ctx, n, nil) }

// CheckIn is Check for networks that need namespaces, which netns makes. Everything but the check of concurrency runs on the
// calling goroutine, so that a test may lock it to a thread in a namespace of its own.
func CheckIn(ctx context.Context, n cni.Network, netns func() string) map[string]error {
	out := map[string]error{}
	for _, ch := range checks {
		if err := ch.run(ctx, &checker{n: n, netns: netns}); err != nil {
			out[ch.name] = err
		}
	}
	return out
}

var checks = []check{
	{"addresses are distinct", distinct},
	{"setup is idempotent", idempotentSetup},
	{"teardown is idempotent", idempotentTeardown},
	{"a torn down sandbox can be set up again", again},
	{"concurrent sandboxes", concurrent},
	{"survives a restart", restart},
	{"status", func(ctx context.Context, c *checker) error { return c.n.Status(ctx) }},
}

func one(r cni.Result, err error) (netip.Addr, error) {
	if err != nil {
		return netip.Addr{}, err
	}
	if len(r.IPs) == 0 || !r.IPs[0].IsValid() {
		return netip.Addr{}, fmt.Errorf("result %+v has no address", r)
	}
	if len(r.IPs) > 2 || len(r.IPs) == 2 && r.IPs[0].Is4() == r.IPs[1].Is4() {
		return netip.Addr{}, fmt.Errorf("addresses %v: want at most one a family", r.IPs)
	}
	return r.IPs[0], nil
}

func distinct(ctx context.Context, c *checker) (err error) {
	seen := map[netip.Addr]string{}
	for i := range 5 {
		s := c.sandbox(fmt.Sprint("distinct", i))
		defer func() { err = errors.Join(err, c.n.Teardown(ctx, s)) }()
		a, err := one(c.n.Setup(ctx, s))
		if err != nil {
			return err
		}
		if other, dup := seen[a]; dup {
			return fmt.Errorf("%s and %s both have %v", other, s.ID, a)
		}
		seen[a] = s.ID
	}
	return nil
}

func idempotentSetup(ctx context.Context, c *checker) (err error) {
	s := c.sandbox("twice")
	defer func() { err = errors.Join(err, c.n.Teardown(ctx, s)) }()
	a, err := one(c.n.Setup(ctx, s))
	if err != nil {
		return err
	}
	b, err := one(c.n.Setup(ctx, s))
	if err != nil {
		return fmt.Errorf("second Setup: %w", err)
	}
	if a != b {
		return fmt.Errorf("second Setup gave %v, first %v", b, a)
	}
	return nil
}

func idempotentTeardown(ctx context.Context, c *checker) error {
	s := c.sandbox("gone")
	if err := c.n.Teardown(ctx, s); err != nil {
		return fmt.Errorf("Teardown of what was never set up: %w", err)
	}
	if _, err := one(c.n.Setup(ctx, s)); err != nil {
		return err
	}
	for i := range 2 {
		if err := c.n.Teardown(ctx, s); err != nil {
			return fmt.Errorf("Teardown %d: %w", i+1, err)
		}
	}
	s.NetNS = "/proc/0/ns/net" // gone with its last process
	if err := c.n.Teardown(ctx, s); err != nil {
		return fmt.Errorf("Teardown without the namespace: %w", err)
	}
	return nil
}

func again(ctx context.Context, c *checker) error {
	s := c.sandbox("again")
	for range 3 {
		if _, err := one(c.n.Setup(ctx, s)); err != nil {
			return err
		}
		if err := c.n.Teardown(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func concurrent(ctx context.Context, c *checker) error {
	type result struct {
		s    cni.Sandbox
		addr netip.Addr
		err  error
	}
	const many = 8
	results := make(chan result, many)
	for i := range many {
		s := c.sandbox(fmt.Sprint("concurrent", i))
		go func() {
			a, err := one(c.n.Setup(ctx, s))
			results <- result{s, a, err}
		}()
	}
	var errs []error
	seen := map[netip.Addr]bool{}
	for range many {
		r := <-results
		errs = append(errs, r.err)
		if r.err == nil && seen[r.addr] {
			errs = append(errs, fmt.Errorf("%v given twice", r.addr))
		}
		seen[r.addr] = true
		defer func() { _ = c.n.Teardown(ctx, r.s) }()
	}
	return errors.Join(errs...)
}

func restart(ctx context.Context, c *checker) error {
	if c.reopen == nil {
		return nil
	}
	s := c.sandbox("old")
	a, err := one(c.n.Setup(ctx, s))
	if err != nil {
		return err
	}
	n := c.reopen()
	b, err := one(n.Setup(ctx, s))
	if err != nil {
		return err
	}
	if a != b {
		return fmt.Errorf("%v became %v", a, b)
	}
	other, err := one(n.Setup(ctx, c.sandbox("new")))
	if err != nil {
		return err
	}
	if other == a {
		return fmt.Errorf("%v given to a second sandbox", a)
	}
	return errors.Join(n.Teardown(ctx, s), n.Teardown(ctx, cni.Sandbox{ID: "new"}))
}
