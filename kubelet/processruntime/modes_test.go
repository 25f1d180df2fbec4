//go:build linux

package processruntime_test

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/cni"
	"github.com/keelson/keelson/kubelet/processruntime"
	"github.com/keelson/keelson/kubelet/runtimetest"
)

// noNetwork makes namespaces without interfaces.
type noNetwork struct{}

func (noNetwork) Setup(context.Context, cni.Sandbox) (cni.Result, error) { return cni.Result{}, nil }
func (noNetwork) Teardown(context.Context, cni.Sandbox) error            { return nil }
func (noNetwork) Status(context.Context) error                           { return nil }

func TestModes(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	inst := instance(t, processruntime.Options{Isolation: processruntime.IsolationNamespaces, Network: noNetwork{}}, runtimetest.WorkloadImage(t, workloadBinary(t)))
	log := func(t *testing.T, name string, change func(*runtimeapi.PodSandboxConfig, *runtimeapi.ContainerConfig), commands ...string) string {
		runPod(ctx, t, inst, name, change, append(commands, "trap")...)
		return waitLog(ctx, t, inst, name, "F ready")
	}
	t.Run("privileged", func(t *testing.T) {
		out := log(t, "privileged", func(p *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
			p.Linux.SecurityContext.Privileged, c.Linux.SecurityContext.Privileged = true, true
		}, "unshare", "access /sys/kernel/mm/ksm/run", "access /dev/null")
		if !strings.Contains(out, "<nil>") || strings.Count(out, "writable") != 2 {
			t.Errorf("log is %s", out)
		}
	})
	t.Run("host processes", func(t *testing.T) {
		out := log(t, "host-pid", func(p *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
			p.Linux.SecurityContext.NamespaceOptions.Pid, c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE
		}, "pids", "child")
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if n, err := strconv.Atoi(f[len(f)-1]); err == nil && n < 3 {
				t.Errorf("a container that sees the node's processes counts %d", n)
			}
		}
	})
	t.Run("own network", func(t *testing.T) {
		out := log(t, "network", func(p *runtimeapi.PodSandboxConfig, _ *runtimeapi.ContainerConfig) {
			p.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "77"}
		}, "cat /proc/net/dev", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
		if !strings.Contains(out, "lo:") || strings.Contains(out, "eth0") || !strings.Contains(out, "F 77") {
			t.Errorf("log is %s", out)
		}
	})
	t.Run("target's processes", func(t *testing.T) {
		pod, id := runPod(ctx, t, inst, "target", nil, "trap")
		pc := &runtimeapi.PodSandboxConfig{LogDirectory: filepath.Join(inst.LogDir, "debug")}
		debug, err := inst.Runtime.CreateContainer(ctx, pod, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "debug"}, Image: &runtimeapi.ImageSpec{Image: inst.Image}, Command: []string{"/workload", "trap"},
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: id}}},
		}, pc)
		if err != nil {
			t.Fatal(err)
		}
		if err := inst.Runtime.StartContainer(ctx, debug); err != nil {
			t.Fatal(err)
		}
		out, _, err := inst.Runtime.ExecSync(ctx, debug, []string{"/workload", "pids", "cat /proc/1/cmdline"}, 10*time.Second)
		if err != nil || string(out) != "3\n/workload\x00trap\x00" {
			t.Errorf("the target's processes and this one's: %q, %v", out, err)
		}
	})
	t.Run("image volume", func(t *testing.T) {
		out := log(t, "image-volume", func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/other", Image: &runtimeapi.ImageSpec{Image: inst.Image}, Readonly: true}}
		}, "access /other/workload")
		if !strings.Contains(out, "read-only file system") && !strings.Contains(out, "text file busy") {
			t.Errorf("log is %s", out)
		}
	})
	t.Run("masked", func(t *testing.T) {
		out := log(t, "masked", func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.MaskedPaths = []string{"/proc/version", "/sys/firmware", "/none"}
			c.Linux.SecurityContext.ReadonlyPaths = []string{"/proc/sys", "/none"}
		}, "cat /proc/version", "access /proc/sys/kernel/hostname", "access /sys/x")
		if strings.Count(out, "read-only file system") != 2 || strings.Contains(out, "Linux version") {
			t.Errorf("log is %s", out)
		}
	})
}
