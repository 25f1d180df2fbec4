//go:build linux

package processruntime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// streamServer serves the connections whose URLs Exec, Attach and PortForward hand out.
type streamServer struct {
	streaming.Server
	http *http.Server
}

func (s *streamServer) close() error { return s.http.Close() }

// streamer starts the server when it is first needed.
func (r *Runtime) streamer() (*streamServer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.New("processruntime: closed")
	}
	if r.stream != nil {
		return r.stream, nil
	}
	l, err := (&net.ListenConfig{}).Listen(r.stop, "tcp", r.opts.StreamAddr)
	if err != nil {
		return nil, fmt.Errorf("processruntime: Options.StreamAddr: %w", err)
	}
	cfg := streaming.DefaultConfig
	cfg.Addr = l.Addr().String()
	cfg.BaseURL = &url.URL{Scheme: "http", Host: cfg.Addr}
	srv, err := streaming.NewServer(cfg, streamBackend{r})
	if err != nil {
		l.Close()
		return nil, err
	}
	s := &streamServer{Server: srv, http: &http.Server{Handler: srv, ReadHeaderTimeout: 30 * time.Second}}
	r.running.Go(func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			r.opts.Logger.Error(err, "the streaming server ended")
		}
	})
	r.stream = s
	return s, nil
}

// Exec implements [kubelet.StreamingService].
func (r *Runtime) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if _, err := r.runningContainer(req.GetContainerId()); err != nil {
		return nil, err
	}
	s, err := r.streamer()
	if err != nil {
		return nil, err
	}
	return s.GetExec(req)
}

// Attach implements [kubelet.StreamingService].
func (r *Runtime) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	if _, err := r.runningContainer(req.GetContainerId()); err != nil {
		return nil, err
	}
	s, err := r.streamer()
	if err != nil {
		return nil, err
	}
	return s.GetAttach(req)
}

// PortForward implements [kubelet.StreamingService].
func (r *Runtime) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	if _, err := r.readySandbox(req.GetPodSandboxId()); err != nil {
		return nil, err
	}
	s, err := r.streamer()
	if err != nil {
		return nil, err
	}
	return s.GetPortForward(req)
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
