package fakeruntime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

func (r *Runtime) runningContainer(id string) (*container, error) {
	r.lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, notFound("container", id)
	}
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, status.Errorf(codes.FailedPrecondition, "container %q is not running", id)
	}
	return c, nil
}

// answer is what a command says and how it exits.
func (c *container) answer(cmd []string) (string, int) {
	switch cmd[0] {
	case "echo":
		return strings.Join(cmd[1:], " ") + "\n", 0
	case "true", "cat":
		return "", 0
	case "false":
		return "", 1
	case "hostname":
		return c.sandbox.hostname + "\n", 0
	case "sh", "/bin/sh":
		if len(cmd) == 3 && cmd[1] == "-c" {
			if code, ok := strings.CutPrefix(cmd[2], "exit "); ok {
				if n, err := strconv.Atoi(code); err == nil {
					return "", n
				}
			}
			if rest, ok := strings.CutPrefix(cmd[2], "echo "); ok {
				return rest + "\n", 0
			}
		}
	}
	return strings.Join(cmd, " ") + "\n", 0
}

func exitError(code int) error {
	if code == 0 {
		return nil
	}
	return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
}

// ExecSync implements kubelet.StreamingService.
func (r *Runtime) ExecSync(_ context.Context, id string, cmd []string, _ time.Duration) ([]byte, []byte, error) {
	c, err := r.runningContainer(id)
	if err != nil {
		return nil, nil, err
	}
	if len(cmd) == 0 {
		return nil, nil, status.Error(codes.InvalidArgument, "empty command")
	}
	out, code := c.answer(cmd)
	return []byte(out), nil, exitError(code)
}

// Probe implements kubelet.ProbeService: every probe and hook succeeds but those the annotations name.
func (r *Runtime) Probe(_ context.Context, id, kind string, h corev1.ProbeHandler) (bool, string, error) {
	c, err := r.runningContainer(id)
	if err != nil {
		return false, "", err
	}
	fail, err := failsProbe(c.plan.failProbe, kind, r.clock.Since(time.Unix(0, c.startedAt)))
	if err != nil {
		return false, "", err
	}
	if fail {
		return false, "simulated failure", nil
	}
	if h.Exec != nil && len(h.Exec.Command) > 0 {
		out, code := c.answer(h.Exec.Command)
		return code == 0, out, nil
	}
	return true, "", nil
}

// Run serves exec, attach and port-forward on a loopback address until ctx ends, which is no error. Everything else works without it.
func (r *Runtime) Run(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("fakeruntime: %w", err)
	}
	config := streaming.DefaultConfig
	config.Addr = l.Addr().String()
	s, err := streaming.NewServer(config, streamer{r})
	if err != nil {
		_ = l.Close()
		return fmt.Errorf("fakeruntime: %w", err)
	}
	r.mu.Lock()
	r.streaming = s
	r.mu.Unlock()
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err = <-ended:
		return fmt.Errorf("fakeruntime: %w", err)
	case <-ctx.Done():
	}
	r.mu.Lock()
	r.streaming = nil
	r.mu.Unlock()
	_ = server.Close()
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("fakeruntime: %w", err)
	}
	return nil
}

func (r *Runtime) server() (streaming.Server, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streaming == nil {
		return nil, status.Error(codes.Unavailable, "fakeruntime: streaming needs Run")
	}
	return r.streaming, nil
}

// Exec implements kubelet.StreamingService.
func (r *Runtime) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if _, err := r.runningContainer(req.GetContainerId()); err != nil {
		return nil, err
	}
	s, err := r.server()
	if err != nil {
		return nil, err
	}
	return s.GetExec(req)
}

// Attach implements kubelet.StreamingService.
func (r *Runtime) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	if _, err := r.runningContainer(req.GetContainerId()); err != nil {
		return nil, err
	}
	s, err := r.server()
	if err != nil {
		return nil, err
	}
	return s.GetAttach(req)
}

// PortForward implements kubelet.StreamingService.
func (r *Runtime) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	r.lock()
	s := r.sandboxes[req.GetPodSandboxId()]
	ready := s != nil && s.ready
	r.mu.Unlock()
	if !ready {
		return nil, notFound("ready sandbox", req.GetPodSandboxId())
	}
	srv, err := r.server()
	if err != nil {
		return nil, err
	}
	return srv.GetPortForward(req)
}

// streamer is what the streaming server calls.
type streamer struct{ r *Runtime }

func (s streamer) Exec(_ context.Context, id string, cmd []string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	c, err := s.r.runningContainer(id)
	if err != nil {
		return err
	}
	if len(cmd) == 0 {
		return errors.New("empty command")
	}
	answer, code := c.answer(cmd)
	if out != nil {
		if _, err := io.WriteString(out, answer); err != nil {
			return err
		}
		if in != nil {
			if _, err := io.Copy(out, in); err != nil {
				return err
			}
		}
	}
	return exitError(code)
}

func (s streamer) Attach(_ context.Context, id string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	if _, err := s.r.runningContainer(id); err != nil {
		return err
	}
	if in == nil || out == nil {
		return nil
	}
	_, err := io.Copy(out, in)
	return err
}

func (s streamer) PortForward(_ context.Context, _ string, _ int32, stream io.ReadWriteCloser) error {
	defer func() { _ = stream.Close() }()
	_, err := io.Copy(stream, stream)
	return err
}
