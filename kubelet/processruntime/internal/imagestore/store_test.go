//go:build linux

package imagestore

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestNormalize(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx":                                 "docker.io/library/nginx:latest",
		"nginx:1":                               "docker.io/library/nginx:1",
		"library/nginx":                         "docker.io/library/nginx:latest",
		"docker.io/user/app:v2":                 "docker.io/user/app:v2",
		"localhost:5000/a/b":                    "localhost:5000/a/b:latest",
		"registry.k8s.io/pause:3.9":             "registry.k8s.io/pause:3.9",
		"app@sha256:" + strings.Repeat("a", 64): "docker.io/library/app@sha256:" + strings.Repeat("a", 64),
	} {
		if _, got, err := Normalize(ref); err != nil || got != want {
			t.Errorf("Normalize(%q) = %q, %v; want %q", ref, got, err, want)
		}
	}
	if _, _, err := Normalize("UPPER/Case"); err == nil {
		t.Error("a bad name is accepted")
	}
}

func TestNames(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	one, two := imageOf(t, layerOf(t, entry{name: "a", content: "1"})), imageOf(t, layerOf(t, entry{name: "a", content: "2"}))
	first, err := s.Import(ctx, one, "app:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(ctx, one, "example.com/other:2"); err != nil {
		t.Fatal(err)
	}
	digest, err := one.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"app:1", "docker.io/library/app:1", "example.com/other:2", first.ID, strings.TrimPrefix(first.ID, "sha256:"), "app@" + digest.String()} {
		if got := s.Get(ref); got == nil || got.ID != first.ID {
			t.Errorf("Get(%q) = %v, want %s", ref, got, first.ID)
		}
	}
	// The tag moves to another image.
	second, err := s.Import(ctx, two, "app:1")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Get("app:1"); got.ID != second.ID {
		t.Errorf("app:1 is %s, want the image imported last", got.ID)
	}
	// A store opened again has the same.
	again, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.List(), again.List()); diff != "" {
		t.Errorf("opened again (-before +after):\n%s", diff)
	}
	for range 2 {
		if err := again.Remove("app:1"); err != nil {
			t.Error(err)
		}
	}
	if again.Get(second.ID) != nil || again.Get(first.ID) == nil {
		t.Errorf("after Remove: %v", again.List())
	}
}

// TestTogether imports one image many times at once.
func TestTogether(t *testing.T) {
	s := openStore(t)
	img := imageOf(t, layerOf(t, entry{name: "a", content: "1"}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				got, err := s.Import(context.Background(), img, "app:1")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Config(got); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if list := s.List(); len(list) != 1 || len(list[0].Tags) != 1 {
		t.Errorf("%v", list)
	}
}

func TestPull(t *testing.T) {
	ctx := context.Background()
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	var open bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); !open && (user != "me" || pass != "secret") {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		reg.ServeHTTP(w, r)
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	auth := authn.FromConfig(authn.AuthConfig{Username: "me", Password: "secret"})
	image := imageOf(t, layerOf(t, entry{name: "a", content: "1"}), layerOf(t, entry{name: "b", content: "2"}))
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: imageOf(t, layerOf(t, entry{name: "wrong", content: "x"})), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
		mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}})
	plain, err := name.NewTag(host + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	multi, err := name.NewTag(host + "/multi:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(plain, image, remote.WithAuth(auth)); err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(multi, index, remote.WithAuth(auth)); err != nil {
		t.Fatal(err)
	}
	indexDigest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t)
	if _, err := s.Pull(ctx, host+"/app:1", PullOptions{}); err == nil {
		t.Error("a pull without credentials succeeded")
	}
	for _, ref := range []string{"/app:1", "/app@" + digest.String(), "/multi:1", "/multi@" + indexDigest.String()} {
		s := openStore(t)
		img, err := s.Pull(ctx, host+ref, PullOptions{Auth: auth})
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if diff := cmp.Diff(map[string]string{"a": "1", "b": "2"}, tree(t, s.ChainDir(img.Chain))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", ref, diff)
		}
		if got := s.Get(host + ref); got == nil || got.ID != img.ID {
			t.Errorf("%s is not found by the name it was pulled by: %v", ref, s.List())
		}
	}
	open = true
	if _, err := s.Pull(ctx, host+"/none:1", PullOptions{}); err == nil {
		t.Error("a pull of what is not there succeeded")
	}
}

func TestLoad(t *testing.T) {
	ctx := context.Background()
	image := imageOf(t, layerOf(t, entry{name: "a", content: "1"}))
	dir := t.TempDir()
	docker := filepath.Join(dir, "docker.tar")
	tag, err := name.NewTag("localhost/docker:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(docker, tag, image); err != nil {
		t.Fatal(err)
	}
	oci := filepath.Join(dir, "oci")
	p, err := layout.Write(oci, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "localhost/oci:1"})); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{docker: "localhost/docker:1", oci: "localhost/oci:1"} {
		s := openStore(t)
		names, err := s.Load(ctx, path)
		if err != nil || len(names) != 1 || names[0] != want || s.Get(want) == nil {
			t.Errorf("Load(%s) = %v, %v; want %s", filepath.Base(path), names, err, want)
		}
	}
}
