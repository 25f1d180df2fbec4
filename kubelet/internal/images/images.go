// Package images sees to it that a container's image is there: by its pull policy, with the credentials of its pull secrets, and
// a few at a time.
package images

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/kubelet/internal/podstate"
)

// Service is what the package needs of an image service.
type Service interface {
	ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error)
	PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error)
}

// Secrets reads pull secrets.
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Manager is safe for concurrent use.
type Manager struct {
	service Service
	secrets Secrets
	clock   clock.PassiveClock
	slots   chan struct{}
}

// New makes a manager that pulls so many images at once.
func New(s Service, secrets Secrets, c clock.PassiveClock, parallel int) *Manager {
	return &Manager{service: s, secrets: secrets, clock: c, slots: make(chan struct{}, parallel)}
}

// Request is what a container asks for.
type Request struct {
	Image     string
	Policy    corev1.PullPolicy
	Namespace string
	// Secrets are names of pull secrets in Namespace.
	Secrets []string
	Sandbox *runtimeapi.PodSandboxConfig
}

// Image is what was found or pulled.
type Image struct {
	// Ref is how the runtime knows it.
	Ref  string
	UID  *int64
	User string
}

// Error says why there is no image, in the words of a container's status.
type Error struct{ Reason, Message string }

// Error implements error.
func (e *Error) Error() string { return e.Reason + ": " + e.Message }

// Ensure makes the image present if its policy allows, and tells what it did by record.
func (m *Manager) Ensure(ctx context.Context, r Request, record func(kind, reason, message string)) (Image, *Error) {
	named, err := reference.ParseDockerRef(r.Image)
	if err != nil && !isID(r.Image) {
		msg := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", r.Image, r.Image, err)
		record(corev1.EventTypeWarning, "InspectFailed", msg)
		return Image{}, &Error{podstate.ReasonInvalidImageName, msg}
	}
	spec := &runtimeapi.ImageSpec{Image: r.Image}
	found, err := m.status(ctx, spec)
	if err != nil {
		msg := fmt.Sprintf("Failed to inspect image %q: %v", r.Image, err)
		record(corev1.EventTypeWarning, "InspectFailed", msg)
		return Image{}, &Error{podstate.ReasonImageInspectError, msg}
	}
	policy := r.Policy
	if policy == "" {
		policy = corev1.PullIfNotPresent
		if t, ok := named.(reference.Tagged); ok && t.Tag() == "latest" {
			policy = corev1.PullAlways
		}
	}
	if found != nil && policy != corev1.PullAlways {
		record(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", r.Image))
		return *found, nil
	}
	if policy == corev1.PullNever {
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image)
		record(corev1.EventTypeWarning, "ErrImageNeverPull", msg)
		return Image{}, &Error{podstate.ReasonErrImageNeverPull, msg}
	}
	asked := m.clock.Now()
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return Image{}, &Error{podstate.ReasonErrImagePull, ctx.Err().Error()}
	}
	record(corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", r.Image))
	start := m.clock.Now()
	auths, err := m.credentials(ctx, r, named)
	if err == nil {
		err = m.pull(ctx, spec, auths, r.Sandbox)
	}
	if err == nil {
		found, err = m.status(ctx, spec)
		if err == nil && found == nil {
			err = fmt.Errorf("the runtime does not have the image it pulled")
		}
	}
	if err != nil {
		record(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", r.Image, err))
		return Image{}, &Error{podstate.ReasonErrImagePull, err.Error()}
	}
	end := m.clock.Now()
	record(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %d bytes.",
		r.Image, end.Sub(start).Truncate(time.Millisecond), end.Sub(asked).Truncate(time.Millisecond), m.size(ctx, spec)))
	return *found, nil
}

func isID(name string) bool {
	hex, ok := strings.CutPrefix(name, "sha256:")
	return ok && len(hex) == 64
}

func (m *Manager) status(ctx context.Context, spec *runtimeapi.ImageSpec) (*Image, error) {
	resp, err := m.service.ImageStatus(ctx, spec, false)
	if err != nil || resp.GetImage() == nil {
		return nil, err
	}
	img := resp.Image
	out := &Image{Ref: img.Id, User: img.Username}
	if img.Uid != nil {
		out.UID = &img.Uid.Value
	}
	return out, nil
}

func (m *Manager) size(ctx context.Context, spec *runtimeapi.ImageSpec) uint64 {
	resp, err := m.service.ImageStatus(ctx, spec, false)
	if err != nil {
		return 0
	}
	return resp.GetImage().GetSize()
}

// pull tries every credential there is, or none if there is none.
func (m *Manager) pull(ctx context.Context, spec *runtimeapi.ImageSpec, auths []*runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) error {
	if len(auths) == 0 {
		_, err := m.service.PullImage(ctx, spec, nil, sandbox)
		return err
	}
	var first error
	for _, a := range auths {
		_, err := m.service.PullImage(ctx, spec, a, sandbox)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}
