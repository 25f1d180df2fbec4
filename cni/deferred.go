package cni

import (
	"context"
	"errors"
	"sync/atomic"
)

// ErrNotReady is what a Deferred network answers before Set.
var ErrNotReady = errors.New("cni: the node has no pod range yet")

// Deferred is a Network that another one takes the place of later: a node learns its pod range only after it has
// registered, while its runtime wants a Network at once. The zero value is usable. Teardown before Set fails with ErrNotReady
// too, so that nothing attached by an earlier process is forgotten.
type Deferred struct{ network atomic.Pointer[Network] }

var _ Network = (*Deferred)(nil)

// Set gives the network all later calls go to.
func (d *Deferred) Set(n Network) { d.network.Store(&n) }

// Setup implements Network.
func (d *Deferred) Setup(ctx context.Context, s Sandbox) (Result, error) {
	if n := d.network.Load(); n != nil {
		return (*n).Setup(ctx, s)
	}
	return Result{}, ErrNotReady
}

// Teardown implements Network.
func (d *Deferred) Teardown(ctx context.Context, s Sandbox) error {
	if n := d.network.Load(); n != nil {
		return (*n).Teardown(ctx, s)
	}
	return ErrNotReady
}

// Status implements Network.
func (d *Deferred) Status(ctx context.Context) error {
	if n := d.network.Load(); n != nil {
		return (*n).Status(ctx)
	}
	return ErrNotReady
}
