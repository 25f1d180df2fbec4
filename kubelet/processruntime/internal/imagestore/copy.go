//go:build linux

package imagestore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// CopyTree makes a copy that may be written to, sharing blocks where the file system can.
func CopyTree(from, to string) error {
	own := os.Geteuid() == 0
	links := make(map[uint64]string)
	type dirMode struct {
		path string
		mode fs.FileMode
	}
	var dirs []dirMode
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := statOf(info)
		switch {
		case d.IsDir():
			if err := os.Mkdir(dst, info.Mode().Perm()|0o700); err != nil && !(rel == "." && errors.Is(err, os.ErrExist)) {
				return err
			}
			dirs = append(dirs, dirMode{dst, info.Mode()})
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, dst); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			if st.Nlink > 1 {
				// A link inside the image; those to other chains have their other names elsewhere.
				if first, ok := links[st.Ino]; ok {
					return os.Link(first, dst)
				}
				links[st.Ino] = dst
			}
			if err := copyFile(path, dst, info.Mode().Perm()); err != nil {
				return err
			}
		default:
			if err := unix.Mknod(dst, st.Mode, int(st.Rdev)); err != nil && !errors.Is(err, unix.EPERM) {
				return &os.PathError{Op: "mknod", Path: dst, Err: err}
			} else if err != nil {
				return nil
			}
		}
		if err := copyMeta(path, dst, st, own); err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			return os.Chmod(dst, info.Mode())
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = os.Chmod(dirs[i].path, dirs[i].mode)
	}
	return err
}

func copyFile(from, to string, perm fs.FileMode) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm|0o200)
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) != nil {
		_, err = dst.ReadFrom(src)
	}
	return errors.Join(err, dst.Close())
}

// copyMeta copies owner and extended attributes.
func copyMeta(from, to string, st *syscall.Stat_t, own bool) error {
	if own && st != nil {
		if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(from, buf)
	if err != nil || n == 0 {
		return nil
	}
	for _, attr := range splitNul(buf[:n]) {
		v := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(from, attr, v)
		if err != nil {
			continue
		}
		if err := unix.Lsetxattr(to, attr, v[:n], 0); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP) {
			return &os.PathError{Op: "setxattr " + attr, Path: to, Err: err}
		}
	}
	return nil
}

func splitNul(b []byte) []string {
	var out []string
	start := 0
	for i, c := range b {
		if c == 0 {
			out = append(out, string(b[start:i]))
			start = i + 1
		}
	}
	return out
}

// RemoveAll removes a tree in which the owner may have locked itself out of directories.
func RemoveAll(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
			if err != nil {
				// WalkDir could not read it; now it can be.
				return RemoveAll(path)
			}
		}
		return nil
	})
	return os.RemoveAll(dir)
}
