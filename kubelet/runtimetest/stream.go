package runtimetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func streamChecks() []check {
	s := []Feature{Processes, Streaming}
	return []check{
		{name: "ExecSPDY", needs: s, run: func(ctx context.Context, e *env) error { return checkExecStream(ctx, e, false) }},
		{name: "ExecWebSocket", needs: s, run: func(ctx context.Context, e *env) error { return checkExecStream(ctx, e, true) }},
		{name: "ExecTTY", needs: s, run: checkExecTTY},
		{name: "ExecStreamNotRunning", needs: s, run: checkExecStreamNotRunning},
		{name: "Attach", needs: s, run: checkAttach},
		{name: "AttachStdinOnce", needs: s, run: checkAttachOnce},
		{name: "PortForward", needs: []Feature{Processes, Streaming, Network}, run: checkPortForward},
		{name: "PortForwardRefused", needs: []Feature{Processes, Streaming, Network}, run: checkPortForwardRefused},
	}
}

// stream connects to a URL that a runtime handed out, as kubectl does.
func stream(ctx context.Context, at string, webSocket bool, o remotecommand.StreamOptions) error {
	u, err := url.Parse(at)
	if err != nil {
		return err
	}
	cfg := &rest.Config{Host: u.Scheme + "://" + u.Host}
	var ex remotecommand.Executor
	if webSocket {
		ex, err = remotecommand.NewWebSocketExecutorForProtocols(cfg, "GET", at, "v4.channel.k8s.io")
	} else {
		ex, err = remotecommand.NewSPDYExecutor(cfg, "POST", u)
	}
	if err != nil {
		return err
	}
	return ex.StreamWithContext(ctx, o)
}

func (s *started) exec(ctx context.Context, webSocket bool, in io.Reader, tty bool, sizes remotecommand.TerminalSizeQueue, cmd ...string) (string, string, error) {
	resp, err := s.e.Runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: s.id, Cmd: append([]string{"/workload"}, cmd...), Stdin: in != nil, Stdout: true, Stderr: !tty, Tty: tty})
	if err != nil {
		return "", "", err
	}
	var out, errOut bytes.Buffer
	o := remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: tty, TerminalSizeQueue: sizes}
	if !tty {
		o.Stderr = &errOut
	}
	err = stream(ctx, resp.Url, webSocket, o)
	return out.String(), errOut.String(), err
}

func checkExecStream(ctx context.Context, e *env, webSocket bool) error {
	s, err := e.run(ctx, nil, "trap")
	if err != nil {
		return err
	}
	out, errOut, err := s.exec(ctx, webSocket, nil, false, nil, "print to stdout", "eprint to stderr")
	if err := errors.Join(err, expect("stdout", out, "to stdout\n"), expect("stderr", errOut, "to stderr\n")); err != nil {
		return err
	}
	_, _, err = s.exec(ctx, webSocket, nil, false, nil, "exit 5")
	var exit utilexec.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 5 {
		return fmt.Errorf("a command that exits with 5 gives %w", err)
	}
	if !webSocket { // version 4 of the WebSocket protocol can't end standard input
		in := strings.Repeat("some input\n", 20000)
		out, _, err = s.exec(ctx, webSocket, strings.NewReader(in), false, nil, "stdin", "print end")
		if err := errors.Join(err, expect("input comes back", out == in+"end\n", true)); err != nil {
			return fmt.Errorf("%w (%d bytes)", err, len(out))
		}
	}
	return nil
}

// sizes hands out terminal sizes.
type sizes struct {
	c chan remotecommand.TerminalSize
}

func (s sizes) Next() *remotecommand.TerminalSize {
	v, ok := <-s.c
	if !ok {
		return nil
	}
	return &v
}

func checkExecTTY(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "trap")
	if err != nil {
		return err
	}
	q := sizes{make(chan remotecommand.TerminalSize, 1)}
	q.c <- remotecommand.TerminalSize{Width: 123, Height: 45}
	defer close(q.c)
	// The size arrives beside the command, so it is asked for until it is there.
	cmds := []string{"sleep 300", "tty", "sleep 300", "tty"}
	in, typed := io.Pipe()
	defer typed.Close()
	out, _, err := s.exec(ctx, false, in, true, q, cmds...)
	if err != nil {
		return err
	}
	return expect("terminal has the size sent", strings.Contains(out, "123 45\r\n"), true)
}

func checkExecStreamNotRunning(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "exit 0")
	if err != nil {
		return err
	}
	if _, err := s.exited(ctx); err != nil {
		return err
	}
	if _, _, err := s.exec(ctx, false, nil, false, nil, "exit 0"); err == nil {
		return errors.New("Exec in a container that has ended succeeded")
	}
	return nil
}

