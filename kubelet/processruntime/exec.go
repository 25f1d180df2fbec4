//go:build linux

package processruntime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
	"github.com/keelson/keelson/kubelet/processruntime/internal/wire"
)

// maxExecOutput bounds what ExecSync keeps of each stream, as CRI prescribes.
const maxExecOutput = 16 << 20

// drainTime is how long output may still come after the process that was executed has ended.
const drainTime = 2 * time.Second

// runningContainer finds a container that something can be executed in.
func (r *Runtime) runningContainer(id string) (*container, error) {
	c, err := r.container(id)
	if err != nil {
		return nil, err
	}
	if st := stateOf(c.state(false)); st != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, status.Errorf(codes.FailedPrecondition, "failed to exec in container: container is in %s state", st)
	}
	return c, nil
}

// capped keeps the beginning of what is written.
type capped struct{ bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	if room := maxExecOutput - c.Len(); len(p) > room {
		c.Buffer.Write(p[:room])
	} else {
		c.Buffer.Write(p)
	}
	return len(p), nil
}

// ExecSync implements [kubelet.StreamingService].
func (r *Runtime) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	c, err := r.runningContainer(id)
	if err != nil {
		return nil, nil, err
	}
	run, cancel := ctx, context.CancelFunc(func() {})
	if timeout > 0 {
		run, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	var out, errOut capped
	code, err := r.exec(run, c, cmd, nil, &out, &errOut, false, nil)
	switch {
	case err != nil && ctx.Err() == nil && errors.Is(run.Err(), context.DeadlineExceeded):
		return out.Bytes(), errOut.Bytes(), status.Errorf(codes.DeadlineExceeded, "failed to exec in container: timeout %v exceeded: %v", timeout, run.Err())
	case err != nil:
		return out.Bytes(), errOut.Bytes(), toStatus(err)
	case code != 0:
		return out.Bytes(), errOut.Bytes(), utilexec.CodeExitError{Err: fmt.Errorf("command '%s' exited with %d: %s", strings.Join(cmd, " "), code, errOut.Bytes()), Code: int(code)}
	}
	return out.Bytes(), errOut.Bytes(), nil
}

// exec runs a command in a container until it ends, and returns its exit code.
func (r *Runtime) exec(ctx context.Context, c *container, cmd []string, in io.Reader, out, errOut io.Writer, tty bool, resize <-chan remotecommand.TerminalSize) (int32, error) {
	p := c.record().Start.Spec.Process
	p.Args, p.TTY = cmd, tty
	if tty && !hasEnv(p.Env, "TERM") {
		p.Env = append(append([]string(nil), p.Env...), "TERM=xterm")
	}
	var mine, theirs []*os.File
	defer func() { closeAll(mine); closeAll(theirs) }()
	var stdinW, outR, errR *os.File
	if !tty {
		for i := range 3 {
			rd, wr, err := os.Pipe()
			if err != nil {
				return 0, err
			}
			if i == 0 {
				stdinW, theirs, mine = wr, append(theirs, rd), append(mine, wr)
			} else {
				theirs, mine = append(theirs, wr), append(mine, rd)
			}
		}
		outR, errR = mine[1], mine[2]
	}
	conn, err := r.call(ctx, c.sb, shim.Request{Op: shim.OpExec, Container: c.rec.ID, Exec: &shim.Exec{Process: p}}, theirs...)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	closeAll(theirs)
	theirs = nil
	if in == nil && stdinW != nil {
		stdinW.Close()
	}
	var outputs sync.WaitGroup
	copyOut := func(w io.Writer, from *os.File) {
		if w == nil {
			w = io.Discard
		}
		outputs.Go(func() { _, _ = io.Copy(w, from) })
	}
	if !tty {
		copyOut(out, outR)
		copyOut(errOut, errR)
		if in != nil {
			go feed(stdinW, in, true)
		}
	}
	for {
		resp, files, err := conn.recv()
		if err != nil {
			closeAll(files)
			closeAll(mine)
			mine = nil
			outputs.Wait()
			return 0, err
		}
		if resp.PTY && len(files) == 1 {
			term, err := nonblocking(files[0])
			if err != nil {
				return 0, err
			}
			mine = append(mine, term)
			copyOut(out, term)
			if in != nil {
				go feed(term, in, false)
			}
			stopResize := resizeTerminal(ctx, term, resize)
			defer stopResize()
			continue
		}
		closeAll(files)
		if resp.Exited {
			drained := make(chan struct{})
			go func() { outputs.Wait(); close(drained) }()
			select {
			case <-drained:
			case <-time.After(drainTime): // a process left in the background holds them open
			case <-ctx.Done():
			}
			closeAll(mine)
			mine = nil
			<-drained
			return resp.ExitCode, nil
		}
	}
}

