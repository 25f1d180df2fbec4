//go:build linux

package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keelson/keelson/kubelet/processruntime/internal/box"
	"github.com/keelson/keelson/kubelet/processruntime/internal/cgroup"
	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

// container is one that was started here.
type container struct {
	id    string
	start *Start
	group cgroup.Group
	log   *logFile

	mu       sync.Mutex
	state    State
	stdin    *os.File // write end
	pty      *os.File
	attached map[*wire.Conn]Attach
	done     chan struct{} // closed when the state is final and written
}

// ownPIDs says that the container's PID namespace ends with its first process, and everything in it.
func (c *container) ownPIDs(level Level) bool {
	return level != LevelNone && c.start.PID == "container"
}

// startContainer runs the container's first process.
func (s *server) startContainer(id string, st *Start) (State, error) {
	c := &container{id: id, start: st, group: s.cfg.Cgroups.Group(st.Cgroup), attached: make(map[*wire.Conn]Attach), done: make(chan struct{})}
	s.mu.Lock()
	if s.containers[id] != nil {
		s.mu.Unlock()
		return State{}, fmt.Errorf("container %s was started before", id)
	}
	if s.exiting {
		s.mu.Unlock()
		return State{}, errors.New("the sandbox is being stopped")
	}
	s.containers[id] = c
	s.mu.Unlock()

	err := s.launch(c)
	if err != nil {
		now := time.Now()
		c.mu.Lock()
		// What runtimes report for a container whose process could not be started.
		c.state = State{Started: time.Time{}, Finished: now, Exited: true, ExitCode: 128, Reason: "StartError", Message: err.Error()}
		state := c.state
		c.mu.Unlock()
		err = errors.Join(err, writeState(st.Dir, state))
		close(c.done)
		s.notify(id, state)
		return state, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state, nil
}

func (s *server) launch(c *container) (err error) {
	var toClose []*os.File
	defer func() {
		for _, f := range toClose {
			f.Close()
		}
	}()
	if c.log, err = openLog(c.start.LogPath); err != nil {
		return err
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	toClose = append(toClose, null)
	stdio := [3]*os.File{null, null, null}
	tty := c.start.Spec.Process.TTY
	var outs [2]*os.File
	if !tty {
		if c.start.Stdin {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			toClose = append(toClose, r)
			stdio[0], c.stdin = r, w
		}
		for i := range outs {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			toClose = append(toClose, w)
			outs[i], stdio[i+1] = r, w
		}
	}
	var exited <-chan syscall.WaitStatus
	var pid int
	if s.cfg.Level == LevelNone {
		pid, exited, err = s.launchPlain(c, stdio)
	} else {
		pid, exited, err = s.launchBoxed(c, stdio)
	}
	if err != nil {
		for _, f := range []*os.File{outs[0], outs[1], c.stdin, c.pty} {
			if f != nil {
				f.Close()
			}
		}
		c.log.close()
		return err
	}
	c.mu.Lock()
	c.state = State{Pid: pid, Started: time.Now()}
	state := c.state
	c.mu.Unlock()
	if err := writeState(c.start.Dir, state); err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		return err
	}
	var pumps sync.WaitGroup
	if tty {
		pumps.Go(func() { c.pump(c.pty, wire.Stdout, "stdout") })
	} else {
		pumps.Go(func() { c.pump(outs[0], wire.Stdout, "stdout") })
		pumps.Go(func() { c.pump(outs[1], wire.Stderr, "stderr") })
	}
	go s.supervise(c, exited, &pumps, outs)
	return nil
}

// launchBoxed starts the init helper in new namespaces and sees it through to the workload.
func (s *server) launchBoxed(c *container, stdio [3]*os.File) (int, <-chan syscall.WaitStatus, error) {
	ctl, child, err := wire.Pair()
	if err != nil {
		return 0, nil, err
	}
	defer ctl.Close()
	defer child.Close()
	st := c.start
	sys := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNS}
	var from *forker
	switch st.PID {
	case "container":
		sys.Cloneflags |= syscall.CLONE_NEWPID
	case "pod", "target":
		// The syscall package takes a parent in another PID namespace for a dead one; init sets the signal itself.
		sys.Pdeathsig = 0
		pid := s.pausePid
		if st.PID == "target" {
			s.mu.Lock()
			t := s.containers[st.TargetID]
			s.mu.Unlock()
			if t == nil {
				return 0, nil, fmt.Errorf("target container %s is not running", st.TargetID)
			}
			pid = t.snapshot().Pid
		}
		if from, err = s.reaper.forkerIn(pid); err != nil {
			return 0, nil, err
		}
	}
	if p := st.Spec.Process; s.cfg.Level == LevelUserNS && (p.UID != 0 || p.GID != 0) {
		// A user namespace of its own, in which the one user there is has the id asked for.
		sys.Cloneflags |= syscall.CLONE_NEWUSER
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: int(p.UID), HostID: 0, Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: int(p.GID), HostID: 0, Size: 1}}
		for i := range box.LastCap() + 1 {
			sys.AmbientCaps = append(sys.AmbientCaps, uintptr(i))
		}
	}
	attr := &syscall.ProcAttr{Dir: "/", Env: helperEnv(), Files: []uintptr{stdio[0].Fd(), stdio[1].Fd(), stdio[2].Fd(), child.Fd()}, Sys: sys}
	pid, exited, err := s.reaper.spawn(from, "/proc/self/exe", []string{box.HelperName, "init"}, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("starting the container's init: %w", err)
	}
	child.Close()
	fail := func(err error) (int, <-chan syscall.WaitStatus, error) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		<-exited
		return 0, nil, err
	}
	if st.Cgroup != "" {
		if err := c.group.Add(pid); err != nil {
			return fail(err)
		}
	}
	if st.OOMScoreAdj != nil {
		// What is not permitted, Runtime.Unenforced has told.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.FormatInt(*st.OOMScoreAdj, 10)), 0); err != nil && !errors.Is(err, os.ErrPermission) {
			return fail(err)
		}
	}
	spec := st.Spec
	if !c.ownPIDs(s.cfg.Level) {
		spec.Process.Env = append(append([]string(nil), spec.Process.Env...), Marker+"="+c.id)
	}
	if err := ctl.Send(spec); err != nil {
		return fail(err)
	}
	if err := untilExec(ctl, spec.Process.BindAddr, func(f *os.File) (err error) {
		c.pty, err = pollable(f)
		return err
	}); err != nil {
		return fail(err)
	}
	return pid, exited, nil
}

