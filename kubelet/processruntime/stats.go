//go:build linux

package processruntime

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime/internal/cgroup"
	"github.com/keelson/keelson/kubelet/processruntime/internal/imagestore"
	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
)

// ContainerStats implements [kubelet.StatsService].
func (r *Runtime) ContainerStats(_ context.Context, id string) (*runtimeapi.ContainerStats, error) {
	c, err := r.container(id)
	if err != nil {
		return nil, err
	}
	st := c.state(false)
	if stateOf(st) == runtimeapi.ContainerState_CONTAINER_CREATED {
		return nil, status.Errorf(codes.FailedPrecondition, "container %q was not started", id)
	}
	return r.stats(c, st), nil
}

// ListContainerStats implements [kubelet.StatsService]. Only running containers have any.
func (r *Runtime) ListContainerStats(_ context.Context, f *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	r.mu.Lock()
	all := make([]*container, 0, len(r.containers))
	for _, c := range r.containers {
		all = append(all, c)
	}
	r.mu.Unlock()
	var list []*runtimeapi.ContainerStats
	for _, c := range all {
		if f.GetId() != "" && f.GetId() != c.rec.ID || f.GetPodSandboxId() != "" && f.GetPodSandboxId() != c.sb.rec.ID || !selects(f.GetLabelSelector(), c.config.GetLabels()) {
			continue
		}
		if st := c.state(false); stateOf(st) == runtimeapi.ContainerState_CONTAINER_RUNNING {
			list = append(list, r.stats(c, st))
		}
	}
	return list, nil
}

func (r *Runtime) stats(c *container, st *shim.State) *runtimeapi.ContainerStats {
	now := r.opts.Clock.Now().UnixNano()
	u64 := func(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }
	rec := c.record()
	out := &runtimeapi.ContainerStats{Attributes: &runtimeapi.ContainerAttributes{Id: rec.ID, Metadata: c.config.GetMetadata(), Labels: c.config.GetLabels(), Annotations: c.config.GetAnnotations()}}
	layer := filepath.Join(c.dir, "upper")
	if !r.overlay {
		layer = filepath.Join(c.dir, "rootfs")
	}
	if used, inodes, err := imagestore.TreeUsage(layer); err == nil {
		out.WritableLayer = &runtimeapi.FilesystemUsage{Timestamp: now, FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: layer}, UsedBytes: u64(used), InodesUsed: u64(inodes)}
	}
	if st.Exited {
		return out
	}
	var u cgroup.Usage
	if rec.Start.Cgroup != "" && r.cgroups.Usable() {
		got, err := r.cgroups.Group(rec.Start.Cgroup).Usage()
		if err != nil {
			return out
		}
		u = got
	} else {
		u = procUsage(rec.ID, st.Pid, rec.Start.PID == "container" && r.level != shim.LevelNone)
	}
	out.Cpu = &runtimeapi.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: u64(uint64(u.CPU))}
	out.Memory = &runtimeapi.MemoryUsage{Timestamp: now, WorkingSetBytes: u64(u.WorkingSet), UsageBytes: u64(u.Memory), RssBytes: u64(u.RSS), PageFaults: u64(u.Faults), MajorPageFaults: u64(u.MajFaults)}
	if limit := rec.Limits.Memory; limit > 0 {
		out.Memory.AvailableBytes = u64(uint64(limit) - min(uint64(limit), u.WorkingSet))
	}
	return out
}

// procUsage adds up a container's processes: those of its PID namespace, or else those that carry its marker.
// Time of processes that have been waited for counts with their parents.
func procUsage(id string, pid int, ownPIDs bool) cgroup.Usage {
	var u cgroup.Usage
	const tick = time.Second / 100 // USER_HZ is 100 on every architecture Go runs on
	want, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/pid")
	page := uint64(os.Getpagesize())
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		if ownPIDs {
			if ns, err := os.Readlink(d + "/ns/pid"); err != nil || ns != want {
				continue
			}
		} else if env, err := os.ReadFile(d + "/environ"); err != nil || !bytes.Contains(env, []byte(shim.Marker+"="+id+"\x00")) {
			continue
		}
		b, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) < 22 {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return v }
		u.CPU += time.Duration(n(11)+n(12)+n(13)+n(14)) * tick
		u.Faults += n(7)
		u.MajFaults += n(9)
		u.RSS += n(21) * page
	}
	u.Memory, u.WorkingSet = u.RSS, u.RSS
	return u
}
