package fakeruntime

import (
	"container/heap"
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// CreateContainer implements kubelet.ContainerService.
func (r *Runtime) CreateContainer(_ context.Context, sandboxID string, config *runtimeapi.ContainerConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	if config.GetMetadata().GetName() == "" {
		return "", status.Error(codes.InvalidArgument, "container config must include metadata with a name")
	}
	now := r.lock()
	defer r.mu.Unlock()
	s := r.sandboxes[sandboxID]
	if s == nil {
		return "", notFound("sandbox", sandboxID)
	}
	if !s.ready {
		return "", status.Errorf(codes.FailedPrecondition, "sandbox %q is not ready", sandboxID)
	}
	img := r.image(config.GetImage().GetImage())
	if img == nil {
		return "", notFound("image", config.GetImage().GetImage())
	}
	for _, c := range s.containers {
		if c.meta.Name == config.Metadata.Name && c.meta.Attempt == config.Metadata.Attempt {
			return "", status.Errorf(codes.AlreadyExists, "attempt %d of container %q exists", c.meta.Attempt, c.meta.Name)
		}
	}
	plan, err := makePlan(s, config, r.opts.JobRunTime)
	if err != nil {
		return "", status.Error(codes.InvalidArgument, err.Error())
	}
	spec := config.Image
	if spec.UserSpecifiedImage != "" {
		spec = &runtimeapi.ImageSpec{Image: spec.UserSpecifiedImage}
	}
	c := &container{
		id: r.id(), sandbox: s, meta: &runtimeapi.ContainerMetadata{Name: config.Metadata.Name, Attempt: config.Metadata.Attempt},
		labels: maps.Clone(config.Labels), annotations: maps.Clone(config.Annotations), image: spec, imageRef: img.digest,
		logPath: config.LogPath, resources: config.GetLinux().GetResources(), mounts: config.Mounts,
		state: runtimeapi.ContainerState_CONTAINER_CREATED, createdAt: now.UnixNano(), plan: plan, index: -1,
	}
	r.containers[c.id] = c
	s.containers = append(s.containers, c)
	r.emit(s, c.id, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return c.id, nil
}

// StartContainer implements kubelet.ContainerService.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	r.lock()
	c := r.containers[id]
	if c == nil {
		r.mu.Unlock()
		return notFound("container", id)
	}
	delay := c.plan.startDelay
	r.mu.Unlock()
	if err := r.sleep(ctx, delay); err != nil {
		return err
	}
	now := r.lock()
	defer r.mu.Unlock()
	if r.containers[id] != c {
		return notFound("container", id)
	}
	if c.state != runtimeapi.ContainerState_CONTAINER_CREATED {
		return status.Errorf(codes.FailedPrecondition, "container %q is in state %s", id, c.state)
	}
	c.state, c.startedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, now.UnixNano()
	if c.plan.logLines > 0 {
		if err := c.writeLog(now, c.plan.logLines); err != nil {
			r.exited(c, 128, "StartError", now)
			return status.Error(codes.Internal, err.Error())
		}
	}
	r.emit(c.sandbox, c.id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	if c.plan.ends {
		c.exitAt = now.Add(c.plan.runTime)
		heap.Push(&r.exits, c)
		r.nudge()
	}
	return nil
}

func (r *Runtime) sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := r.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// StopContainer implements kubelet.ContainerService. A container exits 0 when asked to, or 137 if its stop-delay is longer than timeout.
func (r *Runtime) StopContainer(ctx context.Context, id string, timeout int64) error {
	r.lock()
	c := r.containers[id]
	if c == nil || c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		r.mu.Unlock()
		return nil
	}
	delay, code := c.plan.stopDelay, int32(0)
	r.mu.Unlock()
	if grace := time.Duration(timeout) * time.Second; delay > grace {
		delay, code = grace, 137
	}
	if err := r.sleep(ctx, delay); err != nil {
		return err
	}
	now := r.lock()
	defer r.mu.Unlock()
	if c.state == runtimeapi.ContainerState_CONTAINER_RUNNING {
		r.exited(c, code, "", now)
	}
	return nil
}

// RemoveContainer implements kubelet.ContainerService.
func (r *Runtime) RemoveContainer(_ context.Context, id string) error {
	now := r.lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil
	}
	if c.state == runtimeapi.ContainerState_CONTAINER_RUNNING {
		r.exited(c, 137, "", now)
	}
	delete(r.containers, id)
	c.sandbox.containers = slices.DeleteFunc(c.sandbox.containers, func(x *container) bool { return x == c })
	r.emit(c.sandbox, id, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return nil
}

// ListContainers implements kubelet.ContainerService.
func (r *Runtime) ListContainers(_ context.Context, f *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	r.lock()
	defer r.mu.Unlock()
	var out []*runtimeapi.Container
	r.eachContainer(f.GetId(), f.GetPodSandboxId(), f.GetLabelSelector(), func(c *container) {
		if f.GetState() == nil || f.State.State == c.state {
			out = append(out, &runtimeapi.Container{
				Id: c.id, PodSandboxId: c.sandbox.id, Metadata: c.meta, Image: c.image, ImageRef: c.imageRef, ImageId: c.imageRef,
				State: c.state, CreatedAt: c.createdAt, Labels: c.labels, Annotations: c.annotations,
			})
		}
	})
	return out, nil
}

func (r *Runtime) eachContainer(id, sandboxID string, selector map[string]string, visit func(*container)) {
	match := func(c *container) {
		if (sandboxID == "" || c.sandbox.id == sandboxID) && matches(c.labels, selector) {
			visit(c)
		}
	}
	switch {
	case id != "":
		if c := r.containers[id]; c != nil {
			match(c)
		}
	case sandboxID != "":
		if s := r.sandboxes[sandboxID]; s != nil {
			for _, c := range s.containers {
				match(c)
			}
		}
	case selector[kubelettypes.KubernetesPodUIDLabel] != "":
		for _, s := range r.byUID[selector[kubelettypes.KubernetesPodUIDLabel]] {
			for _, c := range s.containers {
				match(c)
			}
		}
	default:
		for _, c := range r.containers {
			match(c)
		}
	}
}

// ContainerStatus implements kubelet.ContainerService.
func (r *Runtime) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	r.lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, notFound("container", id)
	}
	return &runtimeapi.ContainerStatusResponse{Status: c.status()}, nil
}

