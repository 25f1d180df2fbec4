//go:build linux

package processruntime

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime/internal/box"
	"github.com/keelson/keelson/kubelet/processruntime/internal/cgroup"
	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
)

// builder turns a CRI configuration into what the shim starts.
type builder struct {
	r      *Runtime
	c      *container
	id     string
	chain  string // the image's files
	image  *v1.Config
	start  *shim.Start
	limits cgroup.Limits
}

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

func (b *builder) security() *runtimeapi.LinuxContainerSecurityContext {
	return b.c.config.GetLinux().GetSecurityContext()
}

func (b *builder) build() error {
	r, c, cfg := b.r, b.c, b.c.config
	if err := b.validate(); err != nil {
		return err
	}
	b.start = &shim.Start{Dir: c.dir, Stdin: cfg.GetStdin(), StdinOnce: cfg.GetStdinOnce()}
	if dir, path := c.sb.config.GetLogDirectory(), cfg.GetLogPath(); dir != "" && path != "" {
		b.start.LogPath = filepath.Join(dir, filepath.Clean("/"+path))
	}
	spec := &b.start.Spec
	spec.UserNS = r.level == shim.LevelUserNS
	spec.Rootfs = filepath.Join(c.dir, "rootfs")
	if r.overlay {
		spec.Lower, spec.Upper, spec.Work = b.chain, filepath.Join(c.dir, "upper"), filepath.Join(c.dir, "work")
	}
	sc := b.security()
	spec.ReadonlyRootfs = sc.GetReadonlyRootfs()
	if err := b.process(); err != nil {
		return err
	}
	if err := b.pid(); err != nil {
		return err
	}
	if err := b.resources(); err != nil {
		return err
	}
	if err := b.mounts(); err != nil {
		return err
	}
	if sc.GetPrivileged() {
		spec.HostDev = true
	} else {
		spec.MaskedPaths, spec.ReadonlyPaths = sc.GetMaskedPaths(), sc.GetReadonlyPaths()
		if sc == nil {
			spec.MaskedPaths, spec.ReadonlyPaths = defaultMaskedPaths(), defaultReadonlyPaths()
		}
	}
	for _, d := range cfg.GetDevices() {
		spec.Devices = append(spec.Devices, box.Device{Source: d.GetHostPath(), Target: d.GetContainerPath()})
	}
	return nil
}

// validate refuses what can't be done, rather than leaving it out.
func (b *builder) validate() error {
	cfg, sc := b.c.config, b.security()
	if len(cfg.GetCDIDevices()) > 0 {
		return invalid("CDI devices are not supported by this runtime")
	}
	if p := sc.GetSeccomp(); p.GetProfileType() == runtimeapi.SecurityProfile_Localhost {
		return invalid("Localhost security profiles are not supported by this runtime (%s)", p.GetLocalhostRef())
	}
	if p := sc.GetApparmor(); p != nil && p.GetProfileType() != runtimeapi.SecurityProfile_Unconfined {
		return invalid("AppArmor profiles are not supported by this runtime")
	}
	if sc.GetSelinuxOptions() != nil && hasSELinux() {
		return invalid("SELinux options are not supported by this runtime")
	}
	for _, m := range cfg.GetMounts() {
		switch {
		case m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
			return invalid("mount %s: bidirectional propagation is not supported by this runtime", m.GetContainerPath())
		case len(m.GetUidMappings())+len(m.GetGidMappings()) > 0:
			return invalid("mount %s: ID-mapped mounts are not supported by this runtime", m.GetContainerPath())
		case !strings.HasPrefix(m.GetContainerPath(), "/"):
			return invalid("mount %q: the path in the container must be absolute", m.GetContainerPath())
		case m.GetRecursiveReadOnly() && !m.GetReadonly():
			return invalid("mount %s: recursive_read_only needs readonly", m.GetContainerPath())
		}
	}
	if b.r.level == shim.LevelNone {
		switch {
		case sc.GetPrivileged():
			return invalid("privileged containers need isolation that this machine does not permit: %s", b.r.Isolation())
		case len(cfg.GetDevices()) > 0:
			return invalid("devices need isolation that this machine does not permit: %s", b.r.Isolation())
		}
	}
	return nil
}

