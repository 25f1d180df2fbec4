//go:build linux

package processruntime

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime/internal/cgroup"
	"github.com/keelson/keelson/kubelet/processruntime/internal/imagestore"
	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
)

// containerRecord is what is kept of a container on disk. How it runs or ended is in the shim's own file.
type containerRecord struct {
	ID         string
	Config     json.RawMessage
	CreatedAt  time.Time
	ImageID    string
	ImageRef   string
	Chain      string
	StopSignal string
	Started    bool // StartContainer was called
	Start      *shim.Start
	Limits     cgroup.Limits
	Resources  json.RawMessage `json:",omitempty"` // as last updated
}

type container struct {
	sb     *sandbox
	dir    string
	config *runtimeapi.ContainerConfig
	// startMu serializes StartContainer and the removal.
	startMu sync.Mutex

	mu    sync.Mutex
	rec   containerRecord
	final *shim.State // once it has ended
}

func (c *container) record() containerRecord {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}

func (c *container) update(f func(*containerRecord)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.rec)
	return writeJSON(filepath.Join(c.dir, "container.json"), c.rec)
}

// state reads how the container runs; nil before it was started. shimGone says that nobody will write it any more.
func (c *container) state(shimGone bool) *shim.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final != nil {
		return c.final
	}
	// Looked at before the file: a shim that ended has written all it will.
	gone := shimGone || !c.sb.alive()
	var st shim.State
	if err := readJSON(filepath.Join(c.dir, shim.StateName), &st); err != nil {
		if !gone || !c.rec.Started {
			return nil
		}
	}
	if !st.Exited && gone {
		// It died with its shim, and nobody saw how.
		st.Exited, st.Finished, st.ExitCode, st.Reason = true, time.Now(), 255, "Unknown"
		st.Message = "the container ended together with the process that watched it"
		_ = writeJSON(filepath.Join(c.dir, shim.StateName), st)
	}
	if st.Exited {
		c.final = &st
	}
	return &st
}

func stateOf(st *shim.State) runtimeapi.ContainerState {
	switch {
	case st == nil:
		return runtimeapi.ContainerState_CONTAINER_CREATED
	case st.Exited:
		return runtimeapi.ContainerState_CONTAINER_EXITED
	}
	return runtimeapi.ContainerState_CONTAINER_RUNNING
}

func (r *Runtime) container(id string) (*container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil {
		return c, nil
	}
	return nil, status.Errorf(codes.NotFound, "container %q not found", id)
}

func (r *Runtime) containersOf(sandbox string) []*container {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*container
	for _, c := range r.containers {
		if c.sb.rec.ID == sandbox {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *container) int { return a.rec.CreatedAt.Compare(b.rec.CreatedAt) })
	return list
}

