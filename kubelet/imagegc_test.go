package kubelet

import (
	"context"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	clocktesting "k8s.io/utils/clock/testing"
)

// store keeps images of ten bytes, on a file system that is as full as they make it.
type store struct {
	ImageService
	RuntimeService
	images []*runtimeapi.Image
	users  []*runtimeapi.Container
}

func (s *store) ListImages(context.Context, *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	return s.images, nil
}

func (s *store) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return s.users, nil
}

func (s *store) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/"}}}}, nil
}

func (s *store) RemoveImage(_ context.Context, spec *runtimeapi.ImageSpec) error {
	for i, img := range s.images {
		if img.Id == spec.Image {
			s.images = append(s.images[:i:i], s.images[i+1:]...)
			return nil
		}
	}
	return nil
}

func (s *store) ids() string {
	var out []string
	for _, img := range s.images {
		out = append(out, img.Id)
	}
	return strings.Join(out, " ")
}

// TestImageGarbageCollection has images removed by age of use, and only those that are old, idle and in the way.
func TestImageGarbageCollection(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(1000, 0))
	s := &store{}
	use := func(id string) { s.users = []*runtimeapi.Container{{ImageRef: id}} }
	pull := func(id string, pinned bool) {
		s.images = append(s.images, &runtimeapi.Image{Id: id, Size: 10, Pinned: pinned, RepoTags: []string{"x/" + id}})
	}
	k := &Kubelet{opts: Options{ImageGCThreshold: 80}, clock: clock, image: s, runtime: s, fsUsage: func(string) (uint64, uint64) { return uint64(10 * len(s.images)), 60 }}
	k.events = newRecorder(nil, Options{DisableEvents: true, Clock: clock})
	round := func(want string) {
		t.Helper()
		k.collectImages(t.Context())
		if got := s.ids(); got != want {
			t.Errorf("images %q, want %q", got, want)
		}
		clock.Step(time.Minute)
	}
	pull("pinned", true)
	pull("a", false)
	pull("b", false)
	pull("c", false)
	use("x/a")
	round("pinned a b c")
	use("x/b")
	round("pinned a b c")
	use("x/c")
	round("pinned a b c")
	// Now a is idle for longest, then b; at 5 of 6 the goal is 45 bytes, so one goes.
	pull("new", false)
	round("pinned b c new")
	// Too full again, but b is all that may go: c is in use, one image is pinned, and the others are young.
	pull("newer", false)
	pull("newest", false)
	round("pinned c new newer newest")
	// What was new is old enough now.
	pull("last", false)
	round("pinned c newer newest last")
	k.opts.ImageGCThreshold = 100
	pull("more", false)
	round("pinned c newer newest last more")
}
