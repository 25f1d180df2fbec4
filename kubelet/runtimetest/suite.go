package runtimetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet"
)

// Instance is a runtime under test.
type Instance struct {
	// Lags is set for runtimes that learn of a container's end, its last output and its out-of-memory kill separately, and may report the end
	// first (containerd). All others are held to report them together.
	Lags    bool
	Runtime kubelet.RuntimeService
	Images  kubelet.ImageService
	// Events, if the runtime has them.
	Events kubelet.EventService
	// Image is present in the runtime and has the program of package workload as /workload.
	Image string
	// Restart stops the program's side of the runtime and makes it again on the same state, and so the Instance. Nil
	// if pods don't outlive it.
	Restart func(t testing.TB) *Instance
	// Leftovers names what is left on the machine of pods that were removed: processes, mounts, cgroups, directories. Nil if it can't be known.
	Leftovers func() []string
	// LogDir is a directory that the runtime can write logs to. The default is a temporary one.
	LogDir string
	// Sandbox, if set, changes the configuration of each sandbox before it is used.
	Sandbox func(*runtimeapi.PodSandboxConfig)
}

// Feature names what some runtimes do not have.
type Feature string

const (
	// Processes: containers really run programs. A simulation has only life cycles.
	Processes Feature = "processes"
	// Filesystem: containers see their own files and mounts at absolute paths.
	Filesystem Feature = "filesystem"
	// PIDs: containers have PID namespaces.
	PIDs Feature = "pids"
	// Users: processes run as any user.
	Users Feature = "users"
	// Limits: memory limits are enforced.
	Limits Feature = "limits"
	// Capabilities, seccomp and no_new_privs are applied.
	Capabilities Feature = "capabilities"
	// Hostname: pods have their own.
	Hostname Feature = "hostname"
	// Streaming: Exec, Attach and PortForward.
	Streaming Feature = "streaming"
	// Network: port forwarding reaches what a container listens on.
	Network Feature = "network"
	// Stats are measured.
	Stats Feature = "stats"
	// ImageRemoval: RemoveImage can be tried without harm to other tests.
	ImageRemoval Feature = "image removal"
)

// Config of a run.
type Config struct {
	// New makes an instance. It is called once; its cleanup is registered with t.
	New func(t *testing.T) *Instance
	// Without names what the runtime does not have.
	Without []Feature
	// Timeout bounds each check; the default is 30 seconds.
	Timeout time.Duration
	// Only, a regular expression of whole names, chooses checks; the default is all.
	Only string
}

// check is one rule. It returns an error instead of failing a test, so that the suite can be tried on runtimes that are broken.
type check struct {
	name  string
	needs []Feature
	run   func(ctx context.Context, e *env) error
}

// Run runs the suite.
func Run(t *testing.T, cfg Config) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	inst := cfg.New(t)
	if inst.LogDir == "" {
		inst.LogDir = t.TempDir()
	}
	only, err := regexp.Compile("^(" + cmp.Or(cfg.Only, ".*") + ")$")
	if err != nil {
		t.Fatalf("runtimetest: Config.Only: %v", err)
	}
	for _, c := range checks() {
		if !only.MatchString(c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			for _, f := range c.needs {
				if slices.Contains(cfg.Without, f) {
					t.Skipf("the runtime is without %s", f)
				}
			}
			err := c.attempt(t, inst, cfg.Timeout)
			var skip skipError
			if errors.As(err, &skip) {
				t.Skip(string(skip))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// skipError says why a check does not apply.
type skipError string

func (s skipError) Error() string { return string(s) }

// attempt runs one check and removes what it made.
func (c check) attempt(t testing.TB, inst *Instance, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	e := &env{Instance: inst, t: t}
	err := c.run(ctx, e)
	clean, cancelClean := context.WithTimeout(context.Background(), timeout)
	defer cancelClean()
	for _, id := range e.sandboxes {
		if rmErr := e.Runtime.RemovePodSandbox(clean, id); rmErr != nil {
			err = errors.Join(err, fmt.Errorf("cleaning up: %w", rmErr))
		}
	}
	if e.restarted != nil {
		*inst = *e.restarted
	}
	return err
}

func checks() []check {
	return slices.Concat(sandboxChecks(), containerChecks(), processChecks(), logChecks(), execChecks(), streamChecks(), eventChecks(), adoptChecks())
}

// env is what a check works with.
type env struct {
	*Instance
	t         testing.TB
	sandboxes []string
	restarted *Instance
}

var names atomic.Int64 // only makes names unique

func (e *env) podConfig() *runtimeapi.PodSandboxConfig {
	n := names.Add(1)
	name := fmt.Sprintf("pod-%d-%d", os.Getpid(), n)
	c := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "runtimetest", Uid: fmt.Sprintf("uid-%s", name)},
		Hostname:     name,
		LogDirectory: filepath.Join(e.LogDir, name),
		Labels:       map[string]string{"suite": "runtimetest", "pod": name},
		Annotations:  map[string]string{"example.com/note": "a b=c\n\"d\""},
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}
	if e.Instance.Sandbox != nil {
		e.Instance.Sandbox(c)
	}
	return c
}

// pod runs a sandbox that the check's end removes.
func (e *env) pod(ctx context.Context, change ...func(*runtimeapi.PodSandboxConfig)) (string, *runtimeapi.PodSandboxConfig, error) {
	c := e.podConfig()
	for _, f := range change {
		f(c)
	}
	if err := os.MkdirAll(c.LogDirectory, 0o755); err != nil {
		return "", nil, err
	}
	// A copy, so that what a runtime does to it does not show in what is expected.
	id, err := e.Runtime.RunPodSandbox(ctx, proto.CloneOf(c), "")
	if err != nil {
		return "", nil, fmt.Errorf("RunPodSandbox: %w", err)
	}
	e.sandboxes = append(e.sandboxes, id)
	return id, c, nil
}

func (e *env) containerConfig(name string, commands ...string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: e.Image},
		Command:  append([]string{"/workload"}, commands...),
		LogPath:  name + ".log",
		Labels:   map[string]string{"suite": "runtimetest", "container": name},
		Linux: &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{CpuShares: 102}, SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}
}

