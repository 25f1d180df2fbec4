package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func containerChecks() []check {
	return []check{
		{name: "ContainerLifeCycle", run: checkContainerLifeCycle},
		{name: "ContainerIdempotence", run: checkContainerIdempotence},
		{name: "ContainerMetadata", run: checkContainerMetadata},
		{name: "ContainerFilter", run: checkContainerFilter},
		{name: "ContainerNeedsImage", run: checkNeedsImage},
		{name: "RemoveRunning", run: checkRemoveRunning},
		{name: "RemoveCreated", run: checkRemoveCreated},
		{name: "SameNameNextAttempt", run: checkNextAttempt},
		{name: "ManyAtOnce", run: checkManyAtOnce},
		{name: "Stats", needs: []Feature{Processes, Stats}, run: checkStats},
	}
}

func checkContainerLifeCycle(ctx context.Context, e *env) error {
	pod, pc, err := e.pod(ctx)
	if err != nil {
		return err
	}
	id, err := e.Runtime.CreateContainer(ctx, pod, e.containerConfig("main", "trap"), pc)
	if err != nil {
		return err
	}
	s := &started{e: e, id: id, pod: pod}
	st, err := s.status(ctx)
	if err := errors.Join(err, expect("state after CreateContainer", st.GetState(), runtimeapi.ContainerState_CONTAINER_CREATED), expect("StartedAt before the start", st.GetStartedAt(), 0)); err != nil {
		return err
	}
	if err := e.Runtime.StartContainer(ctx, id); err != nil {
		return err
	}
	st, err = s.status(ctx)
	if err := errors.Join(err, expect("state after StartContainer", st.GetState(), runtimeapi.ContainerState_CONTAINER_RUNNING), expect("has a start time", st.GetStartedAt() >= st.GetCreatedAt(), true), expect("FinishedAt while running", st.GetFinishedAt(), 0)); err != nil {
		return err
	}
	if err := e.Runtime.StopContainer(ctx, id, 0); err != nil {
		return err
	}
	st, err = s.status(ctx)
	if err := errors.Join(err, expect("state after StopContainer", st.GetState(), runtimeapi.ContainerState_CONTAINER_EXITED), expect("has an end time", st.GetFinishedAt() >= st.GetStartedAt(), true), expect("has a reason", st.GetReason() != "", true)); err != nil {
		return err
	}
	if err := e.Runtime.RemoveContainer(ctx, id); err != nil {
		return err
	}
	_, err = e.Runtime.ContainerStatus(ctx, id, false)
	return expect("code of ContainerStatus after RemoveContainer", status.Code(err), codes.NotFound)
}

func checkContainerIdempotence(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "trap")
	if err != nil {
		return err
	}
	if err := e.Runtime.StartContainer(ctx, s.id); err == nil {
		return errors.New("StartContainer of a running container succeeded")
	}
	for range 2 {
		if err := e.Runtime.StopContainer(ctx, s.id, 0); err != nil {
			return fmt.Errorf("StopContainer again: %w", err)
		}
	}
	if err := e.Runtime.StartContainer(ctx, s.id); err == nil {
		return errors.New("StartContainer of a container that has ended succeeded")
	}
	for range 2 {
		if err := e.Runtime.RemoveContainer(ctx, s.id); err != nil {
			return fmt.Errorf("RemoveContainer again: %w", err)
		}
	}
	return nil
}

func checkContainerMetadata(ctx context.Context, e *env) error {
	annotations := map[string]string{"example.com/hash": "deadbeef", "empty": ""}
	s, err := e.run(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Annotations = annotations
		c.Metadata.Attempt = 3
	}, "trap")
	if err != nil {
		return err
	}
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	err = errors.Join(
		expect("id", st.Id, s.id), expect("metadata", st.Metadata.String(), s.config.Metadata.String()),
		expect("labels are kept", maps.Equal(st.Labels, s.config.Labels), true), expect("annotations are kept", maps.Equal(st.Annotations, annotations), true),
		expect("image", st.Image.GetImage(), e.Image), expect("has an image reference", st.ImageRef != "", true), expect("log path", st.LogPath, s.logPath))
	list, listErr := e.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{Id: s.id})
	if err := errors.Join(err, listErr, expect("number listed by id", len(list), 1)); err != nil {
		return err
	}
	l := list[0]
	return errors.Join(
		expect("listed metadata", l.Metadata.String(), s.config.Metadata.String()), expect("listed sandbox", l.PodSandboxId, s.pod),
		expect("listed labels are kept", maps.Equal(l.Labels, s.config.Labels), true), expect("listed annotations are kept", maps.Equal(l.Annotations, annotations), true),
		expect("listed state", l.State, runtimeapi.ContainerState_CONTAINER_RUNNING), expect("listed creation time", l.CreatedAt, st.CreatedAt))
}

