//go:build linux

package criruntime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/criruntime"
	"github.com/keelson/keelson/kubelet/processruntime/image"
	"github.com/keelson/keelson/kubelet/runtimetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	workload = "localhost/workload:1"
	pause    = "localhost/pause:1"
)

// lack skips for want of something, unless it must be there.
func lack(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") == "1" {
		t.Fatalf("privileged tests are required: "+format, args...)
	}
	t.Skipf(format, args...)
}

// containerd starts a containerd of its own, with nothing outside one directory, and returns its endpoint.
func containerd(t *testing.T, dir string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		lack(t, "containerd needs root")
	}
	for _, program := range []string{"containerd", "runc", "ctr"} {
		if _, err := exec.LookPath(program); err != nil {
			lack(t, "needs Debian's packages containerd and runc: %v", err)
		}
	}
	socket := filepath.Join(dir, "c.sock")
	config := fmt.Sprintf(`version = 2
root = %[1]q
state = %[2]q
disabled_plugins = ["io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = %[3]q
[plugins."io.containerd.internal.v1.opt"]
  path = %[4]q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[5]q
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[6]q
    conf_dir = %[6]q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), socket, filepath.Join(dir, "opt"), pause, filepath.Join(dir, "cni"))
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	logFile, err := os.Create(filepath.Join(dir, "containerd.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("containerd", "--config", file)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	logFile.Close()
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(logFile.Name())
			t.Logf("containerd's log ends with:\n%s", b[max(0, len(b)-4000):])
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		killed := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		killed.Stop()
	})
	return "unix://" + socket
}

func connect(t testing.TB, endpoint string) *criruntime.Runtime {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		r, err := criruntime.New(ctx, endpoint, criruntime.Options{Timeout: 20 * time.Second})
		if err == nil {
			// The socket is there before all plugins are.
			if _, err = r.Status(ctx, false); err == nil {
				return r
			}
			_ = r.Close(ctx)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("containerd does not come up: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// load imports an image, for which CRI has no call.
func load(t *testing.T, endpoint, ref string, img v1.Image) {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ctr", "--address", strings.TrimPrefix(endpoint, "unix://"), "--namespace", "k8s.io", "images", "import", file).CombinedOutput()
	if err != nil {
		t.Fatalf("importing %s: %v\n%s", ref, err, out)
	}
}

func TestContainerd(t *testing.T) {
	dir, err := os.MkdirTemp("", "kcri")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	endpoint := containerd(t, dir)
	binary := runtimetest.BuildWorkload(t)
	runtimetest.Run(t, runtimetest.Config{
		New: func(t *testing.T) *runtimetest.Instance {
			inst := instance(t, endpoint)
			load(t, endpoint, workload, runtimetest.WorkloadImage(t, binary))
			pauseImage, err := image.FromBinary(binary, image.Options{Path: "/pause", Args: []string{"trap"}})
			if err != nil {
				t.Fatal(err)
			}
			load(t, endpoint, pause, pauseImage)
			return inst
		},
		Timeout: time.Minute,
	})
}

func instance(t testing.TB, endpoint string) *runtimetest.Instance {
	r := connect(t, endpoint)
	closed := false
	shut := func() {
		if !closed {
			closed = true
			if err := r.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(shut)
	inst := &runtimetest.Instance{
		Lags: true, Runtime: r, Images: r, Image: workload,
		Restart: func(t testing.TB) *runtimetest.Instance { shut(); return instance(t, endpoint) },
		// No CNI plugin is needed to show that pods run.
		Sandbox: func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network, c.Hostname = runtimeapi.NamespaceMode_NODE, ""
		},
	}
	// Older runtimes have no events, and say so.
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	err := r.GetContainerEvents(ctx, make(chan *runtimeapi.ContainerEventResponse))
	if status.Code(err) != codes.Unimplemented {
		if !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("GetContainerEvents: %v", err)
		}
		inst.Events = r
	}
	return inst
}

func TestNewRefuses(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, tc := range []struct {
		endpoint string
		opts     criruntime.Options
		want     string
	}{
		{"/run/x.sock", criruntime.Options{}, "endpoint"},
		{"unix:///run/x.sock", criruntime.Options{ImageEndpoint: "x"}, "ImageEndpoint"},
		{"unix:///run/x.sock", criruntime.Options{Timeout: -1}, "Timeout"},
		{"unix://" + t.TempDir() + "/none.sock", criruntime.Options{Timeout: time.Second}, "none.sock"},
	} {
		_, err := criruntime.New(ctx, tc.endpoint, tc.opts)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("New(%q, %+v): %v, want an error that names %s", tc.endpoint, tc.opts, err, tc.want)
		}
	}
}
