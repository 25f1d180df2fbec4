//go:build linux

package imagestore

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// chainIDs names each prefix of the layers by its content, as the OCI image specification does.
func chainIDs(layers []v1.Layer) ([]string, error) {
	ids := make([]string, 0, len(layers))
	prev := ""
	for _, l := range layers {
		diff, err := l.DiffID()
		if err != nil {
			return nil, err
		}
		id := diff.Hex
		if prev != "" {
			sum := sha256.Sum256([]byte("sha256:" + prev + " " + diff.String()))
			id = hex.EncodeToString(sum[:])
		}
		ids = append(ids, id)
		prev = id
	}
	return ids, nil
}

// unpack makes a chain of its parent and one layer, once, whoever asks.
func (s *Store) unpack(ctx context.Context, chain, parent string, layer v1.Layer) error {
	_, err, _ := s.unpacks.Do(chain, func() (any, error) {
		final := s.ChainDir(chain)
		if _, err := os.Stat(final); err == nil {
			return nil, nil
		}
		tmp, err := os.MkdirTemp(filepath.Join(s.dir, "tmp"), "unpack-")
		if err != nil {
			return nil, err
		}
		defer func() { _ = RemoveAll(tmp) }()
		dir := filepath.Join(tmp, "fs")
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		x, err := newExtractor(dir)
		if err != nil {
			return nil, err
		}
		defer x.close()
		if parent != "" {
			if err := x.linkTree(s.ChainDir(parent)); err != nil {
				return nil, err
			}
		}
		rc, err := layer.Uncompressed()
		if err != nil {
			return nil, err
		}
		defer rc.Close()
		diff, err := layer.DiffID()
		if err != nil {
			return nil, err
		}
		sum := sha256.New()
		stream := io.TeeReader(rc, sum)
		if err := x.apply(ctx, stream); err != nil {
			return nil, err
		}
		if _, err := io.Copy(io.Discard, stream); err != nil {
			return nil, err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != diff.Hex {
			return nil, fmt.Errorf("content has digest sha256:%s, the image says %s", got, diff)
		}
		if err := x.finish(); err != nil {
			return nil, err
		}
		return nil, os.Rename(dir, final)
	})
	return err
}

// extractor writes files below one directory. Symbolic links on the way to an entry are followed as if that directory were
// the root, and os.Root sees to it that nothing reaches outside.
type extractor struct {
	root *os.Root
	dir  string
	own  bool // may give files away
	// modes of directories, set at the end: some can't be written to.
	modes map[string]fs.FileMode
	times map[string]time.Time
	// fresh are the paths that this layer made, which its opaque markers leave.
	fresh map[string]bool
}

func newExtractor(dir string) (*extractor, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &extractor{root: r, dir: dir, own: os.Geteuid() == 0, modes: make(map[string]fs.FileMode), times: make(map[string]time.Time), fresh: make(map[string]bool)}, nil
}

func (x *extractor) close() { x.root.Close() }

// clean makes an archive's path relative to the root; ".." does not lead above it.
func clean(path string) string {
	p := strings.TrimPrefix(filepath.Clean("/"+path), "/")
	if p == "" {
		return "."
	}
	return p
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

func (x *extractor) apply(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := x.entry(h, tr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func (x *extractor) entry(h *tar.Header, r io.Reader) error {
	path := clean(h.Name)
	dir, base := filepath.Split(path)
	dir = x.resolve(dir)
	path = filepath.Join(dir, base)
	if base == opaque {
		return x.opaque(dir)
	}
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
		if hidden == "" || hidden == "." || hidden == ".." {
			return fmt.Errorf("whiteout of %q", hidden)
		}
		return x.remove(filepath.Join(dir, hidden))
	}
	if path == "." {
		if h.Typeflag == tar.TypeDir {
			x.modes["."], x.times["."] = h.FileInfo().Mode(), h.ModTime
		}
		return nil
	}
	if err := x.parents(dir); err != nil {
		return err
	}
	mode := h.FileInfo().Mode()
	if st, err := x.root.Lstat(path); err == nil && !(st.IsDir() && h.Typeflag == tar.TypeDir) {
		if err := x.remove(path); err != nil {
			return err
		}
	}
	x.fresh[path] = true
	switch h.Typeflag {
	case tar.TypeDir:
		if err := x.root.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := x.root.Chmod(path, mode.Perm()|0o700); err != nil {
			return err
		}
		x.modes[path], x.times[path] = mode, h.ModTime
		return errors.Join(x.owner(path, h), x.xattrs(path, h))
	case tar.TypeReg:
		f, err := x.root.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	case tar.TypeLink:
		// The attributes are the file's it links to.
		old := clean(h.Linkname)
		return x.root.Link(filepath.Join(x.resolve(filepath.Dir(old)), filepath.Base(old)), path)
	case tar.TypeSymlink:
		if err := x.root.Symlink(h.Linkname, path); err != nil {
			return err
		}
		return x.owner(path, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if err := x.node(path, h); err != nil {
			if errors.Is(err, unix.EPERM) && !x.own {
				return nil // without privilege there are no devices
			}
			return err
		}
	case tar.TypeXGlobalHeader:
		delete(x.fresh, path)
		return nil
	default:
		return fmt.Errorf("entries of type %q are not supported", h.Typeflag)
	}
	if err := x.owner(path, h); err != nil {
		return err
	}
	// After the owner: giving a file away clears its set-user-id bit.
	if err := x.root.Chmod(path, mode.Perm()|mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	return errors.Join(x.xattrs(path, h), x.root.Chtimes(path, h.ModTime, h.ModTime))
}

// resolve follows the links of a directory's path inside the root. What isn't there stays as it is named.
func (x *extractor) resolve(dir string) string {
	at, rest := ".", strings.Split(clean(dir), "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, part)
		to, err := x.root.Readlink(next)
		if err != nil || links > 255 {
			at = next
			continue
		}
		links++
		if filepath.IsAbs(to) {
			at = "."
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return at
}

// parents makes the directories above an entry that an archive left out, and replaces what isn't one.
func (x *extractor) parents(dir string) error {
	if dir == "." {
		return nil
	}
	if st, err := x.root.Lstat(dir); err == nil && st.IsDir() {
		return nil
	}
	if err := x.parents(filepath.Dir(dir)); err != nil {
		return err
	}
	if st, err := x.root.Lstat(dir); err == nil && !st.IsDir() {
		if err := x.remove(dir); err != nil {
			return err
		}
	}
	return x.root.Mkdir(dir, 0o755)
}

func (x *extractor) owner(path string, h *tar.Header) error {
	if !x.own {
		return nil
	}
	return x.root.Lchown(path, h.Uid, h.Gid)
}

// at opens the directory of a path and gives a name below it for calls that os.Root does not have.
func (x *extractor) at(path string, do func(fd int, base string) error) error {
	d, err := x.root.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return do(int(d.Fd()), filepath.Base(path))
}

func (x *extractor) node(path string, h *tar.Header) error {
	mode := uint32(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	default:
		mode |= unix.S_IFIFO
	}
	return x.at(path, func(fd int, base string) error {
		return unix.Mknodat(fd, base, mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	})
}

const paxXattr = "SCHILY.xattr."

// xattrs sets extended attributes, file capabilities among them, where the file system and privilege allow.
func (x *extractor) xattrs(path string, h *tar.Header) error {
	for k, v := range h.PAXRecords {
		attr, ok := strings.CutPrefix(k, paxXattr)
		if !ok || strings.HasPrefix(attr, "trusted.overlay.") || strings.HasPrefix(attr, "user.overlay.") {
			continue
		}
		err := x.at(path, func(fd int, base string) error {
			return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", fd, base), attr, []byte(v), 0)
		})
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("attribute %s: %w", attr, err)
		}
	}
	return nil
}

func (x *extractor) remove(path string) error {
	if path == "." {
		return errors.New("the root can't be removed")
	}
	for p := range x.modes {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(x.modes, p)
			delete(x.times, p)
		}
	}
	return x.root.RemoveAll(path)
}

// opaque hides what the layers below have in a directory.
func (x *extractor) opaque(dir string) error {
	d, err := x.root.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return err
	}
	for _, n := range names {
		path := filepath.Join(dir, n)
		if !x.fresh[path] {
			if err := x.remove(path); err != nil {
				return err
			}
		} else if st, err := x.root.Lstat(path); err == nil && st.IsDir() {
			if err := x.opaque(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// linkTree takes over another chain's files: directories anew, all else by hard link.
func (x *extractor) linkTree(from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return os.Link(path, filepath.Join(x.dir, rel))
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		to := filepath.Join(x.dir, rel)
		if rel != "." {
			if err := os.Mkdir(to, info.Mode().Perm()|0o700); err != nil {
				return err
			}
		}
		x.modes[rel], x.times[rel] = info.Mode(), info.ModTime()
		return copyMeta(path, to, statOf(info), x.own)
	})
}

// finish sets what directories get only when they are complete.
func (x *extractor) finish() error {
	for path, mode := range x.modes {
		// The owner, whom an unprivileged runtime is, must be able to read and to delete.
		perm := mode.Perm()
		if !x.own {
			perm |= 0o700
		}
		if err := x.root.Chmod(path, perm|mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
			return err
		}
	}
	for path, t := range x.times {
		if err := x.root.Chtimes(path, t, t); err != nil {
			return err
		}
	}
	return nil
}

func statOf(info fs.FileInfo) *syscall.Stat_t {
	st, _ := info.Sys().(*syscall.Stat_t)
	return st
}
