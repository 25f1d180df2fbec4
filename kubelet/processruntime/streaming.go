//go:build linux

package processruntime

import (
	"context"
	"errors"
	"fmt"
	"io"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/keelson/keelson/kubelet/internal/streams"
)

// streamer starts the server when it is first needed.
func (r *Runtime) streamer() (*streams.Server, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.New("processruntime: closed")
	}
	if r.stream != nil {
		return r.stream, nil
	}
	s, err := streams.Listen(r.stop, r.opts.StreamAddr, streamBackend{r})
	if err != nil {
		return nil, fmt.Errorf("processruntime: Options.StreamAddr: %w", err)
	}
	r.running.Go(func() {
		if err := s.Serve(); err != nil {
			r.opts.Logger.Error(err, "the streaming server ended")
		}
	})
	r.stream = s
	return s, nil
}

func (r *Runtime) gate() streams.Gate {
	return streams.Gate{
		Running: func(id string) error { _, err := r.runningContainer(id); return err },
		Ready:   func(id string) error { _, err := r.readySandbox(id); return err },
		Server:  r.streamer,
	}
}

// Exec implements [kubelet.StreamingService].
func (r *Runtime) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return r.gate().Exec(req)
}

// Attach implements [kubelet.StreamingService].
func (r *Runtime) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return r.gate().Attach(req)
}

// PortForward implements [kubelet.StreamingService].
func (r *Runtime) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return r.gate().PortForward(req)
}

func (r *Runtime) readySandbox(id string) (*sandbox, error) {
	sb, err := r.sandbox(id)
	if err != nil {
		return nil, err
	}
	if sb.state() != runtimeapi.PodSandboxState_SANDBOX_READY {
		return nil, fmt.Errorf("sandbox container %q is not running", id)
	}
	return sb, nil
}

// streamBackend does what the streaming server is asked for.
type streamBackend struct{ r *Runtime }

var _ streaming.Runtime = streamBackend{}

// reader and writer keep nil interfaces nil.
func reader(r io.Reader) io.Reader {
	if r == nil {
		return nil
	}
	return r
}

func writer(w io.WriteCloser) io.Writer {
	if w == nil {
		return nil
	}
	return w
}

func (b streamBackend) Exec(ctx context.Context, id string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, end, err := b.r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	c, err := b.r.runningContainer(id)
	if err != nil {
		return err
	}
	code, err := b.r.exec(ctx, c, cmd, reader(in), writer(out), writer(errOut), tty, resize)
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("error executing command %v, exit code %d", cmd, code), Code: int(code)}
	}
	return nil
}

func (b streamBackend) Attach(ctx context.Context, id string, in io.Reader, out, errOut io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, end, err := b.r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	c, err := b.r.runningContainer(id)
	if err != nil {
		return err
	}
	return b.r.attach(ctx, c, reader(in), writer(out), writer(errOut), resize)
}

func (b streamBackend) PortForward(ctx context.Context, id string, port int32, stream io.ReadWriteCloser) error {
	ctx, end, err := b.r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	sb, err := b.r.readySandbox(id)
	if err != nil {
		return err
	}
	return b.r.forward(ctx, sb, port, stream)
}
