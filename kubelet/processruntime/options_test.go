//go:build linux

package processruntime_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime"
	"github.com/keelson/keelson/kubelet/runtimetest"
)

func TestOptions(t *testing.T) {
	for want, o := range map[string]processruntime.Options{
		"Options.Root is \"\"":  {},
		"Options.Root is \"x\"": {Root: "x"},
		"without comma":         {Root: "/a,b"},
		"Options.Isolation":     {Root: "/a", Isolation: "jail"},
		"Options.Snapshotter":   {Root: "/a", Snapshotter: "zfs"},
		"Options.InitPath":      {Root: "/a", InitPath: "x"},
		"Options.StreamAddr":    {Root: "/a", StreamAddr: "nonsense"},
		"Options.StartTimeout":  {Root: "/a", StartTimeout: -1},
		"Options.PidsLimit":     {Root: "/a", PidsLimit: -1},
	} {
		if _, err := processruntime.New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%+v): %v, want an error with %s", o, err, want)
		}
	}
}

func TestOneRuntimePerRoot(t *testing.T) {
	root := shortDir(t)
	r, err := processruntime.New(processruntime.Options{Root: root, Isolation: processruntime.IsolationNone})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := processruntime.New(processruntime.Options{Root: root, Isolation: processruntime.IsolationNone}); err == nil || !strings.Contains(err.Error(), "another runtime") {
		t.Errorf("a second runtime on one directory: %v", err)
	}
	for range 2 {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.RunPodSandbox(context.Background(), &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "x"}}, ""); err == nil {
		t.Error("a closed runtime runs a sandbox")
	}
}

// TestNoInit: a program that forgot Init is told what to add, instead of being started again and again.
func TestNoInit(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a program")
	}
	dir := t.TempDir()
	main := filepath.Join(dir, "main.go")
	if err := os.WriteFile(main, []byte(`package main
import (
	"fmt"
	"github.com/keelson/keelson/kubelet/processruntime"
)
func main() {
	_, err := processruntime.New(processruntime.Options{Root: "`+dir+`/root"})
	fmt.Println(err)
}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "run", main).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "call processruntime.Init() first thing in main") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	inst := instance(t, processruntime.Options{Isolation: processruntime.IsolationNone, KillOnClose: true}, runtimetest.WorkloadImage(t, workloadBinary(t)))
	r := inst.Runtime
	pod := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"}}
	if _, err := r.RunPodSandbox(ctx, pod, "gvisor"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an unknown runtime handler: %v", err)
	}
	id, err := r.RunPodSandbox(ctx, pod, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*runtimeapi.ContainerConfig){
		"bidirectional propagation": func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: "/tmp", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL}}
		},
		"a relative mount": func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "x", HostPath: "/tmp"}}
		},
		"CDI": func(c *runtimeapi.ContainerConfig) { c.CDIDevices = []*runtimeapi.CDIDevice{{Name: "gpu"}} },
		"a localhost profile": func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "x.json"}
		},
		"privilege": func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.Privileged = true },
		"an unknown capability": func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"FLY"}}
		},
		"huge pages": func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 1}}}
		},
		"an unknown user": func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.RunAsUsername = "somebody" },
	} {
		c := &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: workload},
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{}},
		}
		change(c)
		if _, err := r.CreateContainer(ctx, id, c, pod); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
	}
}
