//go:build linux

package imagestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/singleflight"
)

// Image is one image of the store.
type Image struct {
	// ID is the digest of the configuration, "sha256:…".
	ID string
	// Tags and Digests are the names it goes by, normalized.
	Tags, Digests []string
	// Chain names the unpacked files.
	Chain string
	Size  int64
}

// Store is safe for concurrent use by one process.
type Store struct {
	dir     string
	unpacks singleflight.Group

	mu     sync.Mutex
	images map[string]*Image // by ID
	inUse  map[string]int    // imports going on, by chain
}

// Open loads the store in a directory, making it if need be, and clears away what an interrupted import left.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, images: make(map[string]*Image), inUse: make(map[string]int)}
	for _, d := range []string{"configs", "chains", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	left, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		if err := RemoveAll(filepath.Join(dir, "tmp", e.Name())); err != nil {
			return nil, err
		}
	}
	b, err := os.ReadFile(s.indexPath())
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	var list []*Image
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", s.indexPath(), err)
	}
	for _, img := range list {
		s.images[img.ID] = img
	}
	return s, nil
}

func (s *Store) indexPath() string { return filepath.Join(s.dir, "images.json") }

// save writes the index; the caller holds mu.
func (s *Store) save() error {
	list := make([]*Image, 0, len(s.images))
	for _, img := range s.images {
		list = append(list, img)
	}
	slices.SortFunc(list, func(a, b *Image) int { return strings.Compare(a.ID, b.ID) })
	b, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return err
	}
	return writeFile(s.indexPath(), b)
}

func writeFile(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Normalize completes a name as container runtimes do: docker.io/library/…:latest.
func Normalize(ref string) (name.Reference, string, error) {
	r, err := name.ParseReference(ref, name.WeakValidation)
	if err != nil {
		return nil, "", err
	}
	full := r.Name()
	if rest, ok := strings.CutPrefix(full, "index.docker.io/"); ok {
		full = "docker.io/" + rest
	}
	return r, full, nil
}

// Get finds an image by ID, unambiguous prefix of an ID, tag or digest; nil if there is none.
func (s *Store) Get(ref string) *Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	if img := s.find(ref); img != nil {
		return img.clone()
	}
	return nil
}

func (i *Image) clone() *Image {
	c := *i
	c.Tags, c.Digests = slices.Clone(i.Tags), slices.Clone(i.Digests)
	return &c
}

func (s *Store) find(ref string) *Image {
	id := ref
	if !strings.HasPrefix(id, "sha256:") {
		id = "sha256:" + id
	}
	if img := s.images[id]; img != nil {
		return img
	}
	_, full, err := Normalize(ref)
	if err != nil {
		return nil
	}
	for _, img := range s.images {
		if slices.Contains(img.Tags, full) || slices.Contains(img.Digests, full) {
			return img
		}
	}
	return nil
}

// List returns all images, ordered by ID.
func (s *Store) List() []*Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Image, 0, len(s.images))
	for _, img := range s.images {
		list = append(list, img.clone())
	}
	slices.SortFunc(list, func(a, b *Image) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Config reads an image's configuration.
func (s *Store) Config(img *Image) (*v1.ConfigFile, error) {
	f, err := os.Open(filepath.Join(s.dir, "configs", strings.TrimPrefix(img.ID, "sha256:")))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return v1.ParseConfigFile(f)
}

// ChainDir is where an image's files are. They must not be written to.
func (s *Store) ChainDir(chain string) string { return filepath.Join(s.dir, "chains", chain) }

// Import unpacks an image and gives it a name (a tag or a name with digest). A tag that named another image moves.
func (s *Store) Import(ctx context.Context, image v1.Image, ref string) (*Image, error) {
	parsed, full, err := Normalize(ref)
	if err != nil {
		return nil, err
	}
	configName, err := image.ConfigName()
	if err != nil {
		return nil, err
	}
	raw, err := image.RawConfigFile()
	if err != nil {
		return nil, err
	}
	digest, err := image.Digest()
	if err != nil {
		return nil, err
	}
	if d, ok := parsed.(name.Digest); ok && d.DigestStr() != digest.String() {
		return nil, fmt.Errorf("image %s has digest %s", ref, digest)
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	chains, err := chainIDs(layers)
	if err != nil {
		return nil, err
	}
	s.hold(chains, 1)
	defer s.hold(chains, -1)
	var size int64
	parent := ""
	for i, layer := range layers {
		if err := s.unpack(ctx, chains[i], parent, layer); err != nil {
			return nil, fmt.Errorf("unpacking layer %d of %s: %w", i, ref, err)
		}
		parent = chains[i]
	}
	if parent == "" {
		parent = "empty"
		if err := os.MkdirAll(s.ChainDir(parent), 0o755); err != nil {
			return nil, err
		}
	}
	if size, err = treeSize(s.ChainDir(parent)); err != nil {
		return nil, err
	}
	// The same image may be imported twice at once, and removed meanwhile.
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := writeFile(filepath.Join(s.dir, "configs", configName.Hex), raw); err != nil {
		return nil, err
	}
	img := s.images[configName.String()]
	if img == nil {
		img = &Image{ID: configName.String(), Chain: parent, Size: size}
		s.images[img.ID] = img
	}
	repo := full
	if _, ok := parsed.(name.Digest); ok {
		repo, _, _ = strings.Cut(full, "@")
	} else {
		repo = repo[:strings.LastIndexByte(repo, ':')]
		for _, other := range s.images {
			other.Tags = slices.DeleteFunc(other.Tags, func(t string) bool { return t == full })
		}
		img.Tags = append(img.Tags, full)
	}
	if d := repo + "@" + digest.String(); !slices.Contains(img.Digests, d) {
		img.Digests = append(img.Digests, d)
	}
	return img.clone(), s.save()
}

// Remove removes the image that ref names, with all its names, as CRI has it.
func (s *Store) Remove(ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	img := s.find(ref)
	if img == nil {
		return nil
	}
	delete(s.images, img.ID)
	if err := s.save(); err != nil {
		return err
	}
	return os.Remove(filepath.Join(s.dir, "configs", strings.TrimPrefix(img.ID, "sha256:")))
}

func (s *Store) hold(chains []string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range chains {
		if s.inUse[c] += n; s.inUse[c] == 0 {
			delete(s.inUse, c)
		}
	}
}

// Collect deletes the chains that neither an image nor the caller needs.
func (s *Store) Collect(needed map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "chains"))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := make(map[string]bool)
	for _, img := range s.images {
		keep[img.Chain] = true
	}
	var errs []error
	for _, e := range entries {
		if !keep[e.Name()] && !needed[e.Name()] && s.inUse[e.Name()] == 0 {
			errs = append(errs, RemoveAll(s.ChainDir(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Usage counts bytes and inodes of the store.
func (s *Store) Usage() (bytes, inodes uint64, err error) { return TreeUsage(s.dir) }

// TreeUsage counts what a directory tree takes, files with several links once.
func TreeUsage(dir string) (bytes, inodes uint64, err error) {
	seen := make(map[uint64]bool)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
				return nil
			}
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		st := statOf(info)
		if st == nil || st.Nlink > 1 && !d.IsDir() && seen[st.Ino] {
			return nil
		}
		seen[st.Ino] = true
		bytes += uint64(st.Blocks) * 512
		inodes++
		return nil
	})
	return bytes, inodes, err
}

func treeSize(dir string) (int64, error) {
	var size int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			size += info.Size()
		}
		return nil
	})
	return size, err
}
