package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func eventChecks() []check {
	return []check{
		{name: "Events", run: checkEvents},
		{name: "EventsEnd", run: checkEventsEnd},
	}
}

// recorder keeps the events of a subscription.
type recorder struct {
	mu   sync.Mutex
	list []*runtimeapi.ContainerEventResponse
	end  func() error
}

func (e *env) record(ctx context.Context) *recorder {
	ctx, cancel := context.WithCancel(ctx)
	rec := &recorder{}
	ch := make(chan *runtimeapi.ContainerEventResponse)
	result := make(chan error, 1)
	go func() { result <- e.Events.GetContainerEvents(ctx, ch) }()
	var collect sync.WaitGroup
	collect.Go(func() {
		for {
			select {
			case ev := <-ch:
				rec.mu.Lock()
				rec.list = append(rec.list, ev)
				rec.mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	})
	rec.end = func() error {
		cancel()
		collect.Wait()
		return <-result
	}
	return rec
}

// saw waits for an event.
func (r *recorder) saw(ctx context.Context, id string, typ runtimeapi.ContainerEventType) error {
	return poll(ctx, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, ev := range r.list {
			if ev.ContainerId == id && ev.ContainerEventType == typ {
				return nil
			}
		}
		return fmt.Errorf("no %s of %.12s among %d events", typ, id, len(r.list))
	})
}

func checkEvents(ctx context.Context, e *env) error {
	if e.Events == nil {
		return skipError("the runtime has no events")
	}
	rec := e.record(ctx)
	defer func() { _ = rec.end() }()
	// Subscribing takes a moment; a sandbox that nobody waits for shows that it is done.
	if err := poll(ctx, func() error {
		id, _, err := e.pod(ctx)
		if err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, 1e9)
		defer cancel()
		return rec.saw(short, id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	}); err != nil {
		return err
	}
	byItself, err := e.run(ctx, nil, "sleep 50", "exit 0")
	if err != nil {
		return err
	}
	stopped, err := e.run(ctx, nil, "trap")
	if err != nil {
		return err
	}
	if err := errors.Join(e.Runtime.StopContainer(ctx, stopped.id, 0), e.Runtime.RemoveContainer(ctx, stopped.id)); err != nil {
		return err
	}
	for _, w := range []struct {
		id  string
		typ runtimeapi.ContainerEventType
	}{
		{byItself.id, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT},
		{byItself.id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT},
		{byItself.id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT},
		{stopped.id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT},
		{stopped.id, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT},
	} {
		if err := rec.saw(ctx, w.id, w.typ); err != nil {
			return err
		}
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for _, ev := range rec.list {
		if ev.ContainerId == byItself.id && ev.ContainerEventType == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
			return errors.Join(expect("sandbox in the event", ev.GetPodSandboxStatus().GetId(), byItself.pod), expect("containers in the event", len(ev.GetContainersStatuses()), 1))
		}
	}
	return nil
}

func checkEventsEnd(ctx context.Context, e *env) error {
	if e.Events == nil {
		return skipError("the runtime has no events")
	}
	// Nobody reads: a send must still see the end of the context.
	sub, cancel := context.WithCancel(ctx)
	ch := make(chan *runtimeapi.ContainerEventResponse)
	result := make(chan error, 1)
	go func() { result <- e.Events.GetContainerEvents(sub, ch) }()
	if _, _, err := e.pod(ctx); err != nil {
		cancel()
		return err
	}
	cancel()
	select {
	case <-result:
		return nil
	case <-ctx.Done():
		return errors.New("GetContainerEvents did not end with its context")
	}
}
