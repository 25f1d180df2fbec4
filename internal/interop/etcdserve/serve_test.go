package etcdserve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/boltstore"
	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/memstore"
)

// childEnv makes the test binary a server of the bolt file that it names, at the address in the variable behind it.
const (
	childEnv   = "KEELSON_SERVE_CHILD"
	addressEnv = "KEELSON_SERVE_ADDRESS"
)

func TestMain(m *testing.M) {
	if file := os.Getenv(childEnv); file != "" {
		if err := child(file, os.Getenv(addressEnv)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func child(file, address string) (err error) {
	s, err := boltstore.Open(file, boltstore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	srv, err := etcdserve.New(s, etcdserve.Options{ClientURLs: []string{"http://" + address}})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("serving")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return srv.Serve(ctx, l)
}

// process is a server of a bolt file in a process of its own.
type process struct {
	t       testing.TB
	url     string
	file    string
	address string

	mu  sync.Mutex
	cmd *exec.Cmd
	in  io.Closer
}

// serveBolt starts a server of a new file.
func serveBolt(t testing.TB) *process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &process{t: t, file: filepath.Join(t.TempDir(), "store"), address: l.Addr().String()}
	p.url = "http://" + p.address
	l.Close()
	t.Cleanup(p.kill)
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+p.file, addressEnv+"="+p.address)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.in = cmd, in
	late := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "serving" {
		return fmt.Errorf("the server does not start: %q, %w", line, err)
	}
	return nil
}

// kill ends the server at once.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.in.Close()
	p.cmd = nil
}

// serve serves a store until the test ends.
func serve(t testing.TB, s store.Store) (url string) {
	t.Helper()
	return serveWith(t, s, etcdserve.Options{})
}

func serveWith(t testing.TB, s store.Store, opts etcdserve.Options) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url = "http://" + l.Addr().String()
	if opts.TLS != nil {
		url = "https://" + l.Addr().String()
	}
	opts.ClientURLs = []string{url}
	srv, err := etcdserve.New(s, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return url
}

func newMem(t testing.TB) *memstore.Store {
	t.Helper()
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