// untilExec follows a helper until it has become the process, which closes its end.
func untilExec(ctl *wire.Conn, bindAddr string, terminal func(*os.File) error) error {
	for {
		var rep box.Report
		files, err := ctl.Recv(&rep)
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case rep.Error != "":
			err = errors.New(rep.Error)
		case rep.PTY && len(files) == 1:
			err = terminal(files[0])
			files = nil
		default:
			files = takeBinds(&rep, files, bindAddr)
		}
		closeAll(files)
		if err != nil {
			return err
		}
	}
}

// takeBinds handles what a helper says about binds, and returns the files that are not taken.
func takeBinds(rep *box.Report, files []*os.File, bindAddr string) []*os.File {
	if rep.Warning != "" {
		fmt.Fprintln(os.Stderr, rep.Warning)
	}
	if addr, err := netip.ParseAddr(bindAddr); rep.Binds && err == nil && len(files) == 1 {
		go watchBinds(files[0], addr)
		return nil
	}
	return files
}

// pollable makes reads of a received terminal end when it is closed.
func pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	f.Close()
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// pump moves output to the log and to attached clients.
func (c *container) pump(r *os.File, stream wire.Stream, name string) {
	w := lines{log: c.log, stream: name}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			w.add(buf[:n])
			c.forward(stream, buf[:n])
		}
		if err != nil { // a terminal whose last user is gone answers EIO
			w.end()
			return
		}
	}
}

// forward gives output to attached clients. One that doesn't read for ten seconds is dropped, so that it can't
// hold up the container.
func (c *container) forward(stream wire.Stream, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn, want := range c.attached {
		if stream == wire.Stdout && !want.Stdout || stream == wire.Stderr && !want.Stderr {
			continue
		}
		_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if err := conn.SendFrame(stream, p); err != nil {
			conn.Close()
			delete(c.attached, conn)
		}
	}
}

// supervise waits for the container's end and records it.
func (s *server) supervise(c *container, exited <-chan syscall.WaitStatus, pumps *sync.WaitGroup, outs [2]*os.File) {
	ws := <-exited
	finished := time.Now()
	s.reaper.leave(c.snapshot().Pid)
	if !c.ownPIDs(s.cfg.Level) {
		s.sweep(c)
	}
	drained := make(chan struct{})
	go func() {
		pumps.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(2 * time.Second): // held open by a process that got away
	}
	for _, f := range []*os.File{outs[0], outs[1]} {
		if f != nil {
			f.Close()
		}
	}
	c.mu.Lock()
	if c.stdin != nil {
		c.stdin.Close()
		c.stdin = nil
	}
	if c.pty != nil {
		c.pty.Close()
	}
	c.state.Exited, c.state.Finished, c.state.ExitCode = true, finished, exitCode(ws)
	switch {
	case c.state.ExitCode != 0 && c.start.Cgroup != "" && c.group.OOMKills() > 0:
		c.state.Reason = "OOMKilled"
	case c.state.ExitCode != 0:
		c.state.Reason = "Error"
	default:
		c.state.Reason = "Completed"
	}
	state := c.state
	for conn := range c.attached {
		conn.Close()
	}
	clear(c.attached)
	c.mu.Unlock()
	<-drained
	c.log.close()
	if err := writeState(c.start.Dir, state); err != nil {
		fmt.Fprintf(os.Stderr, "state of container %s: %v\n", c.id, err)
	}
	close(c.done)
	s.notify(c.id, state)
}

// sweep kills what is left of a container whose first process has ended.
func (s *server) sweep(c *container) {
	for range 100 {
		pids := descendants(c.id)
		if c.start.Cgroup != "" {
			pids = append(pids, c.group.Procs()...)
		}
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (c *container) snapshot() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// stop sends a signal, and kills when the grace is over. It returns when the container has ended or cancel closes.
func (s *server) stop(c *container, sig syscall.Signal, grace time.Duration, cancel <-chan struct{}) error {
	st := c.snapshot()
	if st.Exited || st.Pid == 0 {
		return nil
	}
	if grace > 0 {
		if err := syscall.Kill(st.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-c.done:
			return nil
		case <-cancel:
			return errors.New("canceled")
		case <-t.C:
		}
	}
	s.kill(c)
	select {
	case <-c.done:
	case <-cancel:
	}
	return nil
}

func (s *server) kill(c *container) {
	st := c.snapshot()
	if st.Exited || st.Pid == 0 {
		return
	}
	_ = syscall.Kill(st.Pid, syscall.SIGKILL)
}

func writeState(dir string, st State) error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, StateName+".tmp")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, StateName))
}

func helperEnv() []string {
	// One thread of Go code and an early collector keep the helpers small.
	return []string{"GOMAXPROCS=1", "GOGC=20", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
}