// feed copies input until either side ends. The reader is a stream of the client's, which ends with the session.
func feed(w *os.File, in io.Reader, eof bool) {
	_, err := io.Copy(w, in)
	if eof {
		w.Close()
	} else if err == nil {
		_, _ = w.Write([]byte{4}) // end of file, as typed
	}
}

func hasEnv(env []string, name string) bool {
	for _, kv := range env {
		if strings.HasPrefix(kv, name+"=") {
			return true
		}
	}
	return false
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// nonblocking makes reads of a received terminal end when it is closed.
func nonblocking(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

func resizeTerminal(ctx context.Context, term *os.File, sizes <-chan remotecommand.TerminalSize) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	raw, err := term.SyscallConn()
	if err != nil || sizes == nil {
		return cancel
	}
	go func() {
		for {
			select {
			case s, ok := <-sizes:
				if !ok {
					return
				}
				_ = raw.Control(func(fd uintptr) {
					_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Height, Col: s.Width})
				})
			case <-ctx.Done():
				return
			}
		}
	}()
	return cancel
}

// attach connects a client to a container's own streams until either ends.
func (r *Runtime) attach(ctx context.Context, c *container, in io.Reader, out, errOut io.Writer, resize <-chan remotecommand.TerminalSize) error {
	conn, err := r.call(ctx, c.sb, shim.Request{Op: shim.OpAttach, Container: c.rec.ID, Attach: &shim.Attach{Stdin: in != nil, Stdout: out != nil, Stderr: errOut != nil}})
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, _, err := conn.recv(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if resize != nil {
		go func() {
			for {
				select {
				case s, ok := <-resize:
					if !ok {
						return
					}
					_ = conn.SendFrame(wire.Resize, []byte{byte(s.Width >> 8), byte(s.Width), byte(s.Height >> 8), byte(s.Height)})
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	if in != nil {
		go func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := in.Read(buf)
				if n > 0 && conn.SendFrame(wire.Stdin, buf[:n]) != nil {
					return
				}
				if err != nil {
					_ = conn.SendFrame(wire.CloseStdin, nil)
					if out == nil && errOut == nil {
						conn.Close()
					}
					return
				}
			}
		}()
	}
	for {
		stream, p, err := conn.RecvFrame()
		if err != nil {
			return ctx.Err() // nil: the container has ended
		}
		w := out
		if stream == wire.Stderr {
			w = errOut
		}
		if w != nil {
			if _, err := w.Write(p); err != nil {
				return nil // the client has gone
			}
		}
	}
}

// forward connects a stream to a port of a sandbox.
func (r *Runtime) forward(ctx context.Context, sb *sandbox, port int32, stream io.ReadWriteCloser) error {
	if port <= 0 || port > 65535 {
		return invalid("port %d is out of range", port)
	}
	var addrs []string
	rec := sb.record()
	if !rec.NetNS {
		for _, ip := range rec.IPs {
			addrs = append(addrs, ip.String())
		}
	}
	addrs = append(addrs, "127.0.0.1", "::1")
	conn, err := r.call(ctx, sb, shim.Request{Op: shim.OpForward, Port: uint16(port), Addrs: addrs})
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, _, err := conn.recv(); err != nil {
		return fmt.Errorf("failed to connect to port %d in sandbox %s: %w", port, rec.ID, err)
	}
	go func() {
		_, _ = io.Copy(conn.Conn, stream)
		_ = conn.CloseWrite()
	}()
	_, err = io.Copy(stream, conn.Conn)
	return err
}
