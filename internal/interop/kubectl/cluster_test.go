package kubectl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/keelson/keelson/kubelet/processruntime/image"
)

const (
	inNamespace = "KEELSON_TEST_IN_NAMESPACE"
	binaries    = "KEELSON_TEST_BINARIES" // the directory of what is built
)

// TestMain makes room for the binaries that the tests share, and puts the tests, as root, into a network namespace of their own: the cluster
// makes bridges and rules.
func TestMain(m *testing.M) {
	if os.Getenv(binaries) != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "keelson-kubectl-")
	if err != nil {
		log.Fatal(err)
	}
	code, err := inBinaries(m, dir)
	if e := os.RemoveAll(dir); err == nil {
		err = e
	}
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(code)
}

func inBinaries(m *testing.M, dir string) (int, error) {
	if err := os.Chmod(dir, 0o755); err != nil { // for other users too
		return 1, err
	}
	if err := os.Setenv(binaries, dir); err != nil {
		return 1, err
	}
	if os.Geteuid() != 0 {
		return m.Run(), nil
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	c := exec.Command("sh", append([]string{"-c", `ip link set lo up && exec "$0" "$@"`, self}, os.Args[1:]...)...)
	c.Env = append(os.Environ(), inNamespace+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err = c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// cluster is a running allinone.
type cluster struct {
	t          *testing.T
	dir, image string
	kubectl    string
	allinone   string
	args       []string
	cmd        *exec.Cmd
	log        *bytes.Buffer
	quiet      bool // nothing that is no error is logged as one
}

// binary compiles a program of this module or of the main one, unless that has been done.
func binary(t *testing.T, name string) string {
	t.Helper()
	out := filepath.Join(os.Getenv(binaries), name)
	if _, err := os.Stat(out); err == nil {
		return out
	}
	c := exec.Command("go", "build", "-ldflags", "-s -w -X "+version+"gitVersion=v1.37.2 -X "+version+"gitMajor=1 -X "+version+"gitMinor=37", "-o", out, "./"+name)
	if name != "kubectl" && name != "box" {
		c = exec.Command("go", "build", "-ldflags", "-s -w", "-o", out, "./examples/"+name)
		c.Dir = "../../.."
	}
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", name, err, b)
	}
	return out
}

const version = "k8s.io/component-base/version."

// start makes an image, a registry that has it, and a cluster.
func start(t *testing.T, args ...string) *cluster {
	t.Helper()
	return startOn(t, "127.0.0.1", append([]string{"-listen", "127.0.0.1:0"}, args...)...)
}

// startOn serves the registry at an address that the nodes reach.
func startOn(t *testing.T, at string, args ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), args: args, kubectl: binary(t, "kubectl"), allinone: binary(t, "allinone")}
	img := boxImage(t)
	l, err := net.Listen("tcp", net.JoinHostPort(at, "0"))
	if err != nil {
		t.Fatal(err)
	}
	reg := &httptest.Server{Listener: l, Config: &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}}
	reg.Start()
	t.Cleanup(reg.Close)
	c.image = strings.TrimPrefix(reg.URL, "http://") + "/box:v1"
	for _, n := range []string{c.image, strings.Replace(c.image, ":v1", ":v2", 1)} {
		ref, err := name.ParseReference(n, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, img); err != nil {
			t.Fatal(err)
		}
	}
	c.run()
	t.Cleanup(c.stop)
	return c
}

func boxImage(t *testing.T) v1.Image {
	t.Helper()
	var links []string
	for l := range strings.FieldsSeq("sh cat echo sleep tar httpd env hostname get ticker nslookup id stat touch rm fill flood stubborn size probed") {
		links = append(links, "/bin/"+l)
	}
	img, err := image.FromBinary(binary(t, "box"), image.Options{Path: "/bin/box", Links: links, Env: []string{"PATH=/bin"}, Cmd: []string{"sleep"}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (c *cluster) run() {
	c.t.Helper()
	c.log = &bytes.Buffer{}
	c.cmd = exec.Command(c.allinone, append([]string{"-data-dir", filepath.Join(c.dir, "data")}, c.args...)...)
	c.cmd.Stderr = c.log
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "ready kubeconfig=") {
			if !slices.Contains(c.args, "-nodes") || !slices.Contains(c.args, "0") {
				c.wait("node/node-1", "condition=Ready")
			}
			return
		}
	}
	c.t.Fatalf("allinone ended: %s", c.log)
}

// stop ends the cluster and its pods.
func (c *cluster) stop() {
	if c.t.Failed() {
		out, _ := c.try("", "get", "pods,events", "-A")
		c.t.Logf("%s\nallinone: %s", out, c.log)
	}
	_, _ = c.try("", "delete", "deploy,sts,ds,job,rs,pods", "--all", "-A", "--grace-period=1", "--timeout=30s")
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return
	}
	done := make(chan error, 1)
	go func() { done <- c.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			c.t.Errorf("allinone: %v\n%s", err, c.log)
		}
		for _, noise := range []string{"Error on socket receive", "Found a pod in the runtime", "Unhandled Error"} {
			if c.quiet && strings.Contains(c.log.String(), noise) {
				c.t.Errorf("allinone logs %q:\n%s", noise, c.log)
			}
		}
	case <-time.After(time.Minute):
		_ = c.cmd.Process.Kill()
		c.t.Error("allinone does not end in 30 seconds after SIGTERM")
	}
}

func (c *cluster) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(c.dir, "data", "kubeconfig"), "HOME="+c.dir, "KUBE_EDITOR=sed -i s/edited=no/edited=yes/", "PATH="+os.Getenv(binaries)+":"+os.Getenv("PATH"))
	return cmd
}

func (c *cluster) try(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := c.command(ctx, args...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// k runs kubectl, which must succeed, and whose output must contain all of want.
func (c *cluster) k(t *testing.T, args string, want ...string) string {
	t.Helper()
	return c.in(t, "", args, want...)
}

func (c *cluster) in(t *testing.T, stdin, args string, want ...string) string {
	t.Helper()
	out, err := c.try(stdin, strings.Fields(args)...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", args, err, out)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("kubectl %s: no %q in\n%s", args, w, out)
		}
	}
	return out
}

// fails runs kubectl, which must fail and say want.
func (c *cluster) fails(t *testing.T, stdin, args, want string) {
	t.Helper()
	out, err := c.try(stdin, strings.Fields(args)...)
	if err == nil || !strings.Contains(out, want) {
		t.Errorf("kubectl %s: %v, want an error with %q:\n%s", args, err, want, out)
	}
}

func (c *cluster) wait(what, cond string) {
	c.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		out, err := c.try("", "wait", what, "--for="+cond, "--timeout=30s")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("waiting for %s %s: %v\n%s\nallinone: %s", what, cond, err, out, c.log)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// follow runs a kubectl that doesn't end by itself until it has written want.
func (c *cluster) follow(t *testing.T, want string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := c.command(ctx, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it has been killed
	}()
	var got bytes.Buffer
	buf := make([]byte, 1024)
	for !strings.Contains(got.String(), want) {
		n, err := out.Read(buf)
		got.Write(buf[:n])
		if err != nil && !strings.Contains(got.String(), want) {
			t.Fatalf("%v after %s", err, &got)
		}
	}
}

func contains(out, want string) error {
	if !strings.Contains(out, want) {
		return fmt.Errorf("no %q in %q", want, out)
	}
	return nil
}
