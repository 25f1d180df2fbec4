//go:build linux

package imagestore

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// entry is one of an archive.
type entry struct {
	name, content, link string
	kind                byte
	mode                int64
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Size: int64(len(e.content)), Uid: os.Getuid(), Gid: os.Getgid()}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func layerOf(t testing.TB, entries ...entry) v1.Layer {
	t.Helper()
	b := archive(t, entries...)
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func openStore(t testing.TB) *Store {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// tree lists a directory: contents of files, targets of links, "/" for directories.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	m := make(map[string]string)
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		switch {
		case rel == ".":
		case info.IsDir():
			m[rel] = "/"
		case info.Mode()&os.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			m[rel] = "-> " + to
		default:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			m[rel] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestLayers(t *testing.T) {
	dir := func(name string) entry { return entry{name: name, kind: tar.TypeDir} }
	for _, tc := range []struct {
		name   string
		layers [][]entry
		want   map[string]string
	}{
		{"files and missing parents", [][]entry{{{name: "a/b/c", content: "1"}}}, map[string]string{"a": "/", "a/b": "/", "a/b/c": "1"}},
		{"replaced", [][]entry{{{name: "f", content: "old"}}, {{name: "f", content: "new"}}}, map[string]string{"f": "new"}},
		{"whiteout", [][]entry{{{name: "d/f", content: "1"}, {name: "d/g", content: "2"}}, {{name: "d/.wh.f"}}}, map[string]string{"d": "/", "d/g": "2"}},
		{"whiteout of a directory", [][]entry{{{name: "d/e/f", content: "1"}, {name: "x", content: "2"}}, {{name: ".wh.d"}}}, map[string]string{"x": "2"}},
		{"whiteout of nothing", [][]entry{{{name: "x", content: "2"}}, {{name: ".wh.y"}}}, map[string]string{"x": "2"}},
		{"opaque", [][]entry{{{name: "d/old", content: "1"}, {name: "d/sub/old", content: "1"}}, {{name: "d/new", content: "2"}, {name: "d/.wh..wh..opq"}, {name: "d/late", content: "3"}}}, map[string]string{"d": "/", "d/new": "2", "d/late": "3"}},
		{"directory becomes file", [][]entry{{{name: "x/y", content: "1"}}, {{name: "x", content: "2"}}}, map[string]string{"x": "2"}},
		{"file becomes directory", [][]entry{{{name: "x", content: "1"}}, {dir("x"), {name: "x/y", content: "2"}}}, map[string]string{"x": "/", "x/y": "2"}},
		{"hard link", [][]entry{{{name: "a", content: "1"}, {name: "b", kind: tar.TypeLink, link: "a"}}}, map[string]string{"a": "1", "b": "1"}},
		{"hard link to a lower layer", [][]entry{{{name: "a", content: "1"}}, {{name: "b", kind: tar.TypeLink, link: "/a"}}}, map[string]string{"a": "1", "b": "1"}},
		{"absolute link to a directory is followed inside", [][]entry{{dir("run"), {name: "var/run", kind: tar.TypeSymlink, link: "/run"}}, {{name: "var/run/pid", content: "1"}}}, map[string]string{"run": "/", "run/pid": "1", "var": "/", "var/run": "-> /run"}},
		{"link out of the root stays inside", [][]entry{{{name: "out", kind: tar.TypeSymlink, link: "../../../../escape"}, {name: "out/f", content: "1"}}}, map[string]string{"out": "-> ../../../../escape", "escape": "/", "escape/f": "1"}},
		{"names with dots stay inside", [][]entry{{{name: "../../x", content: "1"}, {name: "/abs", content: "2"}, {name: "a/../../../b", content: "3"}}}, map[string]string{"x": "1", "abs": "2", "b": "3"}},
		{"directory without permissions", [][]entry{{{name: "d", kind: tar.TypeDir, mode: 0o555}, {name: "d/f", content: "1"}}, {{name: "d/g", content: "2"}}}, map[string]string{"d": "/", "d/f": "1", "d/g": "2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t)
			var layers []v1.Layer
			for _, l := range tc.layers {
				layers = append(layers, layerOf(t, l...))
			}
			img, err := s.Import(context.Background(), imageOf(t, layers...), "localhost/x:1")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, tree(t, s.ChainDir(img.Chain))); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if _, err := os.Lstat(filepath.Join(filepath.Dir(s.dir), "escape")); err == nil {
				t.Error("something was written outside of the store")
			}
		})
	}
}

// TestChains: a chain that extends another shares its files and does not change them.
func TestChains(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	base := layerOf(t, entry{name: "keep", content: "same"}, entry{name: "f", content: "old"}, entry{name: "gone", content: "1"})
	one, err := s.Import(ctx, imageOf(t, base), "localhost/base:1")
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Import(ctx, imageOf(t, base, layerOf(t, entry{name: "f", content: "new", mode: 0o600}, entry{name: ".wh.gone"})), "localhost/top:1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"keep": "same", "f": "old", "gone": "1"}, tree(t, s.ChainDir(one.Chain))); diff != "" {
		t.Errorf("the base changed (-want +got):\n%s", diff)
	}
	a, errA := os.Stat(filepath.Join(s.ChainDir(one.Chain), "keep"))
	b, errB := os.Stat(filepath.Join(s.ChainDir(two.Chain), "keep"))
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(a, b) {
		t.Error("a file that both have is on disk twice")
	}
	// What no image and no container needs goes; what one needs stays.
	if err := errors.Join(s.Remove("localhost/base:1"), s.Remove("localhost/top:1")); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(map[string]bool{two.Chain: true}); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(s.dir, "chains"))
	if err != nil || len(left) != 1 || left[0].Name() != two.Chain {
		t.Errorf("chains left: %v, %v; want %s", left, err, two.Chain)
	}
}

func TestImportRefusesWrongContent(t *testing.T) {
	s := openStore(t)
	good, other := layerOf(t, entry{name: "a", content: "1"}), layerOf(t, entry{name: "a", content: "2"})
	_, err := s.Import(context.Background(), imageOf(t, lying{good, other}), "localhost/x:1")
	if err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("a layer with another's content: %v", err)
	}
	if left := s.List(); len(left) != 0 {
		t.Errorf("images: %v", left)
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, "chains")); len(left) != 0 {
		t.Errorf("chains: %v", left)
	}
}

