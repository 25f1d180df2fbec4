//go:build !linux

package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/keelson/keelson/cni"
)

// Network implements cni.Network on Linux.
type Network struct{}

var _ cni.Network = (*Network)(nil)

var errLinux = errors.New("cni/bridge: needs Linux")

// New fails: bridges are Linux's.
func New(opts Options) (*Network, error) {
	return nil, fmt.Errorf("%w, this is %s; use cni/plugin or host networking", errLinux, runtime.GOOS)
}

// Setup implements cni.Network.
func (*Network) Setup(context.Context, cni.Sandbox) (cni.Result, error) {
	return cni.Result{}, errLinux
}

// Teardown implements cni.Network.
func (*Network) Teardown(context.Context, cni.Sandbox) error { return errLinux }

// Status implements cni.Network.
func (*Network) Status(context.Context) error { return errLinux }

// EnsureBridge fails.
func (*Network) EnsureBridge(context.Context) error { return errLinux }

// Gateway is no address.
func (*Network) Gateway() netip.Addr { return netip.Addr{} }

// Remove fails.
func (*Network) Remove(context.Context) error { return errLinux }
