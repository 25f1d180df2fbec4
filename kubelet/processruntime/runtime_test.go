//go:build linux

package processruntime_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"

	"github.com/keelson/keelson/kubelet/processruntime"
	"github.com/keelson/keelson/kubelet/runtimetest"
)

func TestMain(m *testing.M) {
	if processruntime.Init() {
		return
	}
	if role := os.Getenv(roleEnv); role != "" {
		play(role)
		return
	}
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

const workload = "localhost/workload:1"

// instance makes a runtime with the suite's image on a fresh directory.
func instance(t *testing.T, o processruntime.Options, image v1.Image) *runtimetest.Instance {
	t.Helper()
	dir := shortDir(t)
	o.Root = filepath.Join(dir, "root")
	logs := filepath.Join(dir, "logs")
	if err := os.Mkdir(logs, 0o777); err != nil {
		t.Fatal(err)
	}
	inst := open(t, o)
	inst.LogDir = logs
	if _, err := inst.Images.(*processruntime.Runtime).ImportImage(context.Background(), image, workload); err != nil {
		t.Fatal(err)
	}
	return inst
}

// shortDir is a directory that other users can enter.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "kpr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, o processruntime.Options) *runtimetest.Instance {
	r, err := processruntime.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.Isolation())
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
	return &runtimetest.Instance{
		Runtime: r, Images: r, Events: r, Image: workload,
		Restart:   func(t testing.TB) *runtimetest.Instance { shut(); return open(t, o) },
		Leftovers: func() []string { return leftovers(o.Root) },
	}
}

// leftovers looks for all traces of pods: directories, mounts, shims, processes and cgroups.
func leftovers(root string) []string {
	var left []string
	entries, _ := os.ReadDir(filepath.Join(root, "sandboxes"))
	for _, e := range entries {
		left = append(left, "directory "+e.Name())
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, root) {
			left = append(left, "mount "+line)
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		cmd, _ := os.ReadFile(p)
		cwd, _ := os.Readlink(filepath.Join(filepath.Dir(p), "exe"))
		if strings.Contains(string(cmd), "sleep 100000000") && !strings.HasPrefix(string(cmd), "go") || strings.HasPrefix(cwd, root) {
			left = append(left, fmt.Sprintf("process %s %q", p, cmd))
		}
	}
	return left
}

// binaryEnv names a workload that was built by whom runs these tests again as another user.
const binaryEnv = "KEELSON_TEST_WORKLOAD"

func workloadBinary(t *testing.T) string {
	if file := os.Getenv(binaryEnv); file != "" {
		return file
	}
	return runtimetest.BuildWorkload(t)
}

func TestRuntime(t *testing.T) {
	image := runtimetest.WorkloadImage(t, workloadBinary(t))
	for _, tc := range []struct {
		isolation processruntime.Isolation
		without   []runtimetest.Feature
	}{
		{isolation: processruntime.IsolationNamespaces},
		{isolation: processruntime.IsolationUserNS, without: []runtimetest.Feature{runtimetest.Users, runtimetest.Limits}},
		{isolation: processruntime.IsolationNone, without: withoutIsolation()},
	} {
		t.Run(string(tc.isolation), func(t *testing.T) {
			switch tc.isolation {
			case processruntime.IsolationNamespaces:
				needRoot(t)
			case processruntime.IsolationUserNS:
				needUserNS(t)
			}
			runtimetest.Run(t, runtimetest.Config{
				New: func(t *testing.T) *runtimetest.Instance {
					return instance(t, processruntime.Options{Isolation: tc.isolation}, image)
				},
				Without: tc.without,
			})
		})
	}
}

func withoutIsolation() []runtimetest.Feature {
	return []runtimetest.Feature{runtimetest.Filesystem, runtimetest.PIDs, runtimetest.Users, runtimetest.Limits, runtimetest.Capabilities, runtimetest.Hostname}
}

// needUserNS skips where user namespaces are not permitted.
func needUserNS(t *testing.T) {
	t.Helper()
	r, err := processruntime.New(processruntime.Options{Root: shortDir(t), Isolation: processruntime.IsolationUserNS})
	if err != nil {
		if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if err := r.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// needRoot skips what only root can do, unless such tests are required.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") == "1" {
		t.Fatal("privileged tests are required, and this is not root")
	}
	t.Skip("needs root")
}
