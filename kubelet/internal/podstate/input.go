package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// State is a container's state as the runtime reports it.
type State uint8

const (
	Unknown State = iota
	Created
	Running
	Exited
)

// Container is one container, dead or alive, of the pod in the runtime.
type Container struct {
	ID, Name, SandboxID string
	State               State
	// Attempt is how often the container had been restarted when this one was made.
	Attempt                          uint32
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int32
	Reason, Message                  string
	// Image is the name to show in the status and ImageID its digest.
	Image, ImageID string
	// SpecImage is the image the pod's spec asked for when the container was made; empty if unknown.
	SpecImage string
	User      *corev1.ContainerUser
}

// Sandbox is one sandbox of the pod in the runtime.
type Sandbox struct {
	ID        string
	Ready     bool
	Attempt   uint32
	CreatedAt time.Time
	IPs       []string
}

// Rejection says why the node does not take a pod, or stops running it.
type Rejection struct {
	Reason, Message string
}

// Input is everything that a decision depends on beside the machine's own memory. Nothing in it is modified or kept.
type Input struct {
	Now time.Time
	// Pod is the pod as the API has it, or, when Gone, as it was last seen.
	Pod *corev1.Pod
	// Gone says that the API has the pod no more.
	Gone       bool
	Sandboxes  []Sandbox
	Containers []Container
	// Rejected is set if the node refuses the pod.
	Rejected *Rejection
	// HostIPs are the addresses of the node; the first is the primary one.
	HostIPs []string
	// RuntimeName prefixes container ids in the status.
	RuntimeName string
	// Written says that the API has the status of the last decision.
	Written bool
}

// ActionKind names what is to be done.
type ActionKind uint8

const (
	// PrepareVolumes makes the pod's directories and volumes.
	PrepareVolumes ActionKind = iota + 1
	// CreateSandbox makes a sandbox with the number Attempt.
	CreateSandbox
	// StopSandbox stops SandboxID.
	StopSandbox
	// RemoveSandbox removes SandboxID with its containers.
	RemoveSandbox
	// StartContainer pulls the image, creates and starts Container in SandboxID, and runs its postStart hook.
	StartContainer
	// StopContainer runs the preStop hook of ContainerID and stops it, both within Grace. It replaces an
	// earlier StopContainer of the same container.
	StopContainer
	// RemoveContainer removes ContainerID, which never ran.
	RemoveContainer
	// CleanUp unmounts and removes the pod's volumes and directories.
	CleanUp
	// DeletePod deletes the pod from the API with no grace period, if it still has the same UID.
	DeletePod
)

var kindNames = [...]string{"", "prepare-volumes", "create-sandbox", "stop-sandbox", "remove-sandbox", "start", "stop", "remove-container", "clean-up", "delete-pod"}

func (k ActionKind) String() string { return kindNames[k] }

// Action is one thing to be done for the pod. Actions of one decision are independent of each other.
type Action struct {
	Kind        ActionKind
	Container   string
	ContainerID string
	SandboxID   string
	Attempt     uint32
	Grace       time.Duration
	// Message says why a container is stopped; it becomes the Killing event.
	Message string

	seq   uint64
	until time.Time // of a stop: when its grace ends
}

// Key identifies what the action works on: of two actions with one key the later replaces the earlier.
func (a Action) Key() string {
	switch a.Kind {
	case StartContainer:
		return "start/" + a.Container
	case StopContainer, RemoveContainer:
		return "stop/" + a.ContainerID
	case StopSandbox, RemoveSandbox:
		return "sandbox/" + a.SandboxID
	}
	return a.Kind.String()
}

// Failure says why an action failed.
type Failure struct {
	// Reason is what the container is waiting for, such as ErrImagePull.
	Reason, Message string
}

// Reasons a container waits.
const (
	ReasonContainerCreating  = "ContainerCreating"
	ReasonPodInitializing    = "PodInitializing"
	ReasonCrashLoopBackOff   = "CrashLoopBackOff"
	ReasonErrImagePull       = "ErrImagePull"
	ReasonImagePullBackOff   = "ImagePullBackOff"
	ReasonErrImageNeverPull  = "ErrImageNeverPull"
	ReasonInvalidImageName   = "InvalidImageName"
	ReasonImageInspectError  = "ImageInspectError"
	ReasonCreateConfigError  = "CreateContainerConfigError"
	ReasonCreateError        = "CreateContainerError"
	ReasonRunError           = "RunContainerError"
	ReasonPostStartHookError = "PostStartHookError"
	ReasonStatusUnknown      = "ContainerStatusUnknown"
)

// Event is an event to record about the pod, or one of its containers.
type Event struct {
	Type, Reason, Message string
	Container             string
}

// Decision is what to do now.
type Decision struct {
	Actions []Action
	// Cancel are the keys of actions under way whose outcome is no longer wanted.
	Cancel []string
	Events []Event
	// Status is the pod's status from now on. It shares memory with nothing that changes.
	Status corev1.PodStatus
	// WakeAt is when to decide again if nothing else happens; zero if there is no need.
	WakeAt time.Time
	// Terminating says that the pod's containers are being stopped for good, Stopped that none runs any more.
	Terminating, Stopped bool
	// Done says that the node holds nothing of the pod, and the API has it no more.
	Done bool
}

// ProbeKind is one of the three probes.
type ProbeKind uint8

const (
	Startup ProbeKind = iota
	Readiness
	Liveness
)

func (k ProbeKind) String() string { return [...]string{"Startup", "Readiness", "Liveness"}[k] }

// ProbeResult is the verdict of a probe, thresholds applied.
type ProbeResult uint8

const (
	ProbeUnknown ProbeResult = iota
	ProbeSuccess
	ProbeFailure
)
