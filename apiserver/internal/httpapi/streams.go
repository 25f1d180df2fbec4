package httpapi

import (
	"context"
	"sync"
)

// streams are the watches and connects that run.
type streams struct {
	mu      sync.Mutex
	stopped bool
	cancels map[*context.CancelFunc]struct{}
}

// begin returns a context that also ends when the handler's streams are stopped.
func (s *streams) begin(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		cancel()
		return ctx, cancel
	}
	if s.cancels == nil {
		s.cancels = map[*context.CancelFunc]struct{}{}
	}
	key := &cancel
	s.cancels[key] = struct{}{}
	return ctx, func() {
		cancel()
		s.mu.Lock()
		delete(s.cancels, key)
		s.mu.Unlock()
	}
}

// StopStreams ends all watches and connects, and those still to come at once.
func (h *Handler) StopStreams() {
	s := &h.streams
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for c := range s.cancels {
		(*c)()
	}
}