// hasSELinux tells if the machine enforces labels; where it doesn't, they are ignored by all runtimes.
func hasSELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

func (b *builder) process() error {
	cfg, sc := b.c.config, b.security()
	p := &b.start.Spec.Process
	p.TTY = cfg.GetTty()
	command, args := cfg.GetCommand(), cfg.GetArgs()
	if len(command) == 0 {
		if len(args) == 0 {
			args = b.image.Cmd
		}
		command = b.image.Entrypoint
	}
	p.Args = slices.Concat(command, args)
	if len(p.Args) == 0 {
		return invalid("no command specified")
	}
	p.Cwd = cmp.Or(cfg.GetWorkingDir(), b.image.WorkingDir, "/")
	user, err := b.user()
	if err != nil {
		return err
	}
	p.UID, p.GID, p.Groups = user.uid, user.gid, user.groups
	p.Env = b.env(user.home)
	if rec := b.c.sb.record(); !rec.NetNS && len(rec.IPs) > 0 && rec.IPs[0].Is4() && !b.r.opts.KeepWildcardBinds {
		p.BindAddr = rec.IPs[0].String()
	}
	p.NoNewPrivs = sc.GetNoNewPrivs()
	if p.Caps, err = capabilities(sc.GetCapabilities(), sc.GetPrivileged()); err != nil {
		return err
	}
	if p.Ambient, err = capNumbers(sc.GetCapabilities().GetAddAmbientCapabilities()); err != nil {
		return err
	}
	if sc.GetSeccomp().GetProfileType() == runtimeapi.SecurityProfile_RuntimeDefault && sc.GetSeccomp() != nil && !sc.GetPrivileged() && b.r.level != shim.LevelNone {
		if !box.SeccompSupported() {
			return invalid("the RuntimeDefault seccomp profile is not supported by this runtime on this architecture")
		}
		p.Seccomp = true
	}
	return nil
}

func (b *builder) env(home string) []string {
	env := make(map[string]string)
	var order []string
	set := func(k, v string) {
		if _, ok := env[k]; !ok {
			order = append(order, k)
		}
		env[k] = v
	}
	set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if name := b.c.sb.config.GetHostname(); name != "" {
		set("HOSTNAME", name)
	}
	if b.c.config.GetTty() {
		set("TERM", "xterm")
	}
	set("HOME", home)
	for _, kv := range b.image.Env {
		k, v, _ := strings.Cut(kv, "=")
		set(k, v)
	}
	for _, kv := range b.c.config.GetEnvs() {
		set(kv.GetKey(), string(kv.GetValue()))
	}
	out := make([]string, len(order))
	for i, k := range order {
		out[i] = k + "=" + env[k]
	}
	return out
}

// pid decides whose processes the container sees.
func (b *builder) pid() error {
	ns := b.security().GetNamespaceOptions()
	spec := &b.start.Spec
	spec.Proc = "new"
	switch ns.GetPid() {
	case runtimeapi.NamespaceMode_NODE:
		b.start.PID, spec.Proc = "node", "bind"
	case runtimeapi.NamespaceMode_TARGET:
		b.start.PID, b.start.TargetID = "target", ns.GetTargetId()
		t, err := b.r.container(ns.GetTargetId())
		if err != nil || t.sb != b.c.sb {
			return invalid("target container %q is not in this sandbox", ns.GetTargetId())
		}
	case runtimeapi.NamespaceMode_POD:
		if !b.c.sb.rec.PodPIDs && ns != nil && b.c.sb.config.GetLinux().GetSecurityContext().GetNamespaceOptions() != nil {
			return invalid("the sandbox has no PID namespace for its containers to share")
		}
		if b.c.sb.rec.PodPIDs {
			b.start.PID = "pod"
		} else {
			b.start.PID = "container"
		}
	default:
		b.start.PID = "container"
	}
	p := spec.Process
	if b.r.level == shim.LevelUserNS && b.start.PID != "container" && b.start.PID != "node" && (p.UID != 0 || p.GID != 0) {
		return invalid("processes can be shared between containers only by user 0 here: isolation is %s", b.r.Isolation())
	}
	return nil
}

