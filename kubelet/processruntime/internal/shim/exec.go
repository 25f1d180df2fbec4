//go:build linux

package shim

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keelson/keelson/kubelet/processruntime/internal/box"
	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

// exec runs one more process in a container. The client sent its standard streams, or gets the terminal; when it hangs up, the process is killed.
func (s *server) exec(conn *wire.Conn, c *container, req *Exec, files []*os.File) error {
	st := c.snapshot()
	if st.Exited || st.Pid == 0 {
		return errNotRunning
	}
	stdio := make([]uintptr, 3)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for i := range stdio {
		stdio[i] = null.Fd()
		if i < len(files) {
			stdio[i] = files[i].Fd()
		}
	}
	if s.cfg.Level == LevelNone {
		return s.execPlain(conn, c, req, stdio, files)
	}
	ctl, child, err := wire.Pair()
	if err != nil {
		return err
	}
	defer ctl.Close()
	attr := &syscall.ProcAttr{Dir: "/", Env: helperEnv(), Files: append(stdio, child.Fd()), Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}}
	pid, exited, err := s.reaper.spawn(nil, "/proc/self/exe", []string{box.HelperName, "exec"}, attr)
	child.Close()
	closeAll(files)
	if err != nil {
		return err
	}
	// The process that the helper forks is in another PID namespace, where a parent's death signal does not reach
	// it; so it is killed by its number, and the helper ends with it.
	var inner atomic.Int64
	stop := hangup(conn, func() {
		if p := inner.Load(); p > 0 {
			_ = syscall.Kill(int(p), syscall.SIGKILL)
		} else {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	defer func() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already, unless this returns early
		<-exited
		stop()
	}()
	if !c.ownPIDs(s.cfg.Level) {
		req.Process.Env = append(req.Process.Env, Marker+"="+c.id)
	}
	spec := box.ExecSpec{Process: req.Process, Pid: st.Pid, UserNS: s.cfg.Level == LevelUserNS}
	if c.start.Cgroup != "" {
		spec.CgroupTasks, spec.CgroupDir = c.group.TaskFiles(), c.group.UnifiedDir()
	}
	if err := ctl.Send(spec); err != nil {
		return err
	}
	for {
		var rep box.Report
		got, err := ctl.Recv(&rep)
		if err != nil {
			return errors.Join(errors.New("the exec helper ended without an answer"), err)
		}
		switch {
		case rep.Error != "":
			closeAll(got)
			return errors.New(rep.Error)
		case rep.Binds || rep.Warning != "":
			got = takeBinds(&rep, got, req.Process.BindAddr)
		case rep.Ready:
			inner.Store(int64(rep.Pid))
		case rep.PTY:
			err = conn.Send(Response{PTY: true}, got...)
		case rep.Exited:
			return conn.Send(Response{Exited: true, ExitCode: exitCode(syscall.WaitStatus(rep.Status))})
		}
		closeAll(got)
		if err != nil {
			return err
		}
	}
}

func (s *server) execPlain(conn *wire.Conn, c *container, req *Exec, stdio []uintptr, files []*os.File) error {
	p := &req.Process
	attr, path, err := plainAttr(c.start.Spec.Rootfs, p)
	if err != nil {
		return err
	}
	attr.Env = append(attr.Env, Marker+"="+c.id)
	attr.Files = stdio
	var master *os.File
	if p.TTY {
		m, slave, err := box.OpenTerminal()
		if err != nil {
			return err
		}
		defer slave.Close()
		defer m.Close()
		master = m
		attr.Files = []uintptr{slave.Fd(), slave.Fd(), slave.Fd()}
		attr.Sys.Setctty = true
		files = append(files, slave)
	}
	pid, exited, err := s.spawnPlain(path, p, attr)
	closeAll(files)
	if err != nil {
		return err
	}
	stop := hangup(conn, func() {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	})
	defer stop()
	if master != nil {
		if err := conn.Send(Response{PTY: true}, master); err != nil {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
		master.Close()
	}
	return conn.Send(Response{Exited: true, ExitCode: exitCode(<-exited)})
}

// hangup calls kill when the client closes its end before the operation is over.
func hangup(conn *wire.Conn, kill func()) (stop func()) {
	var over atomic.Bool
	go func() {
		var b [1]byte
		_, _ = conn.Read(b[:])
		if !over.Load() {
			kill()
		}
	}()
	return func() { over.Store(true) }
}

// attach connects a client to a container's own streams until either ends.
func (s *server) attach(conn *wire.Conn, c *container, want Attach) error {
	c.mu.Lock()
	if c.state.Exited || c.state.Pid == 0 {
		c.mu.Unlock()
		return errNotRunning
	}
	err := conn.Send(Response{})
	c.attached[conn] = want
	in := c.stdin
	if c.pty != nil {
		in = c.pty
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		stream, p, err := conn.RecvFrame()
		closed := err != nil || stream == wire.CloseStdin
		switch {
		case closed && want.Stdin && c.start.StdinOnce && c.start.Stdin:
			c.mu.Lock()
			if c.stdin != nil {
				c.stdin.Close()
				c.stdin = nil
			}
			if c.pty != nil && stream == wire.CloseStdin && err == nil {
				_, _ = c.pty.Write([]byte{4}) // end of file, as typed
			}
			c.mu.Unlock()
			in = nil
		case err != nil || stream == wire.CloseStdin:
		case stream == wire.Stdin && want.Stdin && in != nil:
			if _, err := in.Write(p); err != nil {
				in = nil
			}
		case stream == wire.Resize && c.pty != nil && len(p) == 4:
			size := &unix.Winsize{Col: uint16(p[0])<<8 | uint16(p[1]), Row: uint16(p[2])<<8 | uint16(p[3])}
			_ = unix.IoctlSetWinsize(int(c.pty.Fd()), unix.TIOCSWINSZ, size)
		}
		if err != nil {
			c.mu.Lock()
			delete(c.attached, conn)
			c.mu.Unlock()
			return nil
		}
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
