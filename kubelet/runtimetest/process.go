package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func processChecks() []check {
	p := []Feature{Processes}
	fs := []Feature{Processes, Filesystem}
	return []check{
		{name: "ExitCodes", needs: p, run: checkExitCodes},
		{name: "StartError", needs: p, run: checkStartError},
		{name: "StopGrace", needs: p, run: checkStopGrace},
		{name: "StopKills", needs: p, run: checkStopKills},
		{name: "CommandAndArgs", needs: p, run: checkCommand},
		{name: "Environment", needs: p, run: checkEnvironment},
		{name: "WorkingDir", needs: fs, run: checkWorkingDir},
		{name: "Mounts", needs: fs, run: checkMounts},
		{name: "ReadonlyMount", needs: fs, run: checkReadonlyMount},
		{name: "FileMount", needs: fs, run: checkFileMount},
		{name: "ReadonlyRootfs", needs: fs, run: checkReadonlyRootfs},
		{name: "WritableRootfs", needs: fs, run: checkWritableRootfs},
		{name: "ResolvConf", needs: fs, run: checkResolvConf},
		{name: "Hostname", needs: []Feature{Processes, Hostname}, run: checkHostname},
		{name: "OwnPIDs", needs: []Feature{Processes, PIDs}, run: checkOwnPIDs},
		{name: "SharedPIDs", needs: []Feature{Processes, PIDs}, run: checkSharedPIDs},
		{name: "RunAsUser", needs: []Feature{Processes, Users}, run: checkRunAsUser},
		{name: "Capabilities", needs: []Feature{Processes, Capabilities}, run: checkCapabilities},
		{name: "NoNewPrivs", needs: []Feature{Processes, Capabilities}, run: checkNoNewPrivs},
		{name: "OOMKilled", needs: []Feature{Processes, Limits}, run: checkOOM},
		{name: "UpdateResources", needs: []Feature{Processes, Limits}, run: checkUpdateResources},
	}
}

func checkExitCodes(ctx context.Context, e *env) error {
	pod, pc, err := e.pod(ctx)
	if err != nil {
		return err
	}
	for _, code := range []int32{0, 1, 42, 255} {
		s, err := e.start(ctx, pod, pc, e.containerConfig(fmt.Sprintf("exit-%d", code), fmt.Sprintf("exit %d", code)))
		if err != nil {
			return err
		}
		st, err := s.exited(ctx)
		if err != nil {
			return err
		}
		reason := "Error"
		if code == 0 {
			reason = "Completed"
		}
		if err := errors.Join(expect("exit code", st.ExitCode, code), expect("reason", st.Reason, reason)); err != nil {
			return err
		}
	}
	return nil
}

func checkStartError(ctx context.Context, e *env) error {
	pod, pc, err := e.pod(ctx)
	if err != nil {
		return err
	}
	c := e.containerConfig("main")
	c.Command = []string{"/no/such/program"}
	id, err := e.Runtime.CreateContainer(ctx, pod, c, pc)
	if err != nil {
		return err
	}
	err = e.Runtime.StartContainer(ctx, id)
	if err == nil || !strings.Contains(err.Error(), "no such file") && !strings.Contains(err.Error(), "not found") {
		return fmt.Errorf("starting a program that is not there: %w", err)
	}
	s := &started{e: e, id: id}
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	return errors.Join(expect("state", st.State, runtimeapi.ContainerState_CONTAINER_EXITED), expect("failed", st.ExitCode != 0, true), expect("reason", st.Reason, "StartError"))
}

func checkStopGrace(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "trap")
	if err != nil {
		return err
	}
	if err := s.printed(ctx, "ready"); err != nil {
		return err
	}
	took, err := s.stopTook(ctx, 20)
	if err != nil {
		return err
	}
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	out, _, err := s.logs()
	return errors.Join(err, expect("exit code of a container that ends by itself", st.ExitCode, 0), expect("output", out, "ready\nterminated\n"), expect("took less than the grace", took < 15*time.Second, true))
}

func checkStopKills(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "ignore")
	if err != nil {
		return err
	}
	if err := s.printed(ctx, "ready"); err != nil {
		return err
	}
	took, err := s.stopTook(ctx, 1)
	if err != nil {
		return err
	}
	st, err := s.status(ctx)
	return errors.Join(err, expect("exit code of a container that was killed", st.GetExitCode(), 137), expect("took the grace", took > 900*time.Millisecond && took < 10*time.Second, true))
}

func checkCommand(ctx context.Context, e *env) error {
	out, err := e.output(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Args = []string{"print a b", "", "args"}
		c.Args = []string{"print a  b", "args"}
	}, "print first")
	return errors.Join(err, expect("output", out, "first\na  b\nprint first|print a  b|args\n"))
}

