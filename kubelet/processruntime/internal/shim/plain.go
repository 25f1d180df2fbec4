//go:build linux

package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/keelson/keelson/kubelet/processruntime/internal/box"
	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

// Without any privilege a container is a session of ordinary processes. Its program is the one of the
// image, looked for in the image's files; what it opens by absolute path is the node's.

// RootVar tells such a process where the image's files are.
const RootVar = "KEELSON_ROOTFS"

func (s *server) launchPlain(c *container, stdio [3]*os.File) (int, <-chan syscall.WaitStatus, error) {
	p := &c.start.Spec.Process
	attr, path, err := plainAttr(c.start.Spec.Rootfs, p)
	if err != nil {
		return 0, nil, err
	}
	attr.Env = append(attr.Env, Marker+"="+c.id)
	for i, f := range stdio {
		attr.Files[i] = f.Fd()
	}
	if p.TTY {
		master, slave, err := box.OpenTerminal()
		if err != nil {
			return 0, nil, err
		}
		defer slave.Close()
		if c.pty, err = pollable(master); err != nil {
			return 0, nil, err
		}
		attr.Files = []uintptr{slave.Fd(), slave.Fd(), slave.Fd()}
		attr.Sys.Setctty = true
	}
	return s.spawnPlain(path, p, attr)
}

// spawnPlain starts a process, through a helper if its binds are to be watched.
func (s *server) spawnPlain(path string, p *box.Process, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	if p.BindAddr == "" {
		pid, exited, err := s.reaper.spawn(nil, path, p.Args, attr)
		if err != nil {
			err = fmt.Errorf("exec %q: %w", path, err)
		}
		return pid, exited, err
	}
	ctl, child, err := wire.Pair()
	if err != nil {
		return 0, nil, err
	}
	defer ctl.Close()
	defer child.Close()
	spec := box.PlainSpec{Path: path, Process: *p}
	spec.Process.Env = attr.Env
	attr.Files = append(attr.Files, child.Fd())
	// The marker is in the helper's environment too, so that it is found should it be left behind.
	attr.Env = append(helperEnv(), markerOf(attr.Env)...)
	pid, exited, err := s.reaper.spawn(nil, "/proc/self/exe", []string{box.HelperName, "plain"}, attr)
	if err != nil {
		return 0, nil, err
	}
	child.Close()
	err = ctl.Send(spec)
	if err == nil {
		err = untilExec(ctl, p.BindAddr, func(f *os.File) error { return f.Close() })
	}
	if err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		<-exited
		return 0, nil, err
	}
	return pid, exited, nil
}

func markerOf(env []string) []string {
	for _, kv := range env {
		if strings.HasPrefix(kv, Marker+"=") {
			return []string{kv}
		}
	}
	return nil
}

func plainAttr(rootfs string, p *box.Process) (*syscall.ProcAttr, string, error) {
	path, err := lookIn(rootfs, p)
	if err != nil {
		return nil, "", err
	}
	dir := resolveIn(rootfs, p.Cwd)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, "", err
	}
	attr := &syscall.ProcAttr{
		Dir: dir, Env: append(append([]string(nil), p.Env...), RootVar+"="+rootfs), Files: make([]uintptr, 3),
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	if os.Geteuid() == 0 && (p.UID != 0 || p.GID != 0 || len(p.Groups) > 0) {
		attr.Sys.Credential = &syscall.Credential{Uid: p.UID, Gid: p.GID, Groups: p.Groups}
	}
	return attr, path, nil
}

// lookIn finds a program in the image's files.
func lookIn(rootfs string, p *box.Process) (string, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return "", fmt.Errorf("no command specified")
	}
	name := p.Args[0]
	if strings.Contains(name, "/") {
		inside := name
		if !filepath.IsAbs(inside) {
			inside = filepath.Join("/", p.Cwd, inside)
		}
		full := resolveIn(rootfs, inside)
		st, err := os.Stat(full)
		if err != nil {
			return "", fmt.Errorf("exec: %q: stat %s: no such file or directory", name, inside)
		}
		if st.IsDir() || st.Mode()&0o111 == 0 {
			return "", fmt.Errorf("exec: %q: %w", name, os.ErrPermission)
		}
		return full, nil
	}
	for _, kv := range p.Env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			full := resolveIn(rootfs, filepath.Join("/", dir, name))
			if st, err := os.Stat(full); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
				return full, nil
			}
		}
	}
	return "", fmt.Errorf("exec: %q: executable file not found in $PATH", name)
}

// resolveIn follows symbolic links as if rootfs were the root. Links that the runtime itself made to stand for
// mounts lead outside and are followed as they are.
func resolveIn(rootfs, path string) string {
	rest := strings.Split(filepath.Clean("/"+path), "/")
	at := "/"
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, part)
		to, err := os.Readlink(filepath.Join(rootfs, next))
		if err != nil || links > 40 {
			at = next
			continue
		}
		links++
		if target, ok := strings.CutPrefix(to, MountPrefix); ok {
			return filepath.Join(append([]string{"/" + target}, rest...)...)
		}
		if filepath.IsAbs(to) {
			at = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return filepath.Join(rootfs, at)
}

// MountPrefix begins the links that stand for mounts, to tell them from the image's own.
const MountPrefix = "/./"
