package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Options for FromBinary. The zero value makes an image that runs the binary without arguments as root.
type Options struct {
	// Path of the binary in the image; the default is its base name in the root directory.
	Path string
	// Args follow the binary in the image's entrypoint.
	Args []string
	// Cmd are default arguments, which a container's args replace.
	Cmd []string
	// Env as "NAME=value".
	Env []string
	// WorkingDir and User as in any image.
	WorkingDir, User string
	// Files are added by absolute path, readable by everyone.
	Files map[string][]byte
	// Links are symbolic links to the binary.
	Links  []string
	Labels map[string]string
	// StopSignal by name; empty is SIGTERM.
	StopSignal string
	// Architecture in Go's words; the default is this program's.
	Architecture string
}

// FromBinary makes an image with one layer: the binary and, if it is dynamically linked, the libraries of this machine that it needs. The file is read each time the layer is, so it must neither change nor go
// while the image is in use; one that was imported needs it no more. The same input gives the same digest.
func FromBinary(file string, o Options) (v1.Image, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("image: %s is not a regular file", file)
	}
	if o.Path == "" {
		o.Path = "/" + path.Base(strings.ReplaceAll(file, "\\", "/"))
	}
	if o.Architecture == "" {
		o.Architecture = runtime.GOARCH
	}
	if !path.IsAbs(o.Path) {
		return nil, fmt.Errorf("image: Options.Path is %q, want an absolute path", o.Path)
	}
	for _, name := range append(slices.Collect(maps.Keys(o.Files)), o.Links...) {
		if !path.IsAbs(name) {
			return nil, fmt.Errorf("image: %q in Options.Files or Links, want an absolute path", name)
		}
	}
	libs, err := libraries(file)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	layer := &layer{open: func() (io.ReadCloser, error) { return stream(file, libs, o), nil }}
	if err := layer.measure(); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	img, err := mutate.AppendLayers(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1), layer)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", o.Architecture
	cfg.Config = v1.Config{
		Entrypoint: append([]string{o.Path}, o.Args...), Cmd: o.Cmd, Env: o.Env,
		WorkingDir: o.WorkingDir, User: o.User, Labels: o.Labels, StopSignal: o.StopSignal,
	}
	return mutate.ConfigFile(img, cfg)
}

// layer is stored uncompressed: it goes to a local store, and compressing it would take longer than all the rest.
type layer struct {
	open   func() (io.ReadCloser, error)
	digest v1.Hash
	size   int64
}

func (l *layer) measure() error {
	rc, err := l.open()
	if err != nil {
		return err
	}
	defer rc.Close()
	sum := sha256.New()
	if l.size, err = io.Copy(sum, rc); err != nil {
		return err
	}
	l.digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	return nil
}

func (l *layer) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.digest, nil }
func (l *layer) Compressed() (io.ReadCloser, error)   { return l.open() }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return l.open() }
func (l *layer) Size() (int64, error)                 { return l.size, nil }
func (l *layer) UncompressedSize() (int64, error)     { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }

// stream writes the archive while it is read.
func stream(file string, libs map[string][]byte, o Options) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w, file, libs, o)) }()
	return r
}

func write(w io.Writer, file string, libs map[string][]byte, o Options) error {
	tw := tar.NewWriter(w)
	made := map[string]bool{"": true, ".": true}
	epoch := time.Unix(0, 0)
	var dirs func(dir string) error
	dirs = func(dir string) error {
		if made[dir] {
			return nil
		}
		made[dir] = true
		if parent := path.Dir(dir); parent != dir {
			if err := dirs(parent); err != nil {
				return err
			}
		}
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: epoch})
	}
	put := func(name string, mode, size int64, from io.Reader) error {
		rel := strings.TrimPrefix(path.Clean(name), "/")
		if err := dirs(path.Dir(rel)); err != nil {
			return err
		}
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: rel, Mode: mode, Size: size, ModTime: epoch}); err != nil {
			return err
		}
		_, err := io.Copy(tw, from)
		return err
	}
	tmp := tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777, ModTime: epoch}
	made["tmp"] = true
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := errors.Join(tw.WriteHeader(&tmp), put(o.Path, 0o755, st.Size(), f)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(libs)) {
		if err := put(name, 0o755, int64(len(libs[name])), bytes.NewReader(libs[name])); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Files)) {
		if err := put(name, 0o644, int64(len(o.Files[name])), strings.NewReader(string(o.Files[name]))); err != nil {
			return err
		}
	}
	for _, name := range o.Links {
		rel := strings.TrimPrefix(path.Clean(name), "/")
		if err := dirs(path.Dir(rel)); err != nil {
			return err
		}
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: rel, Linkname: path.Clean(o.Path), Mode: 0o777, ModTime: epoch}); err != nil {
			return err
		}
	}
	return tw.Close()
}
