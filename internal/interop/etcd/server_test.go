package etcd

import (
	"bufio"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// childEnv makes the test binary an etcd with its data in the directory that it names.
const childEnv = "KEELSON_ETCD_CHILD"

func TestMain(m *testing.M) {
	for env, run := range map[string]func(string) error{childEnv: child, serveEnv: serveChild} {
		if arg := os.Getenv(env); arg != "" {
			if err := run(arg); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(m.Run())
}

// child runs an etcd until its standard input is closed.
func child(dir string) error {
	parse := func(name string) []url.URL {
		u, err := url.Parse(os.Getenv(name))
		if err != nil {
			panic(err)
		}
		return []url.URL{*u}
	}
	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.LogLevel = "panic"
	cfg.LogOutputs = []string{os.DevNull}
	cfg.UnsafeNoFsync = true // what is tested here is the client, and the power stays on
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = parse("CLIENT_URL"), parse("CLIENT_URL")
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = parse("PEER_URL"), parse("PEER_URL")
	if os.Getenv("PEER_LISTEN_URL") != "" {
		cfg.ListenPeerUrls = parse("PEER_LISTEN_URL")
	}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	if cluster := os.Getenv("CLUSTER"); cluster != "" {
		cfg.Name, cfg.InitialCluster = os.Getenv("NAME"), cluster
		cfg.TickMs, cfg.ElectionMs = 50, 500
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	<-e.Server.ReadyNotify()
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	e.Close()
	return nil
}

// server is an etcd in a process of its own.
type server struct {
	url  url.URL
	cmd  *exec.Cmd
	in   io.Closer
	out  *bufio.Scanner
	once sync.Once
}

// startEtcd runs an etcd of one member that listens at clientURL.
func startEtcd(t testing.TB, dir string, clientURL url.URL) *server {
	t.Helper()
	peer := freeURL(t)
	s := launch(t, clientURL, childEnv+"="+dir, "PEER_URL="+peer.String())
	t.Cleanup(s.stop)
	if err := s.ready(); err != nil {
		s.kill()
		t.Fatal(err)
	}
	return s
}

// launch starts the process of an etcd.
func launch(t testing.TB, clientURL url.URL, env ...string) *server {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{url: clientURL, cmd: exec.Command(exe)}
	s.cmd.Env = append(append(os.Environ(), "CLIENT_URL="+clientURL.String()), env...)
	s.cmd.Stderr = os.Stderr
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in = in
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	return s
}

// ready waits until the etcd can be used.
func (s *server) ready() error {
	late := time.AfterFunc(60*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	if !s.out.Scan() || s.out.Text() != "ready" {
		return fmt.Errorf("etcd does not start: %q", s.out.Text())
	}
	return nil
}

// kill ends the etcd at once.
func (s *server) kill() {
	s.once.Do(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		_ = s.in.Close()
	})
}

// stop ends the etcd, by force if it has to be.
func (s *server) stop() {
	s.once.Do(func() {
		_ = s.in.Close()
		late := time.AfterFunc(15*time.Second, func() { _ = s.cmd.Process.Kill() })
		defer late.Stop()
		_ = s.cmd.Wait()
	})
}
