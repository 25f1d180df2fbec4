package apiserver

import (
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// aborter is a request that can be broken off from outside.
type aborter interface{ abort() }

// inflight are the requests that the server must outlive: those that come through no listener of its own.
type inflight struct {
	mu      sync.Mutex
	stopped bool
	active  map[aborter]struct{}
	idle    chan struct{} // made by stop, closed when there are none
}

// begin registers a request; false if the server has stopped.
func (f *inflight) begin(a aborter) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return false
	}
	if f.active == nil {
		f.active = map[aborter]struct{}{}
	}
	f.active[a] = struct{}{}
	return true
}

func (f *inflight) end(a aborter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.active, a)
	if f.stopped && len(f.active) == 0 {
		f.closeIdle()
	}
}

func (f *inflight) closeIdle() {
	select {
	case <-f.idle:
	default:
		close(f.idle)
	}
}

// stop refuses new requests, and returns when there are none left, breaking them off after a while.
func (f *inflight) stop(clk clock.Clock, after time.Duration) {
	f.mu.Lock()
	if !f.stopped {
		f.stopped, f.idle = true, make(chan struct{})
	}
	if len(f.active) == 0 {
		f.closeIdle()
	}
	f.mu.Unlock()
	timer := clk.NewTimer(after)
	defer timer.Stop()
	select {
	case <-f.idle:
		return
	case <-timer.C():
	}
	f.mu.Lock()
	for a := range f.active {
		a.abort()
	}
	f.mu.Unlock()
	<-f.idle
}

// external is a request through somebody else's http.Server.
type external struct{ cancel context.CancelFunc }

func (e *external) abort() { e.cancel() }