func (c *container) status() *runtimeapi.ContainerStatus {
	st := &runtimeapi.ContainerStatus{
		Id: c.id, Metadata: c.meta, State: c.state, CreatedAt: c.createdAt, StartedAt: c.startedAt, FinishedAt: c.finishedAt,
		ExitCode: c.exitCode, Reason: c.reason, Image: c.image, ImageRef: c.imageRef, ImageId: c.imageRef, Labels: c.labels, Annotations: c.annotations, Mounts: c.mounts,
		Resources: &runtimeapi.ContainerResources{Linux: c.resources},
	}
	if c.logPath != "" {
		st.LogPath = c.logFile()
	}
	if c.state == runtimeapi.ContainerState_CONTAINER_EXITED && st.Reason == "" {
		st.Reason = "Error"
		if c.exitCode == 0 {
			st.Reason = "Completed"
		}
	}
	return st
}

// UpdateContainerResources implements kubelet.ContainerService.
func (r *Runtime) UpdateContainerResources(_ context.Context, id string, res *runtimeapi.ContainerResources) error {
	r.lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return notFound("container", id)
	}
	c.resources = res.GetLinux()
	return nil
}

// ReopenContainerLog implements kubelet.ContainerService.
func (r *Runtime) ReopenContainerLog(_ context.Context, id string) error {
	now := r.lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return notFound("container", id)
	}
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return status.Errorf(codes.FailedPrecondition, "container %q is not running", id)
	}
	if c.plan.logLines > 0 {
		return c.writeLog(now, 0)
	}
	return nil
}
