//go:build linux

package box

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

// Init builds the container and becomes the workload. It returns only with an error, which it has also reported.
func Init(ctl *wire.Conn) error {
	var spec Spec
	if _, err := ctl.Recv(&spec); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	lockThread()
	err := enter(ctl, &spec)
	if sendErr := ctl.Send(Report{Error: err.Error()}); sendErr != nil {
		return errors.Join(err, sendErr)
	}
	return err
}

func enter(ctl *wire.Conn, spec *Spec) error {
	if spec.CgroupNS {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return os.NewSyscallError("unshare", err)
		}
	}
	if err := buildRoot(spec); err != nil {
		return err
	}
	p := &spec.Process
	if p.TTY {
		if err := attachTerminal(ctl); err != nil {
			return err
		}
	} else {
		// So that a workload that isn't root may open /dev/stdout.
		for fd := range 3 {
			_ = unix.Fchown(fd, int(p.UID), int(p.GID))
		}
	}
	path, err := lookPath(p)
	if err != nil {
		return err
	}
	if err := chdir(p); err != nil {
		return err
	}
	if err := p.confine(false); err != nil {
		return err
	}
	if err := p.notifyBinds(ctl); err != nil {
		return err
	}
	if err := p.become(spec.UserNS); err != nil {
		return err
	}
	// A change of credentials clears it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	err = unix.Exec(path, p.Args, p.Env)
	return fmt.Errorf("exec %q: %w", path, err)
}

func buildRoot(spec *Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "make slave", Path: "/", Err: err}
	}
	if err := mountRoot(spec); err != nil {
		return err
	}
	r, err := openRoot(spec.Rootfs, spec.UserNS)
	if err != nil {
		return err
	}
	defer r.close()
	if spec.Proc == "bind" {
		err = r.mount(Mount{Type: "bind", Source: "/proc", Target: "/proc", Slave: true})
	} else {
		err = r.mount(Mount{Type: "proc", Source: "proc", Target: "/proc", Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC})
	}
	if err != nil {
		return err
	}
	pts := "newinstance,ptmxmode=0666,mode=0620"
	if !spec.UserNS {
		pts += ",gid=5"
	}
	if err := r.devices(spec, pts); err != nil {
		return err
	}
	for _, m := range spec.Mounts {
		if err := r.mount(m); err != nil && !m.Optional {
			return err
		}
	}
	for _, p := range spec.ReadonlyPaths {
		if err := r.readonly(p); err != nil {
			return err
		}
	}
	for _, p := range spec.MaskedPaths {
		if err := r.mask(p); err != nil {
			return err
		}
	}
	if spec.ReadonlyRootfs {
		if err := remount(r.fd, "/", unix.MS_RDONLY); err != nil {
			return err
		}
	}
	return pivot(spec.Rootfs)
}

func mountRoot(spec *Spec) error {
	if spec.Lower == "" {
		if err := unix.Mount(spec.Rootfs, spec.Rootfs, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return &os.PathError{Op: "bind", Path: spec.Rootfs, Err: err}
		}
		return nil
	}
	return mountOverlay(spec.Lower, spec.Upper, spec.Work, spec.Rootfs, spec.UserNS)
}

func mountOverlay(lower, upper, work, target string, userNS bool) error {
	data := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work
	if userNS {
		data += ",userxattr"
	}
	if err := unix.Mount("overlay", target, "overlay", unix.MS_NODEV, data); err != nil {
		return &os.PathError{Op: "mount overlay", Path: target, Err: err}
	}
	return nil
}

// pivot makes dir the root and lets go of the old one, without needing a directory for it.
func pivot(dir string) error {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/", Err: err}
	}
	defer func() { _ = unix.Close(old) }()
	if err := unix.Chdir(dir); err != nil {
		return &os.PathError{Op: "chdir", Path: dir, Err: err}
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return &os.PathError{Op: "pivot_root", Path: dir, Err: err}
	}
	if err := unix.Fchdir(old); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount old root", err)
	}
	return unix.Chdir("/")
}

// attachTerminal makes a terminal of the container, sends its master to the shim and makes it the standard streams.
func attachTerminal(ctl *wire.Conn) error {
	master, slave, err := OpenTerminal()
	if err != nil {
		return err
	}
	defer master.Close()
	if err := ctl.Send(Report{PTY: true}, master); err != nil {
		return err
	}
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) {
		return os.NewSyscallError("setsid", err)
	}
	if err := unix.IoctlSetInt(int(slave.Fd()), unix.TIOCSCTTY, 0); err != nil {
		return os.NewSyscallError("TIOCSCTTY", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(int(slave.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return slave.Close()
}

// OpenTerminal opens a new pseudo-terminal of the caller's mount namespace.
func OpenTerminal() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, os.NewSyscallError("ioctl on /dev/ptmx", err)
	}
	name := fmt.Sprintf("/dev/pts/%d", n)
	sfd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		master.Close()
		return nil, nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return master, os.NewFile(uintptr(sfd), name), nil
}

func chdir(p *Process) error {
	cwd := p.Cwd
	if cwd == "" {
		cwd = "/"
	}
	err := unix.Chdir(cwd)
	if errors.Is(err, unix.ENOENT) {
		// Container runtimes make the working directory that an image names.
		if err = os.MkdirAll(cwd, 0o755); err == nil {
			_ = os.Chown(cwd, int(p.UID), int(p.GID))
			err = unix.Chdir(cwd)
		}
	}
	if err != nil {
		return fmt.Errorf("chdir to cwd (%q) set in config.json failed: %w", cwd, err)
	}
	return nil
}

// lookPath finds the program in the container's own PATH.
func lookPath(p *Process) (string, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return "", errors.New("no command specified")
	}
	name := p.Args[0]
	if strings.Contains(name, "/") {
		full := name
		if !filepath.IsAbs(full) {
			full = filepath.Join("/", p.Cwd, full)
		}
		if err := executable(full); err != nil {
			return "", fmt.Errorf("exec: %q: %w", name, err)
		}
		return name, nil
	}
	var found error
	for _, dir := range filepath.SplitList(pathOf(p.Env)) {
		if dir == "" {
			dir = "."
		}
		full := filepath.Join(dir, name)
		err := executable(full)
		if err == nil {
			return full, nil
		}
		if errors.Is(err, os.ErrPermission) {
			found = err
		}
	}
	if found != nil {
		return "", fmt.Errorf("exec: %q: %w", name, found)
	}
	return "", fmt.Errorf("exec: %q: executable file not found in $PATH", name)
}

func pathOf(env []string) string {
	path := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	return path
}

func executable(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			return &os.PathError{Op: "stat", Path: path, Err: pe.Err}
		}
		return err
	}
	if st.IsDir() {
		return errors.New("is a directory")
	}
	if st.Mode()&0o111 == 0 {
		return os.ErrPermission
	}
	return nil
}
