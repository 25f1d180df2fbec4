//go:build linux

package runtimetest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/processruntime"
)

func TestMain(m *testing.M) {
	if processruntime.Init() {
		return
	}
	goleak.VerifyTestMain(m)
}

// broken is a runtime with a fault.
type broken struct {
	kubelet.RuntimeService
	kubelet.EventService
	fault string
}

func (b *broken) is(fault string) bool { return b.fault == fault }

func (b *broken) RunPodSandbox(ctx context.Context, c *runtimeapi.PodSandboxConfig, h string) (string, error) {
	switch {
	case b.is("two sandboxes for one attempt"):
		c = withAttempt(c)
	case b.is("sandbox labels lost"):
		c.Labels = nil
	}
	return b.RuntimeService.RunPodSandbox(ctx, c, h)
}

func withAttempt(c *runtimeapi.PodSandboxConfig) *runtimeapi.PodSandboxConfig {
	out := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: c.Metadata.Name, Namespace: c.Metadata.Namespace, Uid: c.Metadata.Uid, Attempt: uint32(names.Add(1))}, LogDirectory: c.LogDirectory, Labels: c.Labels}
	return out
}

func (b *broken) StopPodSandbox(ctx context.Context, id string) error {
	if b.is("stopping does nothing") {
		return nil
	}
	if b.is("stopping what is gone fails") {
		if _, err := b.PodSandboxStatus(ctx, id, false); err != nil {
			return err
		}
	}
	return b.RuntimeService.StopPodSandbox(ctx, id)
}

func (b *broken) ListPodSandbox(ctx context.Context, f *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	if b.is("sandbox state filter ignored") && f != nil {
		f.State = nil
	}
	return b.RuntimeService.ListPodSandbox(ctx, f)
}

func (b *broken) ListContainers(ctx context.Context, f *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	if b.is("container label filter ignored") && f != nil {
		f.LabelSelector = nil
		f.Id = ""
	}
	return b.RuntimeService.ListContainers(ctx, f)
}

func (b *broken) PodSandboxStatus(ctx context.Context, id string, v bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	r, err := b.RuntimeService.PodSandboxStatus(ctx, id, v)
	if err != nil && b.is("wrong code for unknown ids") {
		err = status.Error(codes.Unknown, err.Error())
	}
	return r, err
}

func (b *broken) ContainerStatus(ctx context.Context, id string, v bool) (*runtimeapi.ContainerStatusResponse, error) {
	r, err := b.RuntimeService.ContainerStatus(ctx, id, v)
	if err != nil {
		return r, err
	}
	switch {
	case b.is("exit codes lost"):
		r.Status.ExitCode = 0
	case b.is("container annotations lost"):
		r.Status.Annotations = nil
	case b.is("always running") && r.Status.State == runtimeapi.ContainerState_CONTAINER_EXITED:
		r.Status.State = runtimeapi.ContainerState_CONTAINER_RUNNING
	case b.is("no reasons"):
		r.Status.Reason = ""
	}
	return r, err
}

func (b *broken) CreateContainer(ctx context.Context, pod string, c *runtimeapi.ContainerConfig, pc *runtimeapi.PodSandboxConfig) (string, error) {
	switch {
	case b.is("environment lost"):
		c.Envs = nil
	case b.is("arguments lost"):
		c.Args = nil
	case b.is("no logs"):
		c.LogPath = ""
	}
	return b.RuntimeService.CreateContainer(ctx, pod, c, pc)
}

func (b *broken) StopContainer(ctx context.Context, id string, grace int64) error {
	if b.is("no grace") {
		grace = 0
	}
	return b.RuntimeService.StopContainer(ctx, id, grace)
}

func (b *broken) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) ([]byte, []byte, error) {
	switch {
	case b.is("exec has no timeout"):
		timeout = 0
	case b.is("exec exit code lost"):
		out, errOut, _ := b.RuntimeService.ExecSync(ctx, id, cmd, timeout)
		return out, errOut, nil
	}
	return b.RuntimeService.ExecSync(ctx, id, cmd, timeout)
}

func (b *broken) ReopenContainerLog(ctx context.Context, id string) error {
	if b.is("log not reopened") {
		return nil
	}
	return b.RuntimeService.ReopenContainerLog(ctx, id)
}

