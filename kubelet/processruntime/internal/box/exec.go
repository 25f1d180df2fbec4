//go:build linux

package box

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

// Exec joins a container, starts a process there and reports how it ended. Its own standard streams become
// the process's.
func Exec(ctl *wire.Conn) error {
	var spec ExecSpec
	if _, err := ctl.Recv(&spec); err != nil {
		return err
	}
	runtime.LockOSThread()
	pid, err := startExec(ctl, &spec)
	if err != nil {
		return errors.Join(err, ctl.Send(Report{Error: err.Error()}))
	}
	if err := ctl.Send(Report{Ready: true, Pid: pid}); err != nil {
		return err
	}
	// The streams belong to the process alone now: readers see their end when it closes them.
	for fd := range 3 {
		_ = unix.Close(fd)
	}
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return errors.Join(err, ctl.Send(Report{Error: err.Error()}))
		}
		return ctl.Send(Report{Exited: true, Status: uint32(ws)})
	}
}

func startExec(ctl *wire.Conn, spec *ExecSpec) (int, error) {
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: "/proc", Err: err}
	}
	defer func() { _ = unix.Close(proc) }()
	ns := make(map[string]int)
	for _, name := range []string{"ipc", "uts", "net", "pid", "cgroup", "mnt"} {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", spec.Pid, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, fmt.Errorf("the container's %s namespace: %w", name, err)
		}
		defer func() { _ = unix.Close(fd) }()
		ns[name] = fd
	}
	var cgroup *os.File
	if spec.CgroupDir != "" {
		// Entered after the fork: clone3, which could do it with the fork, is behind the filter.
		f, err := os.OpenFile(filepath.Join(spec.CgroupDir, "cgroup.procs"), os.O_WRONLY, 0)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		cgroup = f
	}
	// Version 1 has threads in cgroups, and a child starts in its thread's.
	for _, tasks := range spec.CgroupTasks {
		if err := os.WriteFile(tasks, []byte(strconv.Itoa(unix.Gettid())), 0); err != nil {
			return 0, err
		}
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return 0, os.NewSyscallError("unshare", err)
	}
	for _, name := range []string{"ipc", "uts", "net", "pid", "cgroup", "mnt"} {
		same, err := sameNamespace(name, ns[name])
		if err != nil {
			return 0, err
		}
		if same {
			continue
		}
		if err := unix.Setns(ns[name], 0); err != nil {
			return 0, fmt.Errorf("joining the container's %s namespace: %w", name, err)
		}
	}
	p := &spec.Process
	path, err := lookPath(p)
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{Dir: p.Cwd, Env: p.Env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}}
	if p.TTY {
		master, slave, err := OpenTerminal()
		if err != nil {
			return 0, err
		}
		defer slave.Close()
		err = ctl.Send(Report{PTY: true}, master)
		master.Close()
		if err != nil {
			return 0, err
		}
		attr.Files = []uintptr{slave.Fd(), slave.Fd(), slave.Fd()}
		attr.Sys.Setctty, attr.Sys.Ctty = true, 0
	} else {
		for fd := range 3 {
			_ = unix.Fchown(fd, int(p.UID), int(p.GID))
		}
	}
	ownUser := spec.UserNS && (p.UID != 0 || p.GID != 0)
	if err := p.confine(ownUser); err != nil {
		return 0, err
	}
	if err := p.notifyBinds(ctl); err != nil {
		return 0, err
	}
	switch {
	case !spec.UserNS:
		attr.Sys.Credential = &syscall.Credential{Uid: p.UID, Gid: p.GID, Groups: p.Groups}
	case ownUser:
		// The syscall package would look for the child in the container's procfs to map its ids. So it is stopped at
		// its execve, and mapped through the procfs that was there before.
		attr.Sys.Cloneflags |= syscall.CLONE_NEWUSER
		attr.Sys.Ptrace = true
	}
	pid, err := syscall.ForkExec(path, p.Args, attr)
	if err != nil {
		return 0, fmt.Errorf("exec %q: %w", path, err)
	}
	if ownUser {
		if err := mapIDs(proc, pid, p.UID, p.GID); err != nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return 0, err
		}
	}
	if cgroup != nil {
		if _, err := cgroup.WriteString(strconv.Itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return 0, fmt.Errorf("entering the container's cgroup: %w", err)
		}
	}
	return pid, nil
}

// mapIDs gives a child that is stopped at its execve its one user and group, and lets it go.
func mapIDs(proc, pid int, uid, gid uint32) error {
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("wait4", err)
		}
		break
	}
	if !ws.Stopped() {
		return fmt.Errorf("the process did not stop at its execve: %#x", uint32(ws))
	}
	for _, m := range [][2]string{{"setgroups", "deny"}, {"gid_map", fmt.Sprintf("%d 0 1", gid)}, {"uid_map", fmt.Sprintf("%d 0 1", uid)}} {
		name := fmt.Sprintf("%d/%s", pid, m[0])
		fd, err := unix.Openat(proc, name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: name, Err: err}
		}
		_, err = unix.Write(fd, []byte(m[1]))
		_ = unix.Close(fd)
		if err != nil {
			return &os.PathError{Op: "write", Path: name, Err: err}
		}
	}
	return os.NewSyscallError("ptrace", unix.PtraceDetach(pid))
}

func sameNamespace(name string, fd int) (bool, error) {
	own, err := unix.Open("/proc/thread-self/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		// The container's procfs has been entered with its mount namespace, which comes last.
		return false, err
	}
	defer func() { _ = unix.Close(own) }()
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(own, &a), unix.Fstat(fd, &b)); err != nil {
		return false, err
	}
	return a.Ino == b.Ino && a.Dev == b.Dev, nil
}
