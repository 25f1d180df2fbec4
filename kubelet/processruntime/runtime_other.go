//go:build !linux

package processruntime

import (
	"context"
	"errors"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/keelson/keelson/kubelet"
)

var errNotLinux = errors.New("processruntime: containers need Linux; use fakeruntime, or criruntime with the endpoint of a runtime")

// Runtime runs pods on Linux only. New never returns one here.
type Runtime struct {
	kubelet.RuntimeService
	kubelet.ImageService
	kubelet.EventService
}

// Init does nothing here.
func Init() bool { return false }

// New fails: the runtime needs Linux.
func New(Options) (*Runtime, error) { return nil, errNotLinux }

// Isolation is empty.
func (r *Runtime) Isolation() string { return "" }

// ImportImage fails.
func (r *Runtime) ImportImage(context.Context, v1.Image, string) (string, error) {
	return "", errNotLinux
}

// LoadImages fails.
func (r *Runtime) LoadImages(context.Context, string) ([]string, error) { return nil, errNotLinux }

// Close does nothing.
func (r *Runtime) Close(context.Context) error { return nil }