func checkEnvironment(ctx context.Context, e *env) error {
	out, err := e.output(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Envs = []*runtimeapi.KeyValue{{Key: "ONE", Value: []byte("1")}, {Key: "SPACES", Value: []byte("a b = c")}, {Key: "EMPTY"}, {Key: "ONE", Value: []byte("last")}}
	}, "env ONE", "env SPACES", "env EMPTY", "env PATH")
	if err != nil {
		return err
	}
	lines := strings.Split(out, "\n")
	if len(lines) < 4 {
		return fmt.Errorf("output is %q", out)
	}
	return errors.Join(expect("a variable given twice", lines[0], "last"), expect("SPACES", lines[1], "a b = c"), expect("EMPTY", lines[2], ""), expect("PATH is set", lines[3] != "", true))
}

func checkWorkingDir(ctx context.Context, e *env) error {
	out, err := e.output(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) { c.WorkingDir = "/tmp" }, "pwd")
	return errors.Join(err, expect("working directory", out, "/tmp\n"))
}

// volume makes a directory with a file, to be mounted.
func (e *env) volume() (string, error) {
	// Not the test's own temporary directory: its parents may be closed to the runtime's user.
	dir, err := os.MkdirTemp(e.LogDir, "volume-")
	if err != nil {
		return "", err
	}
	return dir, errors.Join(os.Chmod(dir, 0o777), os.WriteFile(filepath.Join(dir, "file"), []byte("content\n"), 0o644))
}

func checkMounts(ctx context.Context, e *env) error {
	dir, err := e.volume()
	if err != nil {
		return err
	}
	out, err := e.output(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/data/deep/volume", HostPath: dir}}
	}, "cat /data/deep/volume/file", "write /data/deep/volume/new from inside", "access /data/deep/volume/new")
	if err := errors.Join(err, expect("output", out, "content\nwritable\n")); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dir, "new"))
	return errors.Join(err, expect("file on the node", string(b), "from inside\n"))
}

func checkReadonlyMount(ctx context.Context, e *env) error {
	dir, err := e.volume()
	if err != nil {
		return err
	}
	out, err := e.output(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/data", HostPath: dir, Readonly: true}}
	}, "cat /data/file", "access /data/new")
	if err != nil {
		return err
	}
	return errors.Join(expect("read", strings.HasPrefix(out, "content\n"), true), expect("writing is refused", strings.Contains(out, "read-only file system"), true))
}

func checkFileMount(ctx context.Context, e *env) error {
	dir, err := e.volume()
	if err != nil {
		return err
	}
	out, err := e.output(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{
			{ContainerPath: "/etc/config/inner/one", HostPath: filepath.Join(dir, "file")},
			{ContainerPath: "/etc/config", HostPath: dir},
		}
		// What is below has its mount point on the volume.
		if err := os.MkdirAll(filepath.Join(dir, "inner"), 0o777); err != nil {
			e.t.Error(err)
		}
	}, "cat /etc/config/file", "cat /etc/config/inner/one")
	return errors.Join(err, expect("output", out, "content\ncontent\n"))
}

func checkReadonlyRootfs(ctx context.Context, e *env) error {
	dir, err := e.volume()
	if err != nil {
		return err
	}
	out, err := e.output(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.ReadonlyRootfs = true
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/data", HostPath: dir}}
	}, "access /file", "access /data/file")
	if err != nil {
		return err
	}
	return errors.Join(expect("writing to the root is refused", strings.Contains(out, "read-only file system"), true), expect("writing to a volume is not", strings.HasSuffix(out, "writable\n"), true))
}

// checkWritableRootfs also sees that containers of one image don't see each other's changes.
func checkWritableRootfs(ctx context.Context, e *env) error {
	pod, pc, err := e.pod(ctx)
	if err != nil {
		return err
	}
	for i := range 2 {
		s, err := e.start(ctx, pod, pc, e.containerConfig(fmt.Sprintf("c%d", i), "cat /own"))
		if err != nil {
			return err
		}
		st, err := s.exited(ctx)
		if err := errors.Join(err, expect("exit code of reading what another container wrote", st.GetExitCode(), 1)); err != nil {
			return err
		}
		w, err := e.start(ctx, pod, pc, e.containerConfig(fmt.Sprintf("w%d", i), "write /own mine", "cat /own"))
		if err != nil {
			return err
		}
		if st, err := w.exited(ctx); err != nil || st.ExitCode != 0 {
			return errors.Join(err, expect("exit code of writing to the root", st.GetExitCode(), 0))
		}
	}
	return nil
}

