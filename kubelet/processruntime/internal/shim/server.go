//go:build linux

package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keelson/keelson/kubelet/processruntime/internal/box"
	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

var (
	errNotFound   = errors.New("container not found")
	errNotRunning = errors.New("container is not running")
)

type server struct {
	cfg      Config
	reaper   *reaper
	pausePid int
	pause    *wire.Conn // its lifeline
	listener *net.UnixListener

	mu         sync.Mutex
	containers map[string]*container
	watchers   map[*wire.Conn]struct{}
	exiting    bool
}

// Run is the shim. It returns when it is told to exit. lifelineFD is only looked at if the configuration says so.
func Run(ctl *wire.Conn, lifelineFD uintptr) error {
	var cfg Config
	if _, err := ctl.Recv(&cfg); err != nil {
		return err
	}
	// Caught, not ignored: what is ignored would be ignored by the containers too.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
	go func() {
		for range signals {
		}
	}()
	s := &server{cfg: cfg, reaper: newReaper(), containers: make(map[string]*container), watchers: make(map[*wire.Conn]struct{})}
	if err := s.setup(); err != nil {
		return errors.Join(err, ctl.Send(box.Report{Error: err.Error()}))
	}
	if err := ctl.Send(box.Report{Ready: true, Pid: os.Getpid()}); err != nil {
		return err
	}
	ctl.Close()
	if cfg.Lifeline {
		lifeline := os.NewFile(lifelineFD, "lifeline")
		go func() {
			_, _ = io.Copy(io.Discard, lifeline)
			s.killAll()
			s.listener.Close()
		}()
	}
	for {
		c, err := s.listener.AcceptUnix()
		if err != nil {
			return nil
		}
		go s.serve(wire.NewConn(c))
	}
}

func (s *server) setup() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_CHILD_SUBREAPER", err)
	}
	if s.cfg.Hostname != "" && s.cfg.Level != LevelNone {
		if err := unix.Sethostname([]byte(s.cfg.Hostname)); err != nil {
			return os.NewSyscallError("sethostname", err)
		}
	}
	if s.cfg.OwnNet {
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	for k, v := range s.cfg.Sysctls {
		name := filepath.Join("/proc/sys", strings.ReplaceAll(k, ".", "/"))
		if err := os.WriteFile(name, []byte(v), 0); err != nil {
			return fmt.Errorf("sysctl %s: %w", k, err)
		}
	}
	if s.cfg.SharedPID && s.cfg.Level != LevelNone {
		if err := s.startPause(); err != nil {
			return err
		}
	}
	l, err := wire.Listen(s.cfg.Dir, SocketName)
	s.listener = l
	return err
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	return nil
}

func (s *server) startPause() error {
	ctl, child, err := wire.Pair()
	if err != nil {
		return err
	}
	defer child.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	attr := &syscall.ProcAttr{
		Dir: "/", Env: helperEnv(), Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), child.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID},
	}
	pid, _, err := s.reaper.spawn(nil, "/proc/self/exe", []string{box.HelperName, "pause"}, attr)
	if err != nil {
		return err
	}
	child.Close()
	var rep box.Report
	if _, err := ctl.Recv(&rep); err != nil || !rep.Ready {
		return errors.Join(errors.New("the pod's first process did not start"), err)
	}
	s.pausePid, s.pause = pid, ctl
	return nil
}

func (s *server) serve(conn *wire.Conn) {
	defer conn.Close()
	var req Request
	files, err := conn.Recv(&req)
	if err != nil {
		return
	}
	defer closeAll(files)
	if err := s.handle(conn, &req, files); err != nil {
		_ = conn.Send(Response{Error: err.Error(), NotFound: errors.Is(err, errNotFound), NotRunning: errors.Is(err, errNotRunning)})
	}
}

func (s *server) container(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil {
		return c, nil
	}
	return nil, errNotFound
}

func (s *server) handle(conn *wire.Conn, req *Request, files []*os.File) error {
	switch req.Op {
	case OpStart:
		st, err := s.startContainer(req.Container, req.Start)
		if err != nil {
			return err
		}
		return conn.Send(Response{State: &st})
	case OpForward:
		return s.forward(conn, req.Port, req.Addrs)
	case OpWatch:
		return s.watch(conn)
	case OpKillAll:
		s.killAll()
		return conn.Send(Response{})
	case OpExit:
		s.killAll()
		err := conn.Send(Response{})
		s.listener.Close()
		return err
	}
	c, err := s.container(req.Container)
	if err != nil {
		return err
	}
	switch req.Op {
	case OpStop:
		cancel := make(chan struct{})
		stop := hangup(conn, func() { close(cancel) })
		err := s.stop(c, syscall.Signal(req.Signal), time.Duration(req.Grace), cancel)
		stop()
		if err != nil {
			return err
		}
		st := c.snapshot()
		return conn.Send(Response{State: &st})
	case OpExec:
		return s.exec(conn, c, req.Exec, files)
	case OpAttach:
		return s.attach(conn, c, *req.Attach)
	case OpReopen:
		if c.snapshot().Exited {
			return errNotRunning
		}
		if err := c.log.reopen(); err != nil {
			return err
		}
		return conn.Send(Response{})
	}
	return fmt.Errorf("unknown operation %q", req.Op)
}

// killAll ends every process of the sandbox and refuses new ones.
func (s *server) killAll() {
	s.mu.Lock()
	s.exiting = true
	var all []*container
	for _, c := range s.containers {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		s.kill(c)
	}
	for _, c := range all {
		for ended := false; !ended; {
			select {
			case <-c.done:
				ended = true
			case <-time.After(20 * time.Millisecond): // it may only now have got its process
				s.kill(c)
			}
		}
	}
	for range 100 {
		pids := descendants("")
		for i := len(pids) - 1; i >= 0; i-- {
			if pids[i] == s.pausePid {
				pids = append(pids[:i], pids[i+1:]...)
			}
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

// forward connects to a port inside the sandbox and copies both ways.
func (s *server) forward(conn *wire.Conn, port uint16, addrs []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var d net.Dialer
	var errs []error
	for _, a := range addrs {
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(a, fmt.Sprint(port)))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		defer c.Close()
		if err := conn.Send(Response{}); err != nil {
			return nil
		}
		done := make(chan struct{})
		go func() {
			_, _ = io.Copy(c, conn)
			_ = c.(*net.TCPConn).CloseWrite()
			close(done)
		}()
		_, _ = io.Copy(conn, c)
		_ = conn.CloseWrite()
		// A client that is done reading hangs up; then the other direction ends too.
		<-done
		return nil
	}
	return errors.Join(errs...)
}

// watch tells a client of every container that ends, beginning with those that have.
func (s *server) watch(conn *wire.Conn) error {
	s.mu.Lock()
	var ended []Response
	for id, c := range s.containers {
		select {
		case <-c.done:
			st := c.snapshot()
			ended = append(ended, Response{Container: id, State: &st})
		default:
		}
	}
	s.watchers[conn] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, conn)
		s.mu.Unlock()
	}()
	if err := conn.Send(Response{}); err != nil {
		return nil
	}
	for _, r := range ended {
		if err := conn.Send(r); err != nil {
			return nil
		}
	}
	_, _ = io.Copy(io.Discard, conn)
	return nil
}

func (s *server) notify(id string, st State) {
	s.mu.Lock()
	var conns []*wire.Conn
	for c := range s.watchers {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if err := c.Send(Response{Container: id, State: &st}); err != nil {
			c.Close()
		}
	}
}
