package fakeruntime

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerStats implements kubelet.StatsService.
func (r *Runtime) ContainerStats(_ context.Context, id string) (*runtimeapi.ContainerStats, error) {
	now := r.lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, notFound("container", id)
	}
	return c.stats(now), nil
}

// ListContainerStats implements kubelet.StatsService.
func (r *Runtime) ListContainerStats(_ context.Context, f *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	now := r.lock()
	defer r.mu.Unlock()
	var out []*runtimeapi.ContainerStats
	r.eachContainer(f.GetId(), f.GetPodSandboxId(), f.GetLabelSelector(), func(c *container) {
		if c.state == runtimeapi.ContainerState_CONTAINER_RUNNING {
			out = append(out, c.stats(now))
		}
	})
	return out, nil
}

func (c *container) stats(now time.Time) *runtimeapi.ContainerStats {
	at := now.UnixNano()
	value := func(n int64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: uint64(max(n, 0))} }
	until := at
	cpu, memory := c.plan.cpu, c.plan.memory
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		until, cpu, memory = c.finishedAt, 0, 0
	}
	// A thousandth of a core for a nanosecond is a millionth of a microsecond: divide last.
	used := int64(float64(until-c.startedAt) * float64(c.plan.cpu) / 1000)
	if c.startedAt == 0 {
		used = 0
	}
	return &runtimeapi.ContainerStats{
		Attributes:    &runtimeapi.ContainerAttributes{Id: c.id, Metadata: c.meta, Labels: c.labels, Annotations: c.annotations},
		Cpu:           &runtimeapi.CpuUsage{Timestamp: at, UsageCoreNanoSeconds: value(used), UsageNanoCores: value(cpu * 1_000_000)},
		Memory:        &runtimeapi.MemoryUsage{Timestamp: at, WorkingSetBytes: value(memory), UsageBytes: value(memory), RssBytes: value(memory)},
		WritableLayer: &runtimeapi.FilesystemUsage{Timestamp: at, UsedBytes: value(0), InodesUsed: value(0)},
	}
}
