//go:build !linux

package nftproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/go-logr/logr"

	"github.com/keelson/keelson/proxy"
)

var errLinux = errors.New("nftproxy: needs Linux")

// Options of New.
type Options struct {
	Table          string
	ClusterCIDR    []netip.Prefix
	MasqueradeMark uint32
	Logger         logr.Logger
}

// Backend implements proxy.Backend on Linux.
type Backend struct{}

var _ proxy.Backend = (*Backend)(nil)

// New fails: nftables is Linux's.
func New(Options) (*Backend, error) {
	return nil, fmt.Errorf("%w, this is %s; use userproxy", errLinux, runtime.GOOS)
}

// Apply implements proxy.Backend.
func (*Backend) Apply(context.Context, proxy.Change) error { return errLinux }

// Close implements proxy.Backend.
func (*Backend) Close() error { return errLinux }

// Cleanup fails.
func (*Backend) Cleanup(context.Context) error { return errLinux }