func (b *builder) resources() error {
	res := b.c.config.GetLinux().GetResources()
	limits, err := b.r.limits(res)
	if err != nil {
		return err
	}
	b.limits = limits
	if dir := b.c.sb.rec.CgroupDir; dir != "" && b.r.cgroups.Usable() {
		b.start.Cgroup = filepath.Join(dir, b.id)
	}
	if res != nil && b.r.level == shim.LevelNamespaces {
		score := res.GetOomScoreAdj()
		b.start.OOMScoreAdj = &score
	}
	return nil
}

func (r *Runtime) limits(res *runtimeapi.LinuxContainerResources) (cgroup.Limits, error) {
	for _, h := range res.GetHugepageLimits() {
		if h.GetLimit() > 0 {
			return cgroup.Limits{}, invalid("huge page limits are not supported by this runtime (%s)", h.GetPageSize())
		}
	}
	return cgroup.Limits{
		CPUShares: res.GetCpuShares(), CPUQuota: res.GetCpuQuota(), CPUPeriod: res.GetCpuPeriod(),
		Memory: res.GetMemoryLimitInBytes(), Pids: r.opts.PidsLimit, Unified: res.GetUnified(),
	}, nil
}

func (b *builder) mounts() error {
	r, sb, spec := b.r, b.c.sb, &b.start.Spec
	cfg := b.c.config
	taken := make(map[string]bool)
	for _, m := range cfg.GetMounts() {
		taken[filepath.Clean(m.GetContainerPath())] = true
	}
	add := func(m box.Mount) {
		if !taken[m.Target] {
			spec.Mounts = append(spec.Mounts, m)
		}
	}
	privileged := b.security().GetPrivileged()
	const nothing = uintptr(unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV)
	ro := uintptr(unix.MS_RDONLY)
	if privileged {
		ro = 0
	}
	switch r.level {
	case shim.LevelNamespaces:
		add(box.Mount{Type: "sysfs", Source: "sysfs", Target: "/sys", Flags: nothing | ro})
		if r.cgroups.Usable() {
			b.cgroupMounts(add, nothing, ro)
		}
		if sb.rec.Shm {
			add(box.Mount{Type: "bind", Source: sb.shmDir(), Target: "/dev/shm"})
		} else {
			add(box.Mount{Type: "bind", Source: "/dev/shm", Target: "/dev/shm"})
		}
	case shim.LevelUserNS:
		add(box.Mount{Type: "bind", Source: "/sys", Target: "/sys", ReadonlyRecursive: true, Optional: true})
		add(box.Mount{Type: "tmpfs", Source: "shm", Target: "/dev/shm", Flags: nothing, Data: "mode=1777,size=65536k"})
	}
	add(box.Mount{Type: "mqueue", Source: "mqueue", Target: "/dev/mqueue", Flags: nothing, Optional: true})
	var etc uintptr
	if spec.ReadonlyRootfs {
		etc = unix.MS_RDONLY
	}
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		src := filepath.Join(sb.dir, name)
		if _, err := os.Stat(src); err == nil {
			add(box.Mount{Type: "bind", Source: src, Target: "/etc/" + name, Flags: etc})
		}
	}
	var own []box.Mount
	for _, m := range cfg.GetMounts() {
		mount, err := b.mount(m)
		if err != nil {
			return err
		}
		own = append(own, mount)
	}
	// Parents before what is mounted below them.
	slices.SortStableFunc(own, func(x, y box.Mount) int {
		return cmp.Compare(strings.Count(filepath.Clean(x.Target), "/"), strings.Count(filepath.Clean(y.Target), "/"))
	})
	spec.Mounts = append(spec.Mounts, own...)
	return nil
}

