package image_test

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson/keelson/kubelet/processruntime/image"
)

func TestFromBinary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hello")
	if err := os.WriteFile(file, []byte("binary"), 0o700); err != nil {
		t.Fatal(err)
	}
	o := image.Options{Path: "/usr/bin/hello", Args: []string{"serve"}, Cmd: []string{"-v"}, Env: []string{"A=b"}, User: "65532", Files: map[string][]byte{"/etc/passwd": []byte("x")}, Links: []string{"/bin/sh"}, Architecture: "arm64"}
	img, err := image.FromBinary(file, o)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{"linux", "arm64", []string{"/usr/bin/hello", "serve"}, []string{"-v"}, []string{"A=b"}, "65532"}, []any{cfg.OS, cfg.Architecture, cfg.Config.Entrypoint, cfg.Config.Cmd, cfg.Config.Env, cfg.Config.User}); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	rc, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	got := make(map[string]string)
	for tr := tar.NewReader(rc); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = string(b) + h.Linkname
	}
	want := map[string]string{"tmp/": "", "usr/": "", "usr/bin/": "", "usr/bin/hello": "binary", "etc/": "", "etc/passwd": "x", "bin/": "", "bin/sh": "/usr/bin/hello"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
	again, err := image.FromBinary(file, o)
	if err != nil {
		t.Fatal(err)
	}
	a, errA := img.Digest()
	b, errB := again.Digest()
	if errA != nil || errB != nil || a != b {
		t.Errorf("made again it has digest %v, want %v (%v %v)", b, a, errA, errB)
	}
}

func TestFromBinaryRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]image.Options{file: {Path: "relative"}, dir: {}, filepath.Join(dir, "none"): {}} {
		if _, err := image.FromBinary(name, o); err == nil {
			t.Errorf("FromBinary(%s, %+v) succeeded", name, o)
		}
	}
	if _, err := image.FromBinary(file, image.Options{Links: []string{"x"}}); err == nil {
		t.Error("a relative link is accepted")
	}
}
