package stock

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	readyWithin = 2 * time.Minute
	stopWithin  = 30 * time.Second
)

// Process is a component that runs.
type Process struct {
	// URL that it serves at.
	URL string

	t     testing.TB
	name  string
	path  string
	args  []string
	log   string
	ready func(ctx context.Context) error

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// start runs a component until the test ends, and waits until it is ready.
func start(t testing.TB, c Component, dir string, args []string, url string, ready func(ctx context.Context) error) *Process {
	t.Helper()
	path := Binary(t, c)
	p := &Process{URL: url, t: t, name: filepath.Base(path), path: path, args: args, log: filepath.Join(dir, filepath.Base(path)+".log"), ready: ready}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", p.name, p.tail())
		}
	})
	p.Start()
	return p
}

// Start starts the process again after Kill or Stop, with the same arguments and data, and waits until it is ready.
func (p *Process) Start() {
	p.t.Helper()
	if err := p.launch(); err != nil {
		p.t.Fatalf("stock: %s: %v", p.name, err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), readyWithin)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := p.ready(attempt)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-p.done:
			p.t.Fatalf("stock: %s has ended:\n%s", p.name, p.tail())
		case <-ctx.Done():
			p.t.Fatalf("stock: %s is not ready: %v\n%s", p.name, err, p.tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *Process) launch() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return fmt.Errorf("it runs already")
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(context.Background(), p.path, p.args...)
	// Files, not pipes: there is nothing that copies.
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = filepath.Dir(p.log)
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.done = cmd, make(chan struct{})
	go func(done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(p.done)
	return nil
}

// Kill ends the process at once, as a crash would, and returns when it has ended.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Stop ends the process as its operator would, and returns when it has ended.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

// Pause stops the process from running until Resume.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

func (p *Process) signal(s os.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s)
	}
}

func (p *Process) end(s os.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(s)
	timer := time.NewTimer(stopWithin)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	p.cmd = nil
}

// PID returns the process's number, 0 if it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Log returns what the process has printed so far.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// tail returns the last lines of the log.
func (p *Process) tail() string {
	lines := bytes.Split([]byte(p.Log()), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-60):], []byte("\n")))
}

// Run runs a component to its end and returns what it prints.
func Run(t testing.TB, c Component, env []string, args ...string) (stdout string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), Binary(t, c), args...)
	cmd.Env = append(os.Environ(), env...)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(diag.String()))
	}
	return out.String(), nil
}

// nextPort counts the ports that FreePort has looked at.
var nextPort atomic.Int32

// FreePort returns a port of 127.0.0.1 for a server that is started, and perhaps started again, by the test: one that nobody listens on, that no connection
// gets by chance, for it lies below the range of those, and that it has not returned lately.
func FreePort(t testing.TB) int {
	t.Helper()
	const first, each, processes = 12_000, 100, 200 // tests run in several processes at once
	for range each {
		port := first + os.Getpid()%processes*each + int(nextPort.Add(1))%each
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("stock: no port is free")
	return 0
}
