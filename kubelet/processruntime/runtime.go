//go:build linux

package processruntime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/internal/streams"
	"github.com/keelson/keelson/kubelet/processruntime/internal/cgroup"
	"github.com/keelson/keelson/kubelet/processruntime/internal/imagestore"
	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
)

var (
	_ kubelet.RuntimeService = (*Runtime)(nil)
	_ kubelet.ImageService   = (*Runtime)(nil)
	_ kubelet.EventService   = (*Runtime)(nil)
)

// Runtime runs pods as processes of this machine. Its methods may be called from any number of goroutines.
type Runtime struct {
	opts    Options
	exe     string
	level   shim.Level
	overlay bool
	why     string // what stands in the way of more isolation
	cgroups cgroup.Hierarchy
	// lowestOOM is the lowest oom_score_adj that containers can be given, for LevelNamespaces.
	lowestOOM int64
	images    *imagestore.Store
	lock      *os.File
	// lifeline is the end that shims see close when this program ends; nil without KillOnClose.
	lifeline, lifelineRead *os.File

	mu         sync.Mutex
	sandboxes  map[string]*sandbox
	containers map[string]*container
	stream     *streams.Server
	subs       map[*subscriber]struct{}
	closed     bool

	stop    context.Context // done when Close begins
	cancel  context.CancelFunc
	running sync.WaitGroup // streaming sessions and the server
}

// New makes the runtime on a directory and finds what runs there. It starts no goroutine; the server for exec, attach
// and port-forward starts with the first of these.
func New(o Options) (*Runtime, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	exe := o.InitPath
	if exe == "" {
		if !initCalled.Load() {
			return nil, errors.New("processruntime: this program can't serve as its own helper: call processruntime.Init() first thing in main and return if it answers true, or set Options.InitPath to a binary that does")
		}
		exe = "/proc/self/exe"
	}
	for _, d := range []string{"sandboxes", "images"} {
		if err := os.MkdirAll(filepath.Join(o.Root, d), 0o755); err != nil {
			return nil, fmt.Errorf("processruntime: %w", err)
		}
	}
	r := &Runtime{opts: o, exe: exe, sandboxes: make(map[string]*sandbox), containers: make(map[string]*container), subs: make(map[*subscriber]struct{})}
	r.stop, r.cancel = context.WithCancel(context.Background())
	if err := r.open(); err != nil {
		r.release()
		return nil, fmt.Errorf("processruntime: %w", err)
	}
	return r, nil
}

func (r *Runtime) open() error {
	lock, err := os.OpenFile(filepath.Join(r.opts.Root, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	r.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s is used by another runtime: %w", r.opts.Root, err)
	}
	if err := r.probe(); err != nil {
		return err
	}
	if r.opts.KillOnClose {
		if r.lifelineRead, r.lifeline, err = os.Pipe(); err != nil {
			return err
		}
	}
	if r.images, err = imagestore.Open(filepath.Join(r.opts.Root, "images")); err != nil {
		return err
	}
	return r.adopt()
}

func (r *Runtime) release() {
	r.cancel()
	for _, f := range []*os.File{r.lock, r.lifeline, r.lifelineRead} {
		if f != nil {
			f.Close()
		}
	}
}

// Close ends streaming sessions and event streams and lets go of the directory. Pods run on, unless Options.KillOnClose
// is set; then they are removed first, within ctx.
func (r *Runtime) Close(ctx context.Context) error {
	var errs []error
	if r.opts.KillOnClose {
		list, err := r.ListPodSandbox(ctx, nil)
		errs = append(errs, err)
		for _, sb := range list {
			errs = append(errs, r.RemovePodSandbox(ctx, sb.Id))
		}
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return errors.Join(errs...)
	}
	r.closed = true
	stream := r.stream
	r.mu.Unlock()
	r.cancel()
	if stream != nil {
		errs = append(errs, stream.Close())
	}
	done := make(chan struct{})
	go func() {
		r.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("processruntime: closing: %w", ctx.Err()))
	}
	r.release()
	return errors.Join(errs...)
}

