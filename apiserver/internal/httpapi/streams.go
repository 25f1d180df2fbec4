package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"
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

// lastWrite is what a write that blocks gets after its stream has been ended.
const lastWrite = 500 * time.Millisecond

// endWrites makes writes to w fail soon after ctx has ended, so that a client that does not read can't hold a stream open. The connection may be
// used for another request once the returned function was called.
func endWrites(ctx context.Context, w http.ResponseWriter) (done func()) {
	rc := http.NewResponseController(w)
	var mu sync.Mutex
	over := false
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			_ = rc.SetWriteDeadline(time.Now().Add(lastWrite)) // where it is not supported, writes end with the connection
		}
	})
	return func() {
		if stop() {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		over = true
		_ = rc.SetWriteDeadline(time.Time{})
	}
}