func checkResolvConf(ctx context.Context, e *env) error {
	out, err := e.output(ctx, func(p *runtimeapi.PodSandboxConfig, _ *runtimeapi.ContainerConfig) {
		p.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"a.svc.cluster.local", "svc.cluster.local"}, Options: []string{"ndots:5"}}
	}, "cat /etc/resolv.conf")
	if err != nil {
		return err
	}
	for _, line := range []string{"nameserver 10.96.0.10", "search a.svc.cluster.local svc.cluster.local", "options ndots:5"} {
		if !strings.Contains(out, line+"\n") {
			return fmt.Errorf("resolv.conf has no %q: %q", line, out)
		}
	}
	return nil
}

func checkHostname(ctx context.Context, e *env) error {
	own, err := os.Hostname()
	if err != nil {
		return err
	}
	out, err := e.output(ctx, func(p *runtimeapi.PodSandboxConfig, _ *runtimeapi.ContainerConfig) {
		if p.Linux.SecurityContext.NamespaceOptions.Network != runtimeapi.NamespaceMode_NODE {
			own = p.Hostname
		}
	}, "hostname")
	return errors.Join(err, expect("hostname", out, own+"\n"))
}

func checkOwnPIDs(ctx context.Context, e *env) error {
	out, err := e.output(ctx, nil, "self", "pids")
	return errors.Join(err, expect("own process id and number of processes", out, "1\n1\n"))
}

func checkSharedPIDs(ctx context.Context, e *env) error {
	share := func(p *runtimeapi.PodSandboxConfig) {
		p.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	}
	pod, pc, err := e.pod(ctx, share)
	if err != nil {
		return err
	}
	first := e.containerConfig("first", "trap")
	second := e.containerConfig("second", "pids")
	first.Linux.SecurityContext.NamespaceOptions.Pid, second.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_POD
	a, err := e.start(ctx, pod, pc, first)
	if err != nil {
		return err
	}
	b, err := e.start(ctx, pod, pc, second)
	if err != nil {
		return err
	}
	if _, err := b.exited(ctx); err != nil {
		return err
	}
	out, _, err := b.logs()
	if err := errors.Join(err, expect("processes seen: the sandbox's and both containers'", out, "3\n")); err != nil {
		return err
	}
	st, err := a.status(ctx)
	return errors.Join(err, expect("first container when the second has ended", st.GetState(), runtimeapi.ContainerState_CONTAINER_RUNNING))
}

func checkRunAsUser(ctx context.Context, e *env) error {
	out, err := e.output(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		sc := c.Linux.SecurityContext
		sc.RunAsUser, sc.RunAsGroup, sc.SupplementalGroups = &runtimeapi.Int64Value{Value: 1234}, &runtimeapi.Int64Value{Value: 2345}, []int64{3456}
	}, "id", "eprint by another user")
	return errors.Join(err, expect("user, group and groups", out, "1234 2345 [2345 3456]\n"))
}

func checkCapabilities(ctx context.Context, e *env) error {
	out, err := e.output(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}
	}, "caps")
	return errors.Join(err, expect("capabilities", out, "CapEff: 0000000000000400\nCapBnd: 0000000000000400\n"))
}

func checkNoNewPrivs(ctx context.Context, e *env) error {
	out, err := e.output(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.NoNewPrivs = true
		c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	}, "nnp", "seccomp", "unshare")
	return errors.Join(err, expect("status", out, "NoNewPrivs: 1\nSeccomp: 2\noperation not permitted\n"))
}

// checkOOM gives runtimes that lag three containers and a moment: one that learns of the kill through a notification of the kernel's can lose it
// when the end comes first.
func checkOOM(ctx context.Context, e *env) error {
	var last error
	for range 3 {
		s, err := e.run(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
			c.Linux.Resources.MemoryLimitInBytes = 32 << 20
		}, "eat 128", "print survived")
		if err != nil {
			return err
		}
		st, err := s.exited(ctx)
		if err = errors.Join(err, expect("exit code", st.GetExitCode(), 137)); err != nil {
			return err
		}
		if !e.Lags {
			return expect("reason", st.GetReason(), "OOMKilled")
		}
		soon, cancel := context.WithTimeout(ctx, 2*time.Second)
		last = poll(soon, func() error {
			st, err := s.status(soon)
			return errors.Join(err, expect("reason", st.GetReason(), "OOMKilled"))
		})
		cancel()
		if last == nil {
			return nil
		}
	}
	return last
}

func checkUpdateResources(ctx context.Context, e *env) error {
	s, err := e.run(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Linux.Resources.MemoryLimitInBytes = 64 << 20
	}, "trap")
	if err != nil {
		return err
	}
	if err := s.printed(ctx, "ready"); err != nil {
		return err
	}
	err = e.Runtime.UpdateContainerResources(ctx, s.id, &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 256 << 20}})
	if err != nil {
		return err
	}
	if _, _, err := e.Runtime.ExecSync(ctx, s.id, []string{"/workload", "eat 100"}, 10*time.Second); err != nil {
		return fmt.Errorf("using what the raised limit allows: %w", err)
	}
	return nil
}
