package volumes

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// dataLink points to the directory with the current content.
const dataLink = "..data"

// writeAtomic makes dir show exactly files. The files are in a directory of their own that a link names; replacing the link
// replaces all of them at once, and what a reader sees at the top are links through it.
func writeAtomic(dir string, files map[string]file, now time.Time, group *int64) error {
	for name := range files {
		if err := validName(name); err != nil {
			return err
		}
	}
	current, _ := os.Readlink(filepath.Join(dir, dataLink))
	if current != "" && sameFiles(filepath.Join(dir, current), files) {
		return linkTop(dir, files)
	}
	fresh, err := os.MkdirTemp(dir, now.UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	fail := func(err error) error {
		_ = os.RemoveAll(fresh)
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return fail(err)
	}
	for name, f := range files {
		full := filepath.Join(fresh, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return fail(err)
		}
		if err := os.WriteFile(full, f.data, os.FileMode(f.mode).Perm()); err != nil {
			return fail(err)
		}
		// The umask took part of the mode.
		if err := os.Chmod(full, os.FileMode(f.mode).Perm()); err != nil {
			return fail(err)
		}
		if f.uid != nil {
			if err := chown(full, int(*f.uid), -1); err != nil {
				return fail(err)
			}
		}
	}
	if err := setOwnership(fresh, group, true); err != nil {
		return fail(err)
	}
	tmp := filepath.Join(dir, dataLink+"_tmp")
	_ = os.Remove(tmp)
	if err := os.Symlink(filepath.Base(fresh), tmp); err != nil {
		return fail(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return fail(err)
	}
	if err := linkTop(dir, files); err != nil {
		return err
	}
	// Earlier content, also what an interrupted write left.
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..2") && e.Name() != filepath.Base(fresh) {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func validName(name string) error {
	if name == "" || path.IsAbs(name) || len(name) > 4096 {
		return fmt.Errorf("invalid path: must be relative: %s", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." || part == "" {
			return fmt.Errorf("invalid path: must not contain '..': %s", name)
		}
		if len(part) > 255 {
			return fmt.Errorf("invalid path: filenames must be less than or equal to 255 characters: %s", name)
		}
	}
	if strings.HasPrefix(name, "..") {
		return fmt.Errorf("invalid path: must not start with '..': %s", name)
	}
	return nil
}

func sameFiles(dir string, files map[string]file) bool {
	count := 0
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		f, ok := files[filepath.ToSlash(rel)]
		if !ok {
			return os.ErrNotExist
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !bytes.Equal(data, f.data) {
			return os.ErrInvalid
		}
		count++
		return nil
	})
	return err == nil && count == len(files)
}

// linkTop makes the links a reader sees, and removes those of what is no more.
func linkTop(dir string, files map[string]file) error {
	want := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		want[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		if !want[e.Name()] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
		delete(want, e.Name())
	}
	for top := range want {
		if err := os.Symlink(filepath.Join(dataLink, top), filepath.Join(dir, top)); err != nil {
			return err
		}
	}
	return nil
}

// setOwnership gives a tree to a pod's fsGroup.
func setOwnership(dir string, group *int64, readOnly bool) error {
	if group == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Mode()&os.ModeSymlink != 0 {
			return nil
		}
		if err := chown(p, -1, int(*group)); err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o660
		if readOnly {
			mode = info.Mode().Perm() | 0o440
		}
		if e.IsDir() {
			mode |= 0o110 | os.ModeSetgid
		}
		return os.Chmod(p, mode)
	})
}

// chown changes a file's owner where the kubelet may. One that isn't root runs pods as its own user, who owns the file already.
func chown(p string, uid, gid int) error {
	err := os.Lchown(p, uid, gid)
	if os.IsPermission(err) && os.Geteuid() != 0 {
		return nil
	}
	return err
}