func (b *builder) cgroupMounts(add func(box.Mount), flags, ro uintptr) {
	r := b.r
	if r.cgroups.V2 {
		b.start.Spec.CgroupNS = true
		add(box.Mount{Type: "cgroup2", Source: "cgroup", Target: "/sys/fs/cgroup", Flags: flags | ro, Optional: true})
		return
	}
	add(box.Mount{Type: "tmpfs", Source: "tmpfs", Target: "/sys/fs/cgroup", Flags: flags, Data: "mode=755,size=64k"})
	binds := r.cgroups.Group(b.start.Cgroup).Binds()
	for _, target := range slices.Sorted(maps.Keys(binds)) {
		add(box.Mount{Type: "bind", Source: binds[target], Target: target, Flags: flags | ro, Optional: true})
	}
}

func (b *builder) mount(m *runtimeapi.Mount) (box.Mount, error) {
	out := box.Mount{Type: "bind", Source: m.GetHostPath(), Target: m.GetContainerPath(), Slave: m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER}
	if m.GetReadonly() {
		out.Flags |= unix.MS_RDONLY
		out.ReadonlyRecursive = m.GetRecursiveReadOnly()
	}
	for _, opt := range m.GetMountOptions() {
		flag, ok := map[string]uintptr{"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "noatime": unix.MS_NOATIME, "rw": 0}[opt]
		if !ok {
			return out, invalid("mount %s: option %q is not supported by this runtime", m.GetContainerPath(), opt)
		}
		out.Flags |= flag
	}
	if name := m.GetImage().GetImage(); name != "" {
		img := b.r.images.Get(name)
		if img == nil {
			return out, status.Errorf(codes.NotFound, "mount %s: image %q not found", m.GetContainerPath(), name)
		}
		root, err := os.OpenRoot(b.r.images.ChainDir(img.Chain))
		if err != nil {
			return out, err
		}
		defer root.Close()
		sub := cmp.Or(strings.TrimPrefix(filepath.Clean("/"+m.GetImageSubPath()), "/"), ".")
		f, err := root.Open(sub)
		if err != nil {
			return out, invalid("mount %s: path %q in image %s: %v", m.GetContainerPath(), m.GetImageSubPath(), name, err)
		}
		defer f.Close()
		if out.Source, err = filepath.EvalSymlinks(f.Name()); err != nil {
			return out, err
		}
		out.Flags |= unix.MS_RDONLY
		return out, nil
	}
	if out.Source == "" {
		return out, invalid("mount %s: no host path", m.GetContainerPath())
	}
	if _, err := os.Stat(out.Source); errors.Is(err, os.ErrNotExist) {
		// Runtimes make the directory, as they do for hostPath volumes without a type.
		if err := os.MkdirAll(out.Source, 0o755); err != nil {
			return out, err
		}
	} else if err != nil {
		return out, err
	}
	return out, nil
}

// linkMounts stands links in for mounts, where nothing can be mounted and the image has nothing there.
func (b *builder) linkMounts() error {
	rootfs := b.start.Spec.Rootfs
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, m := range b.start.Spec.Mounts {
		if m.Type != "bind" {
			continue
		}
		target := strings.TrimPrefix(filepath.Clean(m.Target), "/")
		if err := root.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
		// An empty directory of the image gives way; anything else stays, and the mount is not visible.
		if st, err := root.Lstat(target); err == nil {
			if st.IsDir() || st.Mode().IsRegular() && (st.Size() == 0 || strings.HasPrefix(m.Target, "/etc/")) {
				err = root.Remove(target)
			}
			if err != nil {
				b.r.opts.Logger.Info("a mount is hidden by the image's own files", "container", b.id, "path", m.Target)
				continue
			}
		}
		if err := root.Symlink(shim.MountPrefix+strings.TrimPrefix(m.Source, "/"), target); err != nil {
			b.r.opts.Logger.Info("a mount is hidden by the image's own files", "container", b.id, "path", m.Target, "reason", err.Error())
		}
	}
	return nil
}

// What kubelets and container engines hide of procfs.
func defaultMaskedPaths() []string {
	return []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
}

func defaultReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
