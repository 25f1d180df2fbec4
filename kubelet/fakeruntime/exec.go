package fakeruntime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/keelson/keelson/kubelet/internal/streams"
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
	s, err := streams.Listen(ctx, "127.0.0.1:0", streamer{r})
	if err != nil {
		return fmt.Errorf("fakeruntime: %w", err)
	}
	serving := func(s *streams.Server) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.streaming = s
	}
	serving(s)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	select {
	case err = <-ended:
		serving(nil)
	case <-ctx.Done():
		serving(nil)
		err = errors.Join(s.Close(), <-ended)
	}
	if err != nil {
		return fmt.Errorf("fakeruntime: %w", err)
	}
	return nil
}

func (r *Runtime) gate() streams.Gate {
	return streams.Gate{
		Running: func(id string) error { _, err := r.runningContainer(id); return err },
		Ready: func(id string) error {
			r.lock()
			defer r.mu.Unlock()
			if s := r.sandboxes[id]; s == nil || !s.ready {
				return notFound("ready sandbox", id)
			}
			return nil
		},
		Server: func() (*streams.Server, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.streaming == nil {
				return nil, status.Error(codes.Unavailable, "fakeruntime: streaming needs Run")
			}
			return r.streaming, nil
		},
	}
}

// Exec implements kubelet.StreamingService.
func (r *Runtime) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return r.gate().Exec(req)
}

// Attach implements kubelet.StreamingService.
func (r *Runtime) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return r.gate().Attach(req)
}

// PortForward implements kubelet.StreamingService.
func (r *Runtime) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return r.gate().PortForward(req)
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
