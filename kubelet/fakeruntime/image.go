package fakeruntime

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sort"

	"github.com/distribution/reference"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// image is a name that was pulled; its content is that name's hash.
type image struct {
	name   string // normalized, with its tag or digest
	id     string // sha256:…
	digest string // repository@sha256:…
	size   uint64
}

func normalize(name string) (reference.Named, error) {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "invalid image name %q: %v", name, err)
	}
	return ref, nil
}

// image finds an image by any of its names. The lock is held.
func (r *Runtime) image(name string) *image {
	if img := r.images[name]; img != nil {
		return img
	}
	if ref, err := normalize(name); err == nil {
		if img := r.images[ref.String()]; img != nil {
			return img
		}
	}
	for _, img := range r.images {
		if img.id == name || img.digest == name {
			return img
		}
	}
	return nil
}

func (i *image) message() *runtimeapi.Image {
	out := &runtimeapi.Image{Id: i.id, RepoDigests: []string{i.digest}, Size: i.size, Spec: &runtimeapi.ImageSpec{Image: i.name}}
	if i.name != i.digest {
		out.RepoTags = []string{i.name}
	}
	return out
}

// ListImages implements kubelet.ImageService.
func (r *Runtime) ListImages(_ context.Context, f *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	r.lock()
	defer r.mu.Unlock()
	if name := f.GetImage().GetImage(); name != "" {
		if img := r.image(name); img != nil {
			return []*runtimeapi.Image{img.message()}, nil
		}
		return nil, nil
	}
	var out []*runtimeapi.Image
	for _, img := range r.images {
		out = append(out, img.message())
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Spec.Image < out[j].Spec.Image })
	return out, nil
}

// ImageStatus implements kubelet.ImageService.
func (r *Runtime) ImageStatus(_ context.Context, spec *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	r.lock()
	defer r.mu.Unlock()
	if img := r.image(spec.GetImage()); img != nil {
		return &runtimeapi.ImageStatusResponse{Image: img.message()}, nil
	}
	return &runtimeapi.ImageStatusResponse{}, nil
}

// PullImage implements kubelet.ImageService.
func (r *Runtime) PullImage(ctx context.Context, spec *runtimeapi.ImageSpec, _ *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	ref, err := normalize(spec.GetImage())
	if err != nil {
		return "", err
	}
	if r.opts.PullError != nil {
		if err := r.opts.PullError(spec.Image); err != nil {
			return "", err
		}
	}
	r.lock()
	img := r.images[ref.String()]
	r.mu.Unlock()
	if img != nil {
		return img.digest, nil
	}
	if err := r.sleep(ctx, r.opts.PullDelay); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(ref.String()))
	img = &image{name: ref.String(), id: fmt.Sprintf("sha256:%x", sum), size: 1 << 20}
	img.digest = ref.Name() + "@" + img.id
	if d, ok := ref.(reference.Digested); ok {
		img.digest = ref.Name() + "@" + d.Digest().String()
	}
	r.lock()
	defer r.mu.Unlock()
	r.images[img.name] = img
	return img.digest, nil
}

// RemoveImage implements kubelet.ImageService.
func (r *Runtime) RemoveImage(_ context.Context, spec *runtimeapi.ImageSpec) error {
	r.lock()
	defer r.mu.Unlock()
	if img := r.image(spec.GetImage()); img != nil {
		delete(r.images, img.name)
	}
	return nil
}

// ImageFsInfo implements kubelet.ImageService.
func (r *Runtime) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	now := r.lock()
	defer r.mu.Unlock()
	var used uint64
	for _, img := range r.images {
		used += img.size
	}
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{
		Timestamp: now.UnixNano(),
		FsId:      &runtimeapi.FilesystemIdentifier{Mountpoint: "/"}, UsedBytes: &runtimeapi.UInt64Value{Value: used}, InodesUsed: &runtimeapi.UInt64Value{Value: uint64(len(r.images))},
	}}}, nil
}
