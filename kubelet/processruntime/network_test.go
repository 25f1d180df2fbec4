//go:build linux

package processruntime_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/cni/bridge"
	"github.com/keelson/keelson/cni/loopback"
	"github.com/keelson/keelson/kubelet/processruntime"
	"github.com/keelson/keelson/kubelet/runtimetest"
)

// runPod starts a pod of one container and returns the sandbox's and the container's id.
func runPod(ctx context.Context, t *testing.T, inst *runtimetest.Instance, name string, change func(*runtimeapi.PodSandboxConfig, *runtimeapi.ContainerConfig), commands ...string) (pod, id string) {
	t.Helper()
	pc := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "n", Uid: name}, Hostname: name, LogDirectory: filepath.Join(inst.LogDir, name),
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}},
	}
	cc := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "main"}, Image: &runtimeapi.ImageSpec{Image: inst.Image}, Command: append([]string{"/workload"}, commands...), LogPath: "main.log",
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}},
	}
	if change != nil {
		change(pc, cc)
	}
	pod, err := inst.Runtime.RunPodSandbox(ctx, pc, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := inst.Runtime.RemovePodSandbox(context.Background(), pod); err != nil {
			t.Error(err)
		}
	})
	if id, err = inst.Runtime.CreateContainer(ctx, pod, cc, pc); err != nil {
		t.Fatal(err)
	}
	if err := inst.Runtime.StartContainer(ctx, id); err != nil {
		t.Fatal(err)
	}
	return pod, id
}