// safeBuffer is written by a stream while it is looked at.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (s *started) attach(ctx context.Context, in io.Reader, out io.Writer, tty bool) error {
	resp, err := s.e.Runtime.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: s.id, Stdin: in != nil, Stdout: out != nil, Tty: tty})
	if err != nil {
		return err
	}
	return stream(ctx, resp.Url, false, remotecommand.StreamOptions{Stdin: in, Stdout: out, Tty: tty})
}

func checkAttach(ctx context.Context, e *env) error {
	s, err := e.run(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) { c.Stdin = true }, "stdin")
	if err != nil {
		return err
	}
	// Two clients, one after the other: the first one's leaving does not end the input.
	for _, text := range []string{"first", "second"} {
		in, typed := io.Pipe()
		var out safeBuffer
		sub, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- s.attach(sub, in, &out, false) }()
		if _, err := io.WriteString(typed, text+"\n"); err != nil {
			cancel()
			return err
		}
		err := poll(ctx, func() error { return expect("output seen by the client", out.String(), text+"\n") })
		cancel()
		typed.Close()
		<-done
		if err != nil {
			return err
		}
	}
	st, err := s.status(ctx)
	if err := errors.Join(err, expect("container when its clients have left", st.GetState(), runtimeapi.ContainerState_CONTAINER_RUNNING)); err != nil {
		return err
	}
	out, _, err := s.logs()
	return errors.Join(err, expect("log", out, "first\nsecond\n"))
}

func checkAttachOnce(ctx context.Context, e *env) error {
	s, err := e.run(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) { c.Stdin, c.StdinOnce = true, true }, "stdin", "print the end")
	if err != nil {
		return err
	}
	var out safeBuffer
	if err := s.attach(ctx, strings.NewReader("input\n"), &out, false); err != nil {
		return err
	}
	st, err := s.exited(ctx)
	if err := errors.Join(err, expect("exit code", st.GetExitCode(), 0)); err != nil {
		return err
	}
	log, _, err := s.logs()
	return errors.Join(err, expect("log", log, "input\nthe end\n"), expect("output seen by the client", out.String(), "input\nthe end\n"))
}

// freePort finds a port that nobody listens on, for pods that share the node's network.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// forward opens a local port to a port of a sandbox, as kubectl port-forward does.
func (e *env) forward(ctx context.Context, pod string, port int) (local int, end func(), err error) {
	resp, err := e.Runtime.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: pod, Port: []int32{int32(port)}})
	if err != nil {
		return 0, nil, err
	}
	u, err := url.Parse(resp.Url)
	if err != nil {
		return 0, nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: u.Scheme + "://" + u.Host})
	if err != nil {
		return 0, nil, err
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	f, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u), []string{"0:" + strconv.Itoa(port)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return 0, nil, err
	}
	done := make(chan error, 1)
	go func() { done <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		return 0, nil, fmt.Errorf("port forward: %w", err)
	case <-ctx.Done():
		close(stop)
		return 0, nil, ctx.Err()
	}
	ports, err := f.GetPorts()
	if err != nil {
		close(stop)
		return 0, nil, err
	}
	return int(ports[0].Local), func() { close(stop); <-done }, nil
}

func checkPortForward(ctx context.Context, e *env) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	s, err := e.run(ctx, nil, fmt.Sprintf("listen %d", port))
	if err != nil {
		return err
	}
	if err := s.printed(ctx, "listening"); err != nil {
		return err
	}
	local, end, err := e.forward(ctx, s.pod, port)
	if err != nil {
		return err
	}
	defer end()
	for i := range 3 {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(local)))
		if err != nil {
			return err
		}
		if deadline, ok := ctx.Deadline(); ok {
			_ = c.SetDeadline(deadline)
		}
		fmt.Fprintf(c, "hello %d\n", i)
		line, err := bufio.NewReader(c).ReadString('\n')
		c.Close()
		if err := errors.Join(err, expect("answer", line, fmt.Sprintf("you said hello %d\n", i))); err != nil {
			return err
		}
	}
	return nil
}

func checkPortForwardRefused(ctx context.Context, e *env) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	s, err := e.run(ctx, nil, "trap")
	if err != nil {
		return err
	}
	local, end, err := e.forward(ctx, s.pod, port)
	if err != nil {
		return err
	}
	defer end()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(local)))
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	b, err := io.ReadAll(c)
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("a connection to a port that nobody listens on stays open")
	}
	return expect("bytes from a port that nobody listens on", len(b), 0)
}
