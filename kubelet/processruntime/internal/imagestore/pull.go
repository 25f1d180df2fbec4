//go:build linux

package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// PullOptions say how to talk to a registry.
type PullOptions struct {
	Auth      authn.Authenticator // nil: anonymous
	Transport http.RoundTripper   // nil: the default
	// Insecure registries, by host and port, are spoken to without TLS. Those on this machine always are.
	Insecure []string
}

// Pull fetches an image of this machine's platform.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (*Image, error) {
	parsed, full, err := Normalize(ref)
	if err != nil {
		return nil, err
	}
	for _, host := range o.Insecure {
		if parsed.Context().RegistryStr() == host {
			if parsed, err = name.ParseReference(ref, name.WeakValidation, name.Insecure); err != nil {
				return nil, err
			}
		}
	}
	opts := []remote.Option{remote.WithContext(ctx), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})}
	if o.Auth != nil {
		opts = append(opts, remote.WithAuth(o.Auth))
	}
	if o.Transport != nil {
		opts = append(opts, remote.WithTransport(o.Transport))
	}
	desc, err := remote.Get(parsed, opts...)
	if err != nil {
		return nil, err
	}
	image, err := desc.Image()
	if err != nil {
		return nil, err
	}
	if d, ok := parsed.(name.Digest); ok && desc.MediaType.IsIndex() {
		// The name's digest is the index's: checked by the registry client, and not the image's own.
		img, err := s.Import(ctx, image, d.Context().Name()+":keelson-pull")
		if err != nil {
			return nil, err
		}
		return s.rename(img.ID, full)
	}
	return s.Import(ctx, image, ref)
}

// rename replaces the tag of a pull by index digest with that digest.
func (s *Store) rename(id, digest string) (*Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	img := s.images[id]
	if img == nil {
		return nil, errors.New("the image was removed while it was pulled")
	}
	var tags []string
	for _, t := range img.Tags {
		if !strings.HasSuffix(t, ":keelson-pull") {
			tags = append(tags, t)
		}
	}
	img.Tags = tags
	img.Digests = append(img.Digests, digest)
	return img.clone(), s.save()
}

// Load imports the images of a docker archive, an OCI layout's directory or such a layout in an archive, under the names they
// carry, and returns those.
func (s *Store) Load(ctx context.Context, path string) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return s.loadLayout(ctx, path)
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(path) })
	if err != nil {
		return s.loadLayoutArchive(ctx, path)
	}
	var names []string
	for _, m := range manifest {
		for _, t := range m.RepoTags {
			tag, err := name.NewTag(t, name.WeakValidation)
			if err != nil {
				return names, err
			}
			image, err := tarball.ImageFromPath(path, &tag)
			if err != nil {
				return names, err
			}
			if _, err := s.Import(ctx, image, t); err != nil {
				return names, err
			}
			names = append(names, t)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: no image in it has a name", path)
	}
	return names, nil
}

func (s *Store) loadLayoutArchive(ctx context.Context, path string) ([]string, error) {
	dir, err := os.MkdirTemp(filepath.Join(s.dir, "tmp"), "layout-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = RemoveAll(dir) }()
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	x, err := newExtractor(dir)
	if err != nil {
		return nil, err
	}
	defer x.close()
	x.own = false
	if err := x.apply(ctx, f); err != nil {
		return nil, fmt.Errorf("%s is neither a docker archive nor an OCI layout: %w", path, err)
	}
	return s.loadLayout(ctx, dir)
}

func (s *Store) loadLayout(ctx context.Context, dir string) ([]string, error) {
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	m, err := idx.IndexManifest()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range m.Manifests {
		ref := d.Annotations["io.containerd.image.name"]
		if ref == "" {
			ref = d.Annotations["org.opencontainers.image.ref.name"]
		}
		if ref == "" {
			continue
		}
		var image v1.Image
		if d.MediaType.IsIndex() {
			sub, err := idx.ImageIndex(d.Digest)
			if err != nil {
				return names, err
			}
			if image, err = platformImage(sub); err != nil {
				return names, err
			}
		} else if image, err = idx.Image(d.Digest); err != nil {
			return names, err
		}
		if _, err := s.Import(ctx, image, ref); err != nil {
			return names, err
		}
		names = append(names, ref)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: no image in it has a name", dir)
	}
	return names, nil
}

func platformImage(idx v1.ImageIndex) (v1.Image, error) {
	m, err := idx.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Manifests {
		if d.Platform == nil || d.Platform.OS == "linux" && d.Platform.Architecture == runtime.GOARCH {
			return idx.Image(d.Digest)
		}
	}
	return nil, fmt.Errorf("no image for linux/%s", runtime.GOARCH)
}