func waitLog(ctx context.Context, t *testing.T, inst *runtimetest.Instance, name, want string) string {
	t.Helper()
	for {
		b, _ := os.ReadFile(filepath.Join(inst.LogDir, name, "main.log"))
		if strings.Contains(string(b), want) {
			return string(b)
		}
		if ctx.Err() != nil {
			t.Fatalf("log of %s is %q, want %q in it", name, b, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func podIP(ctx context.Context, t *testing.T, inst *runtimetest.Instance, pod string) string {
	t.Helper()
	resp, err := inst.Runtime.PodSandboxStatus(ctx, pod, false)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status.Network.Ip
}

func say(ctx context.Context, addr string) (string, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func TestLoopbackNetwork(t *testing.T) {
	image := runtimetest.WorkloadImage(t, workloadBinary(t))
	for _, isolation := range levels(t) {
		t.Run(string(isolation), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			network, err := loopback.New(loopback.Options{Prefix: netip.MustParsePrefix("127.201.0.0/24"), StateDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			inst := instance(t, processruntime.Options{Isolation: isolation, Network: network}, image)
			seen := make(map[string]bool)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			port := l.Addr().(*net.TCPAddr).Port
			l.Close()
			hosts := "cat /etc/hosts"
			for i := range 3 {
				name := fmt.Sprintf("pod-%d", i)
				// All three take one port on "all addresses", which are their own only.
				pod, id := runPod(ctx, t, inst, name, nil, hosts, fmt.Sprintf("listen %d", port))
				ip := podIP(ctx, t, inst, pod)
				if !strings.HasPrefix(ip, "127.201.0.") || seen[ip] {
					t.Errorf("address of %s is %q, want one of its own", name, ip)
				}
				seen[ip] = true
				log := waitLog(ctx, t, inst, name, "listening")
				if got, err := say(ctx, net.JoinHostPort(ip, fmt.Sprint(port))); err != nil || got != "you said hello\n" {
					t.Errorf("%s answers %q, %v", ip, got, err)
				}
				// Within the pod, localhost is the pod.
				for _, local := range []string{"127.0.0.1", "[::1]"} {
					out, _, err := inst.Runtime.ExecSync(ctx, id, []string{"/workload", fmt.Sprintf("dial %s:%d", local, port)}, 10*time.Second)
					if err != nil || string(out) != "you said hello\n" {
						t.Errorf("%s in %s: %q, %v", local, name, out, err)
					}
				}
				// What is executed in the container is of the pod too: there the port is taken.
				_, _, err := inst.Runtime.ExecSync(ctx, id, []string{"/workload", fmt.Sprintf("listen %d", port)}, 10*time.Second)
				if err == nil || !strings.Contains(err.Error(), "address already in use") {
					t.Errorf("listening twice in %s: %v", name, err)
				}
				if isolation != processruntime.IsolationNone && !strings.Contains(log, ip+"\t"+name) {
					t.Errorf("/etc/hosts has not %s for %s: %s", ip, name, log)
				}
			}
		})
	}
}

func TestBridgeNetwork(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("nft"); err != nil {
		if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	network, err := bridge.New(bridge.Options{PodCIDR: netip.MustParsePrefix("10.217.33.0/24"), StateDir: t.TempDir(), Bridge: "kprtest0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := network.Status(ctx); err != nil {
		t.Fatal(err)
	}
	image := runtimetest.WorkloadImage(t, workloadBinary(t))
	inst := instance(t, processruntime.Options{Isolation: processruntime.IsolationNamespaces, Network: network}, image)
	var pods []string
	for _, name := range []string{"a", "b"} {
		// Both listen on one port, each in its own network namespace.
		pod, _ := runPod(ctx, t, inst, name, nil, "hostname", "listen 8080")
		waitLog(ctx, t, inst, name, "listening")
		pods = append(pods, pod)
	}
	ips := []string{podIP(ctx, t, inst, pods[0]), podIP(ctx, t, inst, pods[1])}
	if ips[0] == ips[1] {
		t.Fatalf("both pods have %s", ips[0])
	}
	for _, ip := range ips {
		if got, err := say(ctx, net.JoinHostPort(ip, "8080")); err != nil || got != "you said hello\n" {
			t.Errorf("%s answers %q, %v", ip, got, err)
		}
	}
	host, id := runPod(ctx, t, inst, "host", func(pc *runtimeapi.PodSandboxConfig, _ *runtimeapi.ContainerConfig) {
		pc.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	}, "trap")
	if ip := podIP(ctx, t, inst, host); ip != "" {
		t.Errorf("a pod on the node's network has address %s", ip)
	}
	own, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := inst.Runtime.ExecSync(ctx, id, []string{"/workload", "cat /proc/self/net/dev"}, 10*time.Second)
	if err != nil || strings.Count(string(out), "\n") != strings.Count(string(own), "\n") {
		t.Errorf("interfaces of a pod on the node's network: %s %v", out, err)
	}
	runtimetest.Run(t, runtimetest.Config{New: func(*testing.T) *runtimetest.Instance { return inst }, Without: nil, Only: "PortForward|PortForwardRefused|ResolvConf|Hostname|Restart|ManyAtOnce"})
}

func TestCopiedFiles(t *testing.T) {
	needRoot(t)
	image := runtimetest.WorkloadImage(t, workloadBinary(t))
	runtimetest.Run(t, runtimetest.Config{
		New: func(t *testing.T) *runtimetest.Instance {
			return instance(t, processruntime.Options{Isolation: processruntime.IsolationNamespaces, Snapshotter: "copy", DisableCgroups: true}, image)
		},
		Only: "NothingLeft|Mounts|ReadonlyRootfs|WritableRootfs|Stats|Restart|FileMount|RunAsUser",
	})
}

func TestUserNamespaceUser(t *testing.T) {
	needUserNS(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	inst := instance(t, processruntime.Options{Isolation: processruntime.IsolationUserNS}, runtimetest.WorkloadImage(t, workloadBinary(t)))
	_, id := runPod(ctx, t, inst, "user", func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		sc := c.Linux.SecurityContext
		sc.RunAsUser, sc.RunAsGroup, sc.NoNewPrivs = &runtimeapi.Int64Value{Value: 1000}, &runtimeapi.Int64Value{Value: 2000}, true
		sc.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	}, "id", "caps", "write /tmp/mine yes", "cat /tmp/mine", "trap")
	log := waitLog(ctx, t, inst, "user", "ready")
	for _, want := range []string{"1000 2000 [", "CapEff: 0000000000000000", "F yes"} {
		if !strings.Contains(log, want) {
			t.Errorf("log has no %q: %s", want, log)
		}
	}
	out, _, err := inst.Runtime.ExecSync(ctx, id, []string{"/workload", "id", "cat /tmp/mine", "seccomp"}, 10*time.Second)
	if err != nil || !strings.HasPrefix(string(out), "1000 2000 [") || !strings.HasSuffix(string(out), "yes\nSeccomp: 2\n") {
		t.Errorf("ExecSync: %q, %v", out, err)
	}
}
