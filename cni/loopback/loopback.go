// Package loopback is a pod network that needs no privilege: each sandbox gets an address of its own out of a
// range in 127/8, all of which Linux delivers to the host itself.
//
// A program that listens on its pod's address (the downward API's status.podIP) can use a port that its
// neighbours use too. A program that listens on every address takes that port for the whole host.
package loopback

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/keelson/keelson/cni"
	"github.com/keelson/keelson/cni/internal/ipam"
)

// Options of New. The zero value is usable.
type Options struct {
	// Prefix pods' addresses come from; it must lie in 127.0.0.0/8. Default 127.64.0.0/16.
	Prefix netip.Prefix
	// StateDir remembers addresses over restarts; empty keeps them in memory.
	StateDir string
}

// Network implements cni.Network.
type Network struct{ pool *ipam.Pool }

var _ cni.Network = (*Network)(nil)

// New returns a network over opts.Prefix.
func New(opts Options) (*Network, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("cni/loopback: %s delivers only 127.0.0.1 to itself; use host networking", runtime.GOOS)
	}
	if !opts.Prefix.IsValid() {
		opts.Prefix = netip.MustParsePrefix("127.64.0.0/16")
	}
	if loop := netip.MustParsePrefix("127.0.0.0/8"); !loop.Overlaps(opts.Prefix) || opts.Prefix.Bits() < 8 {
		return nil, fmt.Errorf("cni/loopback: Options.Prefix %v: want a range within 127.0.0.0/8", opts.Prefix)
	}
	pool, err := ipam.Open(opts.StateDir, opts.Prefix)
	if err != nil {
		return nil, err
	}
	return &Network{pool: pool}, nil
}

// NeedsNetNS reports that sandboxes stay in the host's network namespace.
func (n *Network) NeedsNetNS() bool { return false }

// Setup implements cni.Network. Host ports are refused: a pod's ports are the host's already.
func (n *Network) Setup(ctx context.Context, s cni.Sandbox) (cni.Result, error) {
	if err := ctx.Err(); err != nil {
		return cni.Result{}, err
	}
	if len(s.HostPorts) > 0 {
		return cni.Result{}, fmt.Errorf("cni/loopback: pod %s/%s: host ports need a network with privilege", s.Namespace, s.Name)
	}
	a, err := n.pool.Acquire(s.ID)
	if err != nil {
		return cni.Result{}, err
	}
	return cni.Result{IPs: []netip.Addr{a}}, nil
}

// Teardown implements cni.Network.
func (n *Network) Teardown(_ context.Context, s cni.Sandbox) error {
	_, err := n.pool.Release(s.ID)
	return err
}

// Status implements cni.Network.
func (n *Network) Status(context.Context) error { return nil }