func checkContainerFilter(ctx context.Context, e *env) error {
	pod, pc, err := e.pod(ctx)
	if err != nil {
		return err
	}
	other, otherConf, err := e.pod(ctx)
	if err != nil {
		return err
	}
	a, err := e.start(ctx, pod, pc, e.containerConfig("a", "trap"))
	if err != nil {
		return err
	}
	b, err := e.start(ctx, pod, pc, e.containerConfig("b", "trap"))
	if err != nil {
		return err
	}
	c, err := e.Runtime.CreateContainer(ctx, other, e.containerConfig("a", "trap"), otherConf)
	if err != nil {
		return err
	}
	if err := e.Runtime.StopContainer(ctx, b.id, 0); err != nil {
		return err
	}
	in := func(s runtimeapi.ContainerState) *runtimeapi.ContainerStateValue {
		return &runtimeapi.ContainerStateValue{State: s}
	}
	for _, tc := range []struct {
		name string
		f    *runtimeapi.ContainerFilter
		want []string
	}{
		{"sandbox", &runtimeapi.ContainerFilter{PodSandboxId: pod}, []string{a.id, b.id}},
		{"sandbox and running", &runtimeapi.ContainerFilter{PodSandboxId: pod, State: in(runtimeapi.ContainerState_CONTAINER_RUNNING)}, []string{a.id}},
		{"sandbox and ended", &runtimeapi.ContainerFilter{PodSandboxId: pod, State: in(runtimeapi.ContainerState_CONTAINER_EXITED)}, []string{b.id}},
		{"other sandbox and created", &runtimeapi.ContainerFilter{PodSandboxId: other, State: in(runtimeapi.ContainerState_CONTAINER_CREATED)}, []string{c}},
		{"label and sandbox", &runtimeapi.ContainerFilter{PodSandboxId: other, LabelSelector: map[string]string{"container": "a"}}, []string{c}},
		{"id of another sandbox", &runtimeapi.ContainerFilter{PodSandboxId: other, Id: a.id}, nil},
	} {
		list, err := e.Runtime.ListContainers(ctx, tc.f)
		if err != nil {
			return fmt.Errorf("%s: %w", tc.name, err)
		}
		got, want := make(map[string]bool), make(map[string]bool)
		for _, x := range list {
			got[x.Id] = true
		}
		for _, id := range tc.want {
			want[id] = true
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("filter %s finds %v, want %v", tc.name, got, want)
		}
	}
	return nil
}

func checkNeedsImage(ctx context.Context, e *env) error {
	pod, pc, err := e.pod(ctx)
	if err != nil {
		return err
	}
	c := e.containerConfig("main", "exit 0")
	c.Image.Image = "localhost/no/such/image:1"
	if _, err := e.Runtime.CreateContainer(ctx, pod, c, pc); err == nil {
		return errors.New("CreateContainer with an image that is not there succeeded")
	}
	return nil
}

func checkRemoveRunning(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "ignore")
	if err != nil {
		return err
	}
	if err := e.Runtime.RemoveContainer(ctx, s.id); err != nil {
		return err
	}
	list, err := e.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{Id: s.id})
	return errors.Join(err, expect("listed after removal", len(list), 0))
}

func checkRemoveCreated(ctx context.Context, e *env) error {
	pod, pc, err := e.pod(ctx)
	if err != nil {
		return err
	}
	id, err := e.Runtime.CreateContainer(ctx, pod, e.containerConfig("main", "exit 0"), pc)
	if err != nil {
		return err
	}
	return errors.Join(e.Runtime.StopContainer(ctx, id, 1), e.Runtime.RemoveContainer(ctx, id))
}

func checkNextAttempt(ctx context.Context, e *env) error {
	pod, pc, err := e.pod(ctx)
	if err != nil {
		return err
	}
	for attempt := range uint32(3) {
		c := e.containerConfig("main", "trap")
		c.Metadata.Attempt, c.LogPath = attempt, fmt.Sprintf("main-%d.log", attempt)
		s, err := e.start(ctx, pod, pc, c)
		if err != nil {
			return fmt.Errorf("attempt %d: %w", attempt, err)
		}
		if err := e.Runtime.StopContainer(ctx, s.id, 0); err != nil {
			return err
		}
	}
	list, err := e.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{PodSandboxId: pod})
	return errors.Join(err, expect("containers kept", len(list), 3))
}

func checkManyAtOnce(ctx context.Context, e *env) error {
	const n = 6
	errs := make([]error, n)
	pods := make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		sub := &env{Instance: e.Instance, t: e.t}
		wg.Go(func() {
			s, err := sub.run(ctx, nil, "trap")
			if err == nil {
				err = errors.Join(e.Runtime.StopContainer(ctx, s.id, 0), e.Runtime.RemoveContainer(ctx, s.id))
			}
			errs[i] = err
			if len(sub.sandboxes) > 0 {
				pods[i] = sub.sandboxes[0]
				errs[i] = errors.Join(err, e.Runtime.StopPodSandbox(ctx, pods[i]))
			}
		})
	}
	wg.Wait()
	for _, p := range pods {
		if p != "" {
			e.sandboxes = append(e.sandboxes, p)
		}
	}
	return errors.Join(errs...)
}

func checkStats(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "eat 20", "trap")
	if err != nil {
		return err
	}
	if err := s.printed(ctx, "ready"); err != nil {
		return err
	}
	err = poll(ctx, func() error {
		st, err := e.Runtime.ContainerStats(ctx, s.id)
		if err != nil {
			return err
		}
		if st.GetMemory().GetWorkingSetBytes().GetValue() < 20<<20 {
			return fmt.Errorf("working set is %d bytes, want at least what was allocated", st.GetMemory().GetWorkingSetBytes().GetValue())
		}
		return errors.Join(expect("has a CPU time", st.GetCpu().GetTimestamp() > 0, true), expect("id", st.GetAttributes().GetId(), s.id),
			expect("labels are kept", maps.Equal(st.GetAttributes().GetLabels(), s.config.Labels), true))
	})
	if err != nil {
		return err
	}
	list, err := e.Runtime.ListContainerStats(ctx, &runtimeapi.ContainerStatsFilter{PodSandboxId: s.pod})
	return errors.Join(err, expect("number of stats", len(list), 1))
}

// stopTook stops a container and says how long that took.
func (s *started) stopTook(ctx context.Context, grace int64) (time.Duration, error) {
	begin := time.Now()
	err := s.e.Runtime.StopContainer(ctx, s.id, grace)
	return time.Since(begin), err
}