// begin counts an operation that Close waits for.
func (r *Runtime) begin(ctx context.Context) (context.Context, func(), error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, errors.New("processruntime: closed")
	}
	r.running.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(r.stop, cancel)
	return ctx, func() {
		unhook()
		cancel()
		r.running.Done()
	}, nil
}

// Isolation says in one line for people how pods are separated on this machine, and what stands in the way of more.
func (r *Runtime) Isolation() string {
	var s string
	switch r.level {
	case shim.LevelNamespaces:
		s = "Linux namespaces as root"
	case shim.LevelUserNS:
		s = "Linux user namespaces without root, one user"
	default:
		s = "none: plain processes that see this machine's files"
	}
	if r.level != shim.LevelNone {
		if r.overlay {
			s += ", overlay file system"
		} else {
			s += ", copied file system"
		}
	}
	switch {
	case r.opts.Network == nil || !r.ownNetNS() && !r.sharedAddresses():
		s += ", the node's network"
	case r.ownNetNS():
		s += ", a network namespace per pod"
	default:
		s += ", the node's network with an address per pod"
	}
	if r.cgroups.Usable() {
		s += ", limits by " + r.cgroups.Names()
	} else {
		s += ", no resource limits"
	}
	if r.why != "" {
		s += " (" + r.why + ")"
	}
	return s
}

// netNSChooser is implemented by networks that need no network namespace.
type netNSChooser interface{ NeedsNetNS() bool }

// ownNetNS says whether pods get a network namespace.
func (r *Runtime) ownNetNS() bool {
	return r.level == shim.LevelNamespaces && r.opts.Network != nil && !r.sharedAddresses()
}

func (r *Runtime) sharedAddresses() bool {
	n, ok := r.opts.Network.(netNSChooser)
	return ok && !n.NeedsNetNS()
}

// ImportImage makes an image available under a name and returns its id. It is what a pull does, from any image that
// go-containerregistry can make or open.
func (r *Runtime) ImportImage(ctx context.Context, image v1.Image, name string) (string, error) {
	img, err := r.images.Import(ctx, image, name)
	if err != nil {
		return "", fmt.Errorf("processruntime: importing %s: %w", name, err)
	}
	return img.ID, nil
}

// LoadImages imports the images of a docker archive, an OCI layout's directory or such a layout in a tar archive, and returns their names.
func (r *Runtime) LoadImages(ctx context.Context, path string) ([]string, error) {
	names, err := r.images.Load(ctx, path)
	if err != nil {
		return names, fmt.Errorf("processruntime: loading %s: %w", path, err)
	}
	return names, nil
}

// Version names the runtime.
func (r *Runtime) Version(context.Context, string) (*runtimeapi.VersionResponse, error) {
	version := "devel"
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(bi.Deps, &bi.Main) {
			if m.Path == "github.com/keelson/keelson" && m.Version != "" && m.Version != "(devel)" {
				version = m.Version
			}
		}
	}
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "keelson", RuntimeVersion: version, RuntimeApiVersion: "v1"}, nil
}

// Status says whether the runtime and its network can be used.
func (r *Runtime) Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error) {
	network := &runtimeapi.RuntimeCondition{Type: runtimeapi.NetworkReady, Status: true}
	if r.opts.Network != nil {
		if err := r.opts.Network.Status(ctx); err != nil {
			network.Status, network.Reason, network.Message = false, "NetworkPluginNotReady", err.Error()
		}
	}
	resp := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: runtimeapi.RuntimeReady, Status: true, Message: "isolation: " + r.Isolation()},
			network,
		}},
		RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: r.level != shim.LevelNone}}},
		Features:        &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: r.level == shim.LevelNamespaces},
	}
	if verbose {
		info, err := json.Marshal(map[string]any{"root": r.opts.Root, "isolation": r.level, "overlay": r.overlay, "cgroups": r.cgroups.Usable()})
		if err != nil {
			return nil, err
		}
		resp.Info = map[string]string{"config": string(info), "isolation": r.Isolation()}
	}
	return resp, nil
}
