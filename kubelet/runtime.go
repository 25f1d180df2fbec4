package kubelet

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RuntimeService runs pods on one machine. It is the Container Runtime Interface as Go interfaces: the messages,
// their fields and the meaning of every call are those of k8s.io/cri-api v1 (CRI's api.proto is the specification),
// without the transport. An implementation may be called from any number of goroutines. Errors carry gRPC status codes
// (NotFound for unknown ids; removing or stopping what is gone is no error). A call ends when its context does; what it had
// begun is then either undone or visible to the List calls.
//
// Sandboxes and containers outlive the process that made them where the runtime can: a RuntimeService made again
// on the same state lists what is still running.
type RuntimeService interface {
	SandboxService
	ContainerService
	StreamingService
	StatsService
	StatusService
}

// SandboxService makes the environment that a pod's containers share.
type SandboxService interface {
	// RunPodSandbox creates and starts a sandbox and returns its id. The sandbox is ready when it returns.
	RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, runtimeHandler string) (string, error)
	// StopPodSandbox kills the sandbox's containers at once and releases its network. Idempotent.
	StopPodSandbox(ctx context.Context, podSandboxID string) error
	// RemovePodSandbox removes a sandbox and its containers, stopping them first if need be. Idempotent.
	RemovePodSandbox(ctx context.Context, podSandboxID string) error
	PodSandboxStatus(ctx context.Context, podSandboxID string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error)
	ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)
}

// ContainerService runs containers in a sandbox.
type ContainerService interface {
	CreateContainer(ctx context.Context, podSandboxID string, config *runtimeapi.ContainerConfig, sandboxConfig *runtimeapi.PodSandboxConfig) (string, error)
	StartContainer(ctx context.Context, containerID string) error
	// StopContainer sends the stop signal, waits up to timeout seconds, then kills. Idempotent.
	StopContainer(ctx context.Context, containerID string, timeout int64) error
	// RemoveContainer removes a container, killing it first if it runs. Idempotent.
	RemoveContainer(ctx context.Context, containerID string) error
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	ContainerStatus(ctx context.Context, containerID string, verbose bool) (*runtimeapi.ContainerStatusResponse, error)
	UpdateContainerResources(ctx context.Context, containerID string, resources *runtimeapi.ContainerResources) error
	ReopenContainerLog(ctx context.Context, containerID string) error
}

// StreamingService gives access to a running container. Exec, Attach and PortForward return the URL of a
// streaming server that speaks Kubernetes' remote command and port forward protocols.
type StreamingService interface {
	// ExecSync runs a command and returns its output; a non-zero exit is an error that implements
	// k8s.io/utils/exec.ExitError.
	ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error)
	Exec(ctx context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error)
	Attach(ctx context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error)
	PortForward(ctx context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error)
}

// StatsService measures.
type StatsService interface {
	ContainerStats(ctx context.Context, containerID string) (*runtimeapi.ContainerStats, error)
	ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error)
}

// StatusService describes the runtime itself.
type StatusService interface {
	Version(ctx context.Context, apiVersion string) (*runtimeapi.VersionResponse, error)
	Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error)
}

// ImageService keeps images. Image names are normalized as CRI runtimes do (docker.io/library/…:latest).
type ImageService interface {
	ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error)
	// ImageStatus answers with a nil Image if there is none of that name.
	ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error)
	// PullImage fetches an image and returns its reference by digest.
	PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error)
	// RemoveImage is idempotent.
	RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error
	ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error)
}

// EventService is implemented, beside RuntimeService, by runtimes that report changes by themselves; without it
// the kubelet lists periodically.
type EventService interface {
	// GetContainerEvents sends every change of a sandbox or container until ctx ends.
	// It blocks. Sends select on ctx.
	GetContainerEvents(ctx context.Context, events chan<- *runtimeapi.ContainerEventResponse) error
}

// ProbeService is implemented, beside RuntimeService, by runtimes whose containers no network reaches, such as simulations: the
// kubelet asks it instead of executing, dialing or fetching by itself, for probes and for lifecycle hooks.
type ProbeService interface {
	// Probe answers whether the handler succeeds on a container now, and what it said. kind is Startup, Readiness, Liveness,
	// PostStart or PreStop. An error means that no answer could be had.
	Probe(ctx context.Context, containerID, kind string, handler corev1.ProbeHandler) (ok bool, output string, err error)
}

// LimitService is implemented, beside RuntimeService, by runtimes that do less than they are asked for where the machine permits no more.
type LimitService interface {
	// Unenforced names what the container asks for and does not get, for people; nothing if it gets all. The pod has an event
	// that says so.
	Unenforced(sandbox *runtimeapi.PodSandboxConfig, container *runtimeapi.ContainerConfig) []string
}

// Annotations that the kubelet adds to what it hands a runtime, for what CRI has no field.
const (
	// AnnotationRestartPolicy, on a sandbox, is the pod's restart policy.
	AnnotationRestartPolicy = "kubelet.keelson.dev/restart-policy"
	// AnnotationContainerRole, on a container, is main, init, sidecar or ephemeral.
	AnnotationContainerRole = "kubelet.keelson.dev/container-role"
)