func (b *broken) RemovePodSandbox(ctx context.Context, id string) error {
	if b.is("containers outlive their sandbox's removal") {
		return b.RuntimeService.StopPodSandbox(ctx, id)
	}
	return b.RuntimeService.RemovePodSandbox(ctx, id)
}

func (b *broken) GetContainerEvents(ctx context.Context, ch chan<- *runtimeapi.ContainerEventResponse) error {
	inner := make(chan *runtimeapi.ContainerEventResponse)
	done := make(chan error, 1)
	go func() { done <- b.EventService.GetContainerEvents(ctx, inner) }()
	for {
		select {
		case ev := <-inner:
			if b.is("no event of an end") && ev.ContainerEventType == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
				continue
			}
			select {
			case ch <- ev:
			case <-ctx.Done():
			}
		case err := <-done:
			return err
		}
	}
}

// TestBroken: each fault is found by the check that is there for it, and by none of a sound runtime.
func TestBroken(t *testing.T) {
	dir, err := os.MkdirTemp("", "krt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	r, err := processruntime.New(processruntime.Options{Root: filepath.Join(dir, "root"), Isolation: processruntime.IsolationNone, KillOnClose: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if _, err := r.ImportImage(context.Background(), WorkloadImage(t, BuildWorkload(t)), "localhost/workload:1"); err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]check)
	for _, c := range checks() {
		byName[c.name] = c
	}
	for _, tc := range []struct{ fault, check, says string }{
		{"two sandboxes for one attempt", "SandboxIdempotence", "twice"},
		{"sandbox labels lost", "SandboxMetadata", "labels"},
		{"stopping does nothing", "SandboxLifeCycle", "NOTREADY"},
		{"stopping what is gone fails", "UnknownIDs", "StopPodSandbox"},
		{"sandbox state filter ignored", "SandboxFilter", "filter ready"},
		{"container label filter ignored", "ContainerFilter", "id of another sandbox"},
		{"wrong code for unknown ids", "UnknownIDs", "NotFound"},
		{"exit codes lost", "ExitCodes", "exit code is 0, want 1"},
		{"container annotations lost", "ContainerMetadata", "annotations"},
		{"always running", "ContainerLifeCycle", "CONTAINER_EXITED"},
		{"no reasons", "ContainerLifeCycle", "reason"},
		{"environment lost", "Environment", "SPACES"},
		{"arguments lost", "CommandAndArgs", "output"},
		{"no logs", "LogFormat", ""},
		{"no grace", "StopGrace", "exit code"},
		{"no grace", "StopKills", "grace"},
		{"exec has no timeout", "ExecSyncTimeout", ""},
		{"exec exit code lost", "ExecSync", "want an ExitError"},
		{"log not reopened", "LogReopen", "no such file"},
		{"containers outlive their sandbox's removal", "SandboxRemoveTakesContainers", "containers of a removed sandbox"},
		{"no event of an end", "Events", "CONTAINER_STOPPED_EVENT"},
	} {
		t.Run(tc.fault+"/"+tc.check, func(t *testing.T) {
			attempt := func(fault string, timeout time.Duration) error {
				b := &broken{RuntimeService: r, EventService: r, fault: fault}
				inst := &Instance{Runtime: b, Images: r, Events: b, Image: "localhost/workload:1", LogDir: t.TempDir()}
				return byName[tc.check].attempt(t, inst, timeout)
			}
			if err := attempt("", time.Minute); err != nil {
				t.Errorf("a sound runtime fails: %v", err)
			}
			// Some faults show only by something that never comes, for which a short time is enough; others need a long one on a busy machine.
			err := attempt(tc.fault, 3*time.Second)
			if err != nil && !strings.Contains(err.Error(), tc.says) {
				err = attempt(tc.fault, time.Minute)
			}
			switch {
			case err == nil:
				t.Error("the fault is not found")
			case !strings.Contains(err.Error(), tc.says):
				t.Errorf("found by %q, want that it says %q", err, tc.says)
			}
			list, err := r.ListPodSandbox(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, sb := range list {
				if err := r.RemovePodSandbox(context.Background(), sb.Id); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestParseLog(t *testing.T) {
	for _, bad := range []string{"x\n", "2026-01-01T00:00:00Z stdout X text\n", "2026-01-01T00:00:00Z both F text\n", "yesterday stdout F text\n"} {
		if _, err := parseLog([]byte(bad)); err == nil {
			t.Errorf("parseLog(%q) succeeded", bad)
		}
	}
}
