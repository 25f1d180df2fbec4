package criruntime

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"
	"k8s.io/cri-client/pkg/util"
	"k8s.io/klog/v2"

	"github.com/keelson/keelson/kubelet"
)

var (
	_ kubelet.RuntimeService = (*Runtime)(nil)
	_ kubelet.ImageService   = (*Runtime)(nil)
	_ kubelet.EventService   = (*Runtime)(nil)
)

// Options for New. The zero value is usable.
type Options struct {
	// ImageEndpoint serves images, if that is another socket than the runtime's.
	ImageEndpoint string
	// Timeout bounds the connection and each call that has no end of its own. The default is 2 minutes.
	Timeout time.Duration
	// PullTimeout bounds image pulls beyond their context. The default is none.
	PullTimeout time.Duration
	Logger      logr.Logger
}

// Runtime is a connection to a CRI runtime. Its methods may be called from any number of goroutines; errors are the runtime's own,
// with their gRPC codes.
type Runtime struct {
	// The services answer all that kubelet's interfaces have in common with cri-client's.
	criapi.RuntimeService
	criapi.ImageManagerService
	log         logr.Logger
	pullTimeout time.Duration
}

// New connects to the runtime at an endpoint ("unix:///run/containerd/containerd.sock", or on Windows "npipe:////./pipe/…") and checks that it
// speaks CRI v1.
func New(ctx context.Context, endpoint string, o Options) (*Runtime, error) {
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.ImageEndpoint == "" {
		o.ImageEndpoint = endpoint
	}
	for _, given := range [][2]string{{"endpoint", endpoint}, {"Options.ImageEndpoint", o.ImageEndpoint}} {
		field, v := given[0], given[1]
		if !strings.HasPrefix(v, "unix://") && !strings.HasPrefix(v, "npipe://") && !strings.HasPrefix(v, "tcp://") {
			return nil, fmt.Errorf("criruntime: %s is %q, want a URL such as unix:///run/containerd/containerd.sock", field, v)
		}
	}
	if o.Timeout < 0 || o.PullTimeout < 0 {
		return nil, errors.New("criruntime: Options.Timeout and PullTimeout must not be negative")
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	ctx = klog.NewContext(ctx, o.Logger)
	// The client's own check leaves its connection behind when it fails, so it is only run where it will succeed.
	if err := check(ctx, endpoint, o.Timeout, func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := runtimeapi.NewRuntimeServiceClient(c).Version(ctx, &runtimeapi.VersionRequest{})
		return err
	}); err != nil {
		return nil, fmt.Errorf("criruntime: %s serves no CRI v1 runtime: %w", endpoint, err)
	}
	if err := check(ctx, o.ImageEndpoint, o.Timeout, func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := runtimeapi.NewImageServiceClient(c).ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
		return err
	}); err != nil {
		return nil, fmt.Errorf("criruntime: %s serves no CRI v1 images: %w", o.ImageEndpoint, err)
	}
	runtimeService, err := criclient.NewRemoteRuntimeServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(o.Timeout).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		return nil, fmt.Errorf("criruntime: connecting to %s: %w", endpoint, err)
	}
	imageService, err := criclient.NewRemoteImageServiceBuilder().WithEndpoint(o.ImageEndpoint).WithConnectionTimeout(o.Timeout).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("criruntime: connecting to %s: %w", o.ImageEndpoint, err), runtimeService.Close(ctx))
	}
	return &Runtime{RuntimeService: runtimeService, ImageManagerService: imageService, log: o.Logger, pullTimeout: o.PullTimeout}, nil
}

// check makes one call on a connection of its own.
func check(ctx context.Context, endpoint string, timeout time.Duration, call func(context.Context, *grpc.ClientConn) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addr, dialer, err := util.GetAddressAndDialer(endpoint)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"), grpc.WithContextDialer(dialer))
	if err != nil {
		return err
	}
	defer conn.Close()
	return call(ctx, conn)
}

// Close ends the connections. Pods run on.
func (r *Runtime) Close(ctx context.Context) error {
	return errors.Join(r.RuntimeService.Close(r.with(ctx)), r.ImageManagerService.Close(r.with(ctx)))
}

// with sends what the client logs to this runtime's logger, not to a global one.
func (r *Runtime) with(ctx context.Context) context.Context { return klog.NewContext(ctx, r.log) }

// GetContainerEvents implements [kubelet.EventService].
func (r *Runtime) GetContainerEvents(ctx context.Context, events chan<- *runtimeapi.ContainerEventResponse) error {
	ctx, cancel := context.WithCancel(r.with(ctx))
	defer cancel()
	// The client sends without looking at the context: what it sends is taken until it ends.
	in := make(chan *runtimeapi.ContainerEventResponse)
	ended := make(chan error, 1)
	go func() { ended <- r.RuntimeService.GetContainerEvents(ctx, in, nil) }()
	for {
		select {
		case err := <-ended:
			return err
		case ev := <-in:
			select {
			case events <- ev:
			case <-ctx.Done():
			}
		}
	}
}

// ExecSync implements [kubelet.StreamingService]. A timeout has the code DeadlineExceeded.
func (r *Runtime) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	// CRI counts seconds, and zero is no timeout.
	if timeout > 0 && timeout < time.Second {
		timeout = time.Second
	}
	stdout, stderr, err = r.RuntimeService.ExecSync(r.with(ctx), id, cmd, timeout)
	if errors.Is(err, criclient.ErrCommandTimedOut) {
		err = status.Error(codes.DeadlineExceeded, err.Error())
	}
	return stdout, stderr, err
}

// PullImage implements [kubelet.ImageService].
func (r *Runtime) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	if r.pullTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.pullTimeout)
		defer cancel()
	}
	return r.ImageManagerService.PullImage(r.with(ctx), image, auth, sandbox)
}

// StopContainer implements [kubelet.ContainerService]. What is gone is stopped.
func (r *Runtime) StopContainer(ctx context.Context, id string, timeout int64) error {
	return gone(r.RuntimeService.StopContainer(r.with(ctx), id, timeout))
}

// RemoveContainer implements [kubelet.ContainerService]. What is gone is removed.
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	return gone(r.RuntimeService.RemoveContainer(r.with(ctx), id))
}

// StopPodSandbox implements [kubelet.SandboxService]. What is gone is stopped.
func (r *Runtime) StopPodSandbox(ctx context.Context, id string) error {
	return gone(r.RuntimeService.StopPodSandbox(r.with(ctx), id))
}

// RemovePodSandbox implements [kubelet.SandboxService]. Some runtimes want a sandbox to be stopped first.
func (r *Runtime) RemovePodSandbox(ctx context.Context, id string) error {
	if err := r.StopPodSandbox(ctx, id); err != nil {
		return err
	}
	return gone(r.RuntimeService.RemovePodSandbox(r.with(ctx), id))
}

func gone(err error) error {
	if status.Code(err) == codes.NotFound {
		return nil
	}
	return err
}

// Status implements [kubelet.StatusService].
func (r *Runtime) Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error) {
	return r.RuntimeService.Status(r.with(ctx), verbose)
}
