//go:build linux

package processruntime

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime/internal/imagestore"
)

func (r *Runtime) criImage(img *imagestore.Image) (*runtimeapi.Image, error) {
	out := &runtimeapi.Image{Id: img.ID, RepoTags: img.Tags, RepoDigests: img.Digests, Size: uint64(img.Size), Spec: &runtimeapi.ImageSpec{Image: img.ID}}
	cfg, err := r.images.Config(img)
	if err != nil {
		return nil, err
	}
	user, _, _ := strings.Cut(cfg.Config.User, ":")
	if uid, err := strconv.ParseInt(user, 10, 64); err == nil {
		out.Uid = &runtimeapi.Int64Value{Value: uid}
	} else {
		out.Username = user
	}
	return out, nil
}

// ListImages implements [kubelet.ImageService].
func (r *Runtime) ListImages(_ context.Context, f *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	list := r.images.List()
	if ref := f.GetImage().GetImage(); ref != "" {
		list = nil
		if img := r.images.Get(ref); img != nil {
			list = append(list, img)
		}
	}
	var out []*runtimeapi.Image
	for _, img := range list {
		i, err := r.criImage(img)
		if err != nil {
			return nil, toStatus(err)
		}
		out = append(out, i)
	}
	return out, nil
}

// ImageStatus implements [kubelet.ImageService].
func (r *Runtime) ImageStatus(_ context.Context, spec *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error) {
	img := r.images.Get(spec.GetImage())
	if img == nil {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	i, err := r.criImage(img)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &runtimeapi.ImageStatusResponse{Image: i}
	if verbose {
		cfg, err := r.images.Config(img)
		if err != nil {
			return nil, toStatus(err)
		}
		b, err := json.Marshal(map[string]any{"chainID": img.Chain, "imageSpec": cfg})
		if err != nil {
			return nil, err
		}
		resp.Info = map[string]string{"info": string(b)}
	}
	return resp, nil
}

// PullImage implements [kubelet.ImageService].
func (r *Runtime) PullImage(ctx context.Context, spec *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	o := imagestore.PullOptions{Insecure: r.opts.InsecureRegistries, Transport: r.opts.RegistryTransport}
	if auth != nil {
		a, err := authenticator(auth)
		if err != nil {
			return "", err
		}
		o.Auth = a
	}
	if _, _, err := imagestore.Normalize(spec.GetImage()); err != nil {
		return "", status.Errorf(codes.InvalidArgument, "invalid image name %q: %v", spec.GetImage(), err)
	}
	img, err := r.images.Pull(ctx, spec.GetImage(), o)
	if err != nil {
		var te *transport.Error
		if errors.As(err, &te) && te.StatusCode == http.StatusNotFound {
			return "", status.Errorf(codes.NotFound, "failed to pull and unpack image %q: %v", spec.GetImage(), err)
		}
		return "", toStatus(fmt.Errorf("failed to pull and unpack image %q: %w", spec.GetImage(), err))
	}
	return img.ID, nil
}

func authenticator(a *runtimeapi.AuthConfig) (authn.Authenticator, error) {
	cfg := authn.AuthConfig{Username: a.GetUsername(), Password: a.GetPassword(), IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken()}
	if a.GetAuth() != "" && cfg.Username == "" {
		b, err := base64.StdEncoding.DecodeString(a.GetAuth())
		user, pass, ok := strings.Cut(strings.TrimRight(string(b), "\x00"), ":")
		if err != nil || !ok {
			return nil, status.Error(codes.InvalidArgument, "the registry credential's auth field is not base64 of user:password")
		}
		cfg.Username, cfg.Password = user, pass
	}
	return authn.FromConfig(cfg), nil
}

// RemoveImage implements [kubelet.ImageService]. Files that containers use stay until those are gone.
func (r *Runtime) RemoveImage(_ context.Context, spec *runtimeapi.ImageSpec) error {
	if err := r.images.Remove(spec.GetImage()); err != nil {
		return toStatus(err)
	}
	needed := make(map[string]bool)
	r.mu.Lock()
	for _, c := range r.containers {
		needed[c.rec.Chain] = true
	}
	r.mu.Unlock()
	return toStatus(r.images.Collect(needed))
}

// ImageFsInfo implements [kubelet.ImageService].
func (r *Runtime) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	now := r.opts.Clock.Now().UnixNano()
	usage := func(dir string) (*runtimeapi.FilesystemUsage, error) {
		bytes, inodes, err := imagestore.TreeUsage(filepath.Join(r.opts.Root, dir))
		return &runtimeapi.FilesystemUsage{
			Timestamp: now, FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: filepath.Join(r.opts.Root, dir)},
			UsedBytes: &runtimeapi.UInt64Value{Value: bytes}, InodesUsed: &runtimeapi.UInt64Value{Value: inodes},
		}, err
	}
	images, err := usage("images")
	if err != nil {
		return nil, toStatus(err)
	}
	containers, err := usage("sandboxes")
	if err != nil {
		return nil, toStatus(err)
	}
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{images}, ContainerFilesystems: []*runtimeapi.FilesystemUsage{containers}}, nil
}
