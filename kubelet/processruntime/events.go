//go:build linux

package processruntime

import (
	"context"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
)

// subscriber queues events for one caller of GetContainerEvents, so that nobody waits for a slow one.
type subscriber struct {
	mu    sync.Mutex
	queue []*runtimeapi.ContainerEventResponse
	wake  chan struct{}
	// sandboxes that appeared and are to be watched.
	fresh []*sandbox
}

func (s *subscriber) push(e *runtimeapi.ContainerEventResponse, sb *sandbox) {
	s.mu.Lock()
	if e != nil {
		s.queue = append(s.queue, e)
	}
	if sb != nil {
		s.fresh = append(s.fresh, sb)
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscriber) take() ([]*runtimeapi.ContainerEventResponse, []*sandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, f := s.queue, s.fresh
	s.queue, s.fresh = nil, nil
	return q, f
}

func (r *Runtime) subscribers() []*subscriber {
	r.mu.Lock()
	defer r.mu.Unlock()
	subs := make([]*subscriber, 0, len(r.subs))
	for s := range r.subs {
		subs = append(subs, s)
	}
	return subs
}

// event describes the whole pod, as CRI has it.
func (r *Runtime) event(sb *sandbox, id string, typ runtimeapi.ContainerEventType) *runtimeapi.ContainerEventResponse {
	e := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: typ, CreatedAt: r.opts.Clock.Now().UnixNano(), PodSandboxStatus: r.sandboxStatus(sb)}
	for _, c := range r.containersOf(sb.rec.ID) {
		e.ContainersStatuses = append(e.ContainersStatuses, r.containerStatus(c))
	}
	return e
}

func (r *Runtime) emit(c *container, typ runtimeapi.ContainerEventType) {
	if subs := r.subscribers(); len(subs) > 0 {
		e := r.event(c.sb, c.rec.ID, typ)
		for _, s := range subs {
			s.push(e, nil)
		}
	}
}

func (r *Runtime) emitSandbox(sb *sandbox, typ runtimeapi.ContainerEventType) {
	subs := r.subscribers()
	if len(subs) == 0 {
		return
	}
	e := r.event(sb, sb.rec.ID, typ)
	for _, s := range subs {
		if typ == runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT {
			s.push(e, sb)
		} else {
			s.push(e, nil)
		}
	}
}

// GetContainerEvents implements [kubelet.EventService].
func (r *Runtime) GetContainerEvents(ctx context.Context, events chan<- *runtimeapi.ContainerEventResponse) error {
	ctx, end, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	s := &subscriber{wake: make(chan struct{}, 1)}
	r.mu.Lock()
	r.subs[s] = struct{}{}
	for _, sb := range r.sandboxes {
		s.fresh = append(s.fresh, sb)
	}
	r.mu.Unlock()
	var watches sync.WaitGroup
	defer watches.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() {
		r.mu.Lock()
		delete(r.subs, s)
		r.mu.Unlock()
	}()
	for {
		queue, fresh := s.take()
		for _, sb := range fresh {
			watches.Go(func() { r.watchShim(ctx, sb, s) })
		}
		for _, e := range queue {
			select {
			case events <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watchShim reports the containers of a sandbox that end by themselves, and the sandbox if its shim dies.
func (r *Runtime) watchShim(ctx context.Context, sb *sandbox, s *subscriber) {
	c, err := r.call(ctx, sb, shim.Request{Op: shim.OpWatch})
	if err != nil {
		return
	}
	defer c.Close()
	for {
		resp, _, err := c.recv()
		if err != nil {
			break
		}
		if resp.Container != "" {
			s.push(r.event(sb, resp.Container, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT), nil)
		}
	}
	if ctx.Err() == nil && sb.record().Phase == "ready" && !sb.alive() {
		s.push(r.event(sb, sb.rec.ID, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT), nil)
	}
}
