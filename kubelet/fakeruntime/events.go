package fakeruntime

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// subscriber collects events until its reader takes them.
type subscriber struct {
	pending []pendingEvent
	wake    chan struct{}
}

type pendingEvent struct {
	sandbox *sandbox
	id      string
	kind    runtimeapi.ContainerEventType
	at      int64
}

func (s *subscriber) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (r *Runtime) nudge() {
	for _, s := range r.subs {
		s.nudge()
	}
}

func (r *Runtime) emit(s *sandbox, id string, kind runtimeapi.ContainerEventType) {
	if len(r.subs) == 0 {
		return
	}
	at := r.clock.Now().UnixNano()
	for _, sub := range r.subs {
		sub.pending = append(sub.pending, pendingEvent{sandbox: s, id: id, kind: kind, at: at})
		sub.nudge()
	}
}

// GetContainerEvents implements kubelet.EventService. Every event carries the pod's state at the time it is sent.
func (r *Runtime) GetContainerEvents(ctx context.Context, events chan<- *runtimeapi.ContainerEventResponse) error {
	sub := &subscriber{wake: make(chan struct{}, 1)}
	r.lock()
	r.subs = append(r.subs, sub)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.subs = slices.DeleteFunc(r.subs, func(s *subscriber) bool { return s == sub })
		r.mu.Unlock()
	}()
	timer := r.clock.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := r.lock()
		batch := sub.pending
		sub.pending = nil
		out := make([]*runtimeapi.ContainerEventResponse, len(batch))
		for i, e := range batch {
			out[i] = e.response()
		}
		wait := time.Hour
		if len(r.exits) > 0 {
			wait = r.exits[0].exitAt.Sub(now)
		}
		r.mu.Unlock()
		for _, e := range out {
			select {
			case events <- e:
			case <-ctx.Done():
				return status.FromContextError(ctx.Err()).Err()
			}
		}
		if len(out) > 0 {
			continue
		}
		if !timer.Stop() {
			select {
			case <-timer.C():
			default:
			}
		}
		timer.Reset(wait)
		select {
		case <-sub.wake:
		case <-timer.C():
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

func (e *pendingEvent) response() *runtimeapi.ContainerEventResponse {
	resp := &runtimeapi.ContainerEventResponse{ContainerId: e.id, ContainerEventType: e.kind, CreatedAt: e.at, PodSandboxStatus: e.sandbox.status()}
	for _, c := range e.sandbox.containers {
		resp.ContainersStatuses = append(resp.ContainersStatuses, c.status())
	}
	return resp
}