// started is a container that was created and started.
type started struct {
	e       *env
	id      string
	pod     string
	logPath string
	config  *runtimeapi.ContainerConfig
	podConf *runtimeapi.PodSandboxConfig
}

// start runs a container in a sandbox.
func (e *env) start(ctx context.Context, pod string, pc *runtimeapi.PodSandboxConfig, cc *runtimeapi.ContainerConfig) (*started, error) {
	id, err := e.Runtime.CreateContainer(ctx, pod, proto.CloneOf(cc), proto.CloneOf(pc))
	if err != nil {
		return nil, fmt.Errorf("CreateContainer: %w", err)
	}
	if err := e.Runtime.StartContainer(ctx, id); err != nil {
		return nil, fmt.Errorf("StartContainer: %w", err)
	}
	return &started{e: e, id: id, pod: pod, logPath: filepath.Join(pc.LogDirectory, cc.LogPath), config: cc, podConf: pc}, nil
}

// run makes a sandbox and starts one container in it.
func (e *env) run(ctx context.Context, change func(*runtimeapi.PodSandboxConfig, *runtimeapi.ContainerConfig), commands ...string) (*started, error) {
	cc := e.containerConfig("main", commands...)
	pod, pc, err := e.pod(ctx, func(pc *runtimeapi.PodSandboxConfig) {
		if change != nil {
			change(pc, cc)
		}
	})
	if err != nil {
		return nil, err
	}
	return e.start(ctx, pod, pc, cc)
}

// output runs a container to its end and returns what it printed to standard output.
func (e *env) output(ctx context.Context, change func(*runtimeapi.PodSandboxConfig, *runtimeapi.ContainerConfig), commands ...string) (string, error) {
	s, err := e.run(ctx, change, commands...)
	if err != nil {
		return "", err
	}
	st, err := s.exited(ctx)
	if err != nil {
		return "", err
	}
	out, errs, err := s.logs()
	if err != nil {
		return "", err
	}
	if st.ExitCode != 0 {
		return "", fmt.Errorf("container ended with %d (%s): %s%s", st.ExitCode, st.Reason, out, errs)
	}
	return out, nil
}

func (s *started) status(ctx context.Context) (*runtimeapi.ContainerStatus, error) {
	resp, err := s.e.Runtime.ContainerStatus(ctx, s.id, false)
	if err != nil {
		return nil, fmt.Errorf("ContainerStatus: %w", err)
	}
	return resp.Status, nil
}

// exited waits for the container's end.
func (s *started) exited(ctx context.Context) (*runtimeapi.ContainerStatus, error) {
	var st *runtimeapi.ContainerStatus
	err := poll(ctx, func() error {
		var err error
		if st, err = s.status(ctx); err != nil {
			return err
		}
		if st.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("container is %s, want CONTAINER_EXITED", st.State)
		}
		return nil
	})
	return st, err
}

// printed waits until the log has a line.
func (s *started) printed(ctx context.Context, line string) error {
	return poll(ctx, func() error {
		out, errs, err := s.logs()
		if err != nil {
			return err
		}
		if !slices.Contains(strings.Split(out+errs, "\n"), line) {
			return fmt.Errorf("log has no line %q: %q %q", line, out, errs)
		}
		return nil
	})
}

// poll tries until it works or the context ends; then its last error is returned.
func poll(ctx context.Context, try func() error) error {
	for wait := time.Millisecond; ; wait = min(wait*2, 50*time.Millisecond) {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// expect compares.
func expect[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s is %v, want %v", what, got, want)
	}
	return nil
}