// lying has the name of one layer and the content of another.
type lying struct {
	v1.Layer
	content v1.Layer
}

func (l lying) Uncompressed() (io.ReadCloser, error) { return l.content.Uncompressed() }

func FuzzApply(f *testing.F) {
	f.Add(archive(f, entry{name: "a/b", content: "1"}, entry{name: "l", kind: tar.TypeSymlink, link: "/a"}, entry{name: "l/c", content: "2"}, entry{name: "a/.wh..wh..opq"}))
	f.Add(archive(f, entry{name: "../x", content: "1"}, entry{name: "h", kind: tar.TypeLink, link: "../../x"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "root")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		x, err := newExtractor(dir)
		if err != nil {
			t.Fatal(err)
		}
		x.own = false
		_ = x.apply(context.Background(), bytes.NewReader(b))
		_ = x.finish()
		x.close()
		left, err := os.ReadDir(outer)
		if err != nil || len(left) != 1 {
			t.Fatalf("outside of the root: %v, %v", left, err)
		}
		if err := RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCopyTree(t *testing.T) {
	s := openStore(t)
	img, err := s.Import(context.Background(), imageOf(t, layerOf(t,
		entry{name: "d", kind: tar.TypeDir, mode: 0o555}, entry{name: "d/f", content: "1", mode: 0o4755}, entry{name: "d/h", kind: tar.TypeLink, link: "d/f"}, entry{name: "l", kind: tar.TypeSymlink, link: "/d/f"})), "localhost/x:1")
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "copy")
	if err := CopyTree(s.ChainDir(img.Chain), to); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree(t, s.ChainDir(img.Chain)), tree(t, to)); diff != "" {
		t.Errorf("copy (-want +got):\n%s", diff)
	}
	f, err1 := os.Stat(filepath.Join(to, "d/f"))
	h, err2 := os.Stat(filepath.Join(to, "d/h"))
	orig, err3 := os.Stat(filepath.Join(s.ChainDir(img.Chain), "d/f"))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(f, h) || os.SameFile(f, orig) || f.Mode() != orig.Mode() {
		t.Errorf("copy %v, its link %v, original %v", f, h, orig)
	}
	if err := RemoveAll(to); err != nil {
		t.Error(err)
	}
}