// CreateContainer implements [kubelet.ContainerService].
func (r *Runtime) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	sb, err := r.sandbox(sandboxID)
	if err != nil {
		return "", err
	}
	if config.GetMetadata() == nil {
		return "", status.Error(codes.InvalidArgument, "container config must include metadata")
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.state() != runtimeapi.PodSandboxState_SANDBOX_READY {
		return "", status.Errorf(codes.FailedPrecondition, "sandbox %q is not ready", sandboxID)
	}
	m := config.GetMetadata()
	for _, other := range r.containersOf(sandboxID) {
		if o := other.config.GetMetadata(); o.GetName() == m.GetName() && o.GetAttempt() == m.GetAttempt() {
			return "", status.Errorf(codes.AlreadyExists, "container %s attempt %d is reserved for %q", m.GetName(), m.GetAttempt(), other.rec.ID)
		}
	}
	id := newID()
	c := &container{sb: sb, dir: filepath.Join(sb.dir, "containers", id), config: proto.CloneOf(config)}
	if err := r.createContainer(ctx, c, id); err != nil {
		if rmErr := imagestore.RemoveAll(c.dir); rmErr != nil {
			r.opts.Logger.Error(rmErr, "undoing a failed container", "container", id)
		}
		return "", toStatus(err)
	}
	r.mu.Lock()
	r.containers[id] = c
	r.mu.Unlock()
	r.emit(c, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return id, nil
}

func (r *Runtime) createContainer(ctx context.Context, c *container, id string) error {
	ref := c.config.GetImage().GetImage()
	img := r.images.Get(ref)
	if img == nil {
		return status.Errorf(codes.NotFound, "failed to resolve image %q: not found", ref)
	}
	cfg, err := r.images.Config(img)
	if err != nil {
		return err
	}
	raw, err := protojson.Marshal(c.config)
	if err != nil {
		return err
	}
	imageRef := img.ID
	if len(img.Digests) > 0 {
		imageRef = img.Digests[0]
	}
	c.rec = containerRecord{ID: id, Config: raw, CreatedAt: r.opts.Clock.Now(), ImageID: img.ID, ImageRef: imageRef, Chain: img.Chain, StopSignal: cfg.Config.StopSignal}
	b := &builder{r: r, c: c, id: id, chain: r.images.ChainDir(img.Chain), image: &cfg.Config}
	if err := b.build(); err != nil {
		return err
	}
	c.rec.Start, c.rec.Limits = b.start, b.limits
	for _, d := range []string{"rootfs", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(c.dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(c.dir, "upper"), rootMode(b.chain)); err != nil {
		return err
	}
	if !r.overlay {
		if err := imagestore.CopyTree(b.chain, filepath.Join(c.dir, "rootfs")); err != nil {
			return err
		}
	}
	if r.level == shim.LevelNone {
		if err := b.linkMounts(); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.update(func(*containerRecord) {})
}

func rootMode(dir string) os.FileMode {
	if st, err := os.Stat(dir); err == nil {
		return st.Mode().Perm()
	}
	return 0o755
}

// StartContainer implements [kubelet.ContainerService].
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	c, err := r.container(id)
	if err != nil {
		return err
	}
	c.startMu.Lock()
	defer c.startMu.Unlock()
	if st := c.state(false); st != nil || c.record().Started {
		return status.Errorf(codes.FailedPrecondition, "failed to start container %q: container is in %s state", id, stateOf(st))
	}
	rec := c.record()
	if rec.Start.Cgroup != "" {
		g := r.cgroups.Group(rec.Start.Cgroup)
		if err := g.Create(); err != nil {
			return toStatus(err)
		}
		if err := g.Set(rec.Limits); err != nil {
			return toStatus(err)
		}
	}
	if err := c.update(func(rec *containerRecord) { rec.Started = true }); err != nil {
		return toStatus(err)
	}
	if err := r.simple(ctx, c.sb, shim.Request{Op: shim.OpStart, Container: id, Start: rec.Start}); err != nil {
		return toStatus(fmt.Errorf("failed to start container: %w", err))
	}
	r.emit(c, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return nil
}

// StopContainer implements [kubelet.ContainerService].
func (r *Runtime) StopContainer(ctx context.Context, id string, timeout int64) error {
	c, err := r.container(id)
	if err != nil {
		return nil
	}
	return toStatus(r.stopContainer(ctx, c, time.Duration(max(timeout, 0))*time.Second))
}

func (r *Runtime) stopContainer(ctx context.Context, c *container, grace time.Duration) error {
	if st := c.state(false); st == nil || st.Exited {
		return nil
	}
	err := r.simple(ctx, c.sb, shim.Request{Op: shim.OpStop, Container: c.rec.ID, Signal: int(c.stopSignal()), Grace: int64(grace)})
	if err != nil && (!c.sb.alive() || status.Code(err) == codes.FailedPrecondition) {
		return nil
	}
	return err
}

// RemoveContainer implements [kubelet.ContainerService].
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	c, err := r.container(id)
	if err != nil {
		return nil
	}
	c.sb.mu.Lock()
	defer c.sb.mu.Unlock()
	return toStatus(r.removeContainer(ctx, c.sb, c))
}

func (r *Runtime) removeContainer(ctx context.Context, sb *sandbox, c *container) error {
	c.startMu.Lock()
	defer c.startMu.Unlock()
	if _, err := r.container(c.rec.ID); err != nil {
		return nil
	}
	if err := r.stopContainer(ctx, c, 0); err != nil {
		return err
	}
	if path := c.rec.Start.Cgroup; path != "" && r.cgroups.Usable() {
		if err := r.cgroups.Group(path).Remove(); err != nil {
			return err
		}
	}
	if err := imagestore.RemoveAll(c.dir); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.containers, c.rec.ID)
	r.mu.Unlock()
	r.emit(c, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return nil
}

// ListContainers implements [kubelet.ContainerService].
func (r *Runtime) ListContainers(_ context.Context, f *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	r.mu.Lock()
	all := make([]*container, 0, len(r.containers))
	for _, c := range r.containers {
		all = append(all, c)
	}
	r.mu.Unlock()
	var list []*runtimeapi.Container
	for _, c := range all {
		rec := c.record()
		if f.GetId() != "" && f.GetId() != rec.ID || f.GetPodSandboxId() != "" && f.GetPodSandboxId() != c.sb.rec.ID || !selects(f.GetLabelSelector(), c.config.GetLabels()) {
			continue
		}
		state := stateOf(c.state(false))
		if f.GetState() != nil && f.State.State != state {
			continue
		}
		list = append(list, &runtimeapi.Container{
			Id: rec.ID, PodSandboxId: c.sb.rec.ID, Metadata: c.config.GetMetadata(), Image: c.config.GetImage(), ImageRef: rec.ImageRef, ImageId: rec.ImageID,
			State: state, CreatedAt: rec.CreatedAt.UnixNano(), Labels: c.config.GetLabels(), Annotations: c.config.GetAnnotations(),
		})
	}
	slices.SortFunc(list, func(a, b *runtimeapi.Container) int { return int(min(max(a.CreatedAt-b.CreatedAt, -1), 1)) })
	return list, nil
}

// ContainerStatus implements [kubelet.ContainerService].
func (r *Runtime) ContainerStatus(_ context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	c, err := r.container(id)
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ContainerStatusResponse{Status: r.containerStatus(c)}
	if verbose {
		info := map[string]any{"sandboxID": c.sb.rec.ID, "isolation": r.level, "rootfs": filepath.Join(c.dir, "rootfs")}
		if st := c.state(false); st != nil {
			info["pid"] = st.Pid
		}
		b, err := json.Marshal(info)
		if err != nil {
			return nil, err
		}
		resp.Info = map[string]string{"info": string(b)}
	}
	return resp, nil
}

func (r *Runtime) containerStatus(c *container) *runtimeapi.ContainerStatus {
	rec, cfg := c.record(), c.config
	st := c.state(false)
	out := &runtimeapi.ContainerStatus{
		Id: rec.ID, Metadata: cfg.GetMetadata(), State: stateOf(st), CreatedAt: rec.CreatedAt.UnixNano(),
		Image: cfg.GetImage(), ImageRef: rec.ImageRef, ImageId: rec.ImageID, Labels: cfg.GetLabels(), Annotations: cfg.GetAnnotations(), Mounts: cfg.GetMounts(),
		LogPath: rec.Start.LogPath, StopSignal: signalNumber(c.stopSignal()),
	}
	res := cfg.GetLinux().GetResources()
	if len(rec.Resources) > 0 {
		res = &runtimeapi.LinuxContainerResources{}
		if err := protojson.Unmarshal(rec.Resources, res); err != nil {
			r.opts.Logger.Error(err, "stored resources", "container", rec.ID)
		}
	}
	if r.cgroups.Usable() && res != nil {
		out.Resources = &runtimeapi.ContainerResources{Linux: res}
	}
	p := rec.Start.Spec.Process
	user := &runtimeapi.LinuxContainerUser{Uid: int64(p.UID), Gid: int64(p.GID)}
	for _, g := range p.Groups {
		user.SupplementalGroups = append(user.SupplementalGroups, int64(g))
	}
	out.User = &runtimeapi.ContainerUser{Linux: user}
	if st != nil {
		if !st.Started.IsZero() {
			out.StartedAt = st.Started.UnixNano()
		}
		if st.Exited {
			out.FinishedAt, out.ExitCode, out.Reason, out.Message = st.Finished.UnixNano(), st.ExitCode, st.Reason, st.Message
		}
	}
	return out
}

// UpdateContainerResources implements [kubelet.ContainerService].
func (r *Runtime) UpdateContainerResources(_ context.Context, id string, resources *runtimeapi.ContainerResources) error {
	c, err := r.container(id)
	if err != nil {
		return err
	}
	if !r.cgroups.Usable() {
		return status.Errorf(codes.FailedPrecondition, "limits can't be set on this machine: isolation is %s", r.Isolation())
	}
	limits, err := r.limits(resources.GetLinux())
	if err != nil {
		return err
	}
	st := c.state(false)
	if st != nil && st.Exited {
		return status.Errorf(codes.FailedPrecondition, "container %q has exited", id)
	}
	raw, err := protojson.Marshal(resources.GetLinux())
	if err != nil {
		return err
	}
	if st != nil {
		if err := r.cgroups.Group(c.record().Start.Cgroup).Set(limits); err != nil {
			return toStatus(err)
		}
	}
	return toStatus(c.update(func(rec *containerRecord) { rec.Limits, rec.Resources = limits, raw }))
}

// ReopenContainerLog implements [kubelet.ContainerService].
func (r *Runtime) ReopenContainerLog(ctx context.Context, id string) error {
	c, err := r.container(id)
	if err != nil {
		return err
	}
	if stateOf(c.state(false)) != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return status.Errorf(codes.FailedPrecondition, "container %q is not running", id)
	}
	return toStatus(r.simple(ctx, c.sb, shim.Request{Op: shim.OpReopen, Container: id}))
}
