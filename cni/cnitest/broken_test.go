package cnitest_test

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/keelson/keelson/cni"
	"github.com/keelson/keelson/cni/cnitest"
	"github.com/keelson/keelson/cni/loopback"
)

type broken struct {
	cni.Network
	setup    func(cni.Network, context.Context, cni.Sandbox) (cni.Result, error)
	teardown func(cni.Network, context.Context, cni.Sandbox) error
}

func (b broken) Setup(ctx context.Context, s cni.Sandbox) (cni.Result, error) {
	if b.setup != nil {
		return b.setup(b.Network, ctx, s)
	}
	return b.Network.Setup(ctx, s)
}

func (b broken) Teardown(ctx context.Context, s cni.Sandbox) error {
	if b.teardown != nil {
		return b.teardown(b.Network, ctx, s)
	}
	return b.Network.Teardown(ctx, s)
}

func TestSuiteFindsBrokenNetworks(t *testing.T) {
	var calls atomic.Int64
	for name, b := range map[string]broken{
		"one address for all": {setup: func(cni.Network, context.Context, cni.Sandbox) (cni.Result, error) {
			return cni.Result{IPs: []netip.Addr{netip.MustParseAddr("127.1.1.1")}}, nil
		}},
		"a new address each time": {setup: func(n cni.Network, ctx context.Context, s cni.Sandbox) (cni.Result, error) {
			s.ID += string(rune('a' + calls.Add(1)%20))
			return n.Setup(ctx, s)
		}},
		"no address": {setup: func(cni.Network, context.Context, cni.Sandbox) (cni.Result, error) { return cni.Result{}, nil }},
		"second teardown fails": {teardown: func(n cni.Network, ctx context.Context, s cni.Sandbox) error {
			if calls.Add(1)%2 == 0 {
				return errors.New("not found")
			}
			return n.Teardown(ctx, s)
		}},
	} {
		n, err := loopback.New(loopback.Options{Prefix: netip.MustParsePrefix("127.70.0.0/24")})
		if err != nil {
			t.Skip(err)
		}
		b.Network = n
		if failures := cnitest.Check(t.Context(), b); len(failures) == 0 {
			t.Errorf("%s: the suite passes it", name)
		}
	}
}

func TestLoopback(t *testing.T) {
	dir := ""
	open := func(t testing.TB) cni.Network {
		n, err := loopback.New(loopback.Options{StateDir: dir})
		if err != nil {
			t.Skip(err)
		}
		return n
	}
	cnitest.Run(t, cnitest.Config{New: func(t testing.TB) cni.Network { dir = t.TempDir(); return open(t) }, Reopen: open})
}
