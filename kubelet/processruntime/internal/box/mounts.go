//go:build linux

package box

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// root is the container's file system while it is being built. Paths are resolved inside it by the kernel, so
// a symbolic link of the image never leads outside.
type root struct {
	fd     int
	userNS bool
}

func openRoot(dir string, userNS bool) (*root, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &root{fd: fd, userNS: userNS}, nil
}

func (r *root) close() { _ = unix.Close(r.fd) }

func (r *root) open(path string, flags uint64) (int, error) {
	path = strings.TrimLeft(filepath.Clean("/"+path), "/")
	if path == "" {
		path = "."
	}
	fd, err := unix.Openat2(r.fd, path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return -1, &os.PathError{Op: "open in rootfs", Path: "/" + path, Err: err}
	}
	return fd, nil
}

// mkdirAll makes a directory and what leads there, and returns it opened.
func (r *root) mkdirAll(path string) (int, error) {
	if fd, err := r.open(path, unix.O_PATH|unix.O_DIRECTORY); err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	path = filepath.Clean("/" + path)
	parent, err := r.mkdirAll(filepath.Dir(path))
	if err != nil {
		return -1, err
	}
	err = unix.Mkdirat(parent, filepath.Base(path), 0o755)
	_ = unix.Close(parent)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, &os.PathError{Op: "mkdir in rootfs", Path: path, Err: err}
	}
	return r.open(path, unix.O_PATH|unix.O_DIRECTORY)
}

// target opens what a mount covers, making it if it isn't there.
func (r *root) target(path string, dir bool) (int, error) {
	if dir {
		return r.mkdirAll(path)
	}
	if fd, err := r.open(path, unix.O_PATH); err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, err := r.mkdirAll(filepath.Dir(filepath.Clean("/" + path)))
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(parent) }()
	fd, err := unix.Openat(parent, filepath.Base(path), unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return -1, &os.PathError{Op: "create in rootfs", Path: path, Err: err}
	}
	_ = unix.Close(fd)
	return r.open(path, unix.O_PATH)
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// mount does one entry.
func (r *root) mount(m Mount) error {
	dir := true
	if m.Type == "bind" {
		st, err := os.Stat(m.Source)
		if err != nil {
			return err
		}
		dir = st.IsDir()
	}
	fd, err := r.target(m.Target, dir)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if m.Type != "bind" {
		if err := unix.Mount(m.Source, fdPath(fd), m.Type, m.Flags, m.Data); err != nil {
			return &os.PathError{Op: "mount " + m.Type, Path: m.Target, Err: err}
		}
		return nil
	}
	if err := unix.Mount(m.Source, fdPath(fd), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "bind " + m.Source + " to", Path: m.Target, Err: err}
	}
	prop := uintptr(unix.MS_PRIVATE | unix.MS_REC)
	if m.Slave {
		prop = unix.MS_SLAVE | unix.MS_REC
	}
	top, err := r.open(m.Target, unix.O_PATH)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(top) }()
	if err := unix.Mount("", fdPath(top), "", prop, ""); err != nil {
		return &os.PathError{Op: "set propagation of", Path: m.Target, Err: err}
	}
	if m.ReadonlyRecursive {
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(top, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr); err != nil {
			return &os.PathError{Op: "make recursively read-only", Path: m.Target, Err: err}
		}
	}
	if m.Flags != 0 {
		return remount(top, m.Target, m.Flags)
	}
	return nil
}

// remount adds flags to a mount; those that a user namespace must not clear stay.
func remount(fd int, name string, flags uintptr) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: name, Err: err}
	}
	const keep = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC | unix.ST_NOATIME | unix.ST_NODIRATIME | unix.ST_RELATIME
	have := uintptr(st.Flags) & keep
	// ST_RELATIME has another value than MS_RELATIME.
	if have&unix.ST_RELATIME != 0 {
		have = have&^unix.ST_RELATIME | unix.MS_RELATIME
	}
	if err := unix.Mount("", fdPath(fd), "", unix.MS_BIND|unix.MS_REMOUNT|flags|have, ""); err != nil {
		return &os.PathError{Op: "remount", Path: name, Err: err}
	}
	return nil
}

func (r *root) mask(path string) error {
	fd, err := r.open(path, unix.O_PATH)
	if err != nil {
		return nil // nothing to hide
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = unix.Mount("tmpfs", fdPath(fd), "tmpfs", unix.MS_RDONLY, "size=0k")
	} else {
		err = unix.Mount("/dev/null", fdPath(fd), "", unix.MS_BIND, "")
	}
	if err != nil {
		return &os.PathError{Op: "mask", Path: path, Err: err}
	}
	return nil
}

func (r *root) readonly(path string) error {
	fd, err := r.open(path, unix.O_PATH)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Mount(fdPath(fd), fdPath(fd), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "bind", Path: path, Err: err}
	}
	top, err := r.open(path, unix.O_PATH)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(top) }()
	return remount(top, path, unix.MS_RDONLY)
}

// devices fills /dev.
func (r *root) devices(spec *Spec, ptsData string) error {
	if spec.HostDev {
		if err := r.mount(Mount{Type: "bind", Source: "/dev", Target: "/dev", Slave: true}); err != nil {
			return err
		}
	} else {
		if err := r.mount(Mount{Type: "tmpfs", Source: "tmpfs", Target: "/dev", Flags: unix.MS_NOSUID | unix.MS_STRICTATIME, Data: "mode=755,size=65536k"}); err != nil {
			return err
		}
		for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
			if err := r.device(Device{"/dev/" + name, "/dev/" + name}); err != nil {
				return err
			}
		}
		dev, err := r.open("/dev", unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(dev) }()
		for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"} {
			if err := unix.Symlinkat(to, dev, name); err != nil {
				return &os.PathError{Op: "symlink", Path: "/dev/" + name, Err: err}
			}
		}
	}
	if err := r.mount(Mount{Type: "devpts", Source: "devpts", Target: "/dev/pts", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: ptsData}); err != nil {
		return err
	}
	for _, d := range spec.Devices {
		if err := r.device(d); err != nil {
			return err
		}
	}
	return nil
}

// device makes a node like the node's own; in a user namespace, where none can be made, it binds that.
func (r *root) device(d Device) error {
	var st unix.Stat_t
	if err := unix.Stat(d.Source, &st); err != nil {
		return &os.PathError{Op: "stat device", Path: d.Source, Err: err}
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return fmt.Errorf("%s is not a device", d.Source)
	}
	if !r.userNS {
		parent, err := r.mkdirAll(filepath.Dir(d.Target))
		if err != nil {
			return err
		}
		err = unix.Mknodat(parent, filepath.Base(d.Target), st.Mode, int(st.Rdev))
		if err == nil {
			err = unix.Fchmodat(parent, filepath.Base(d.Target), st.Mode&0o7777, 0)
			if err == nil {
				err = unix.Fchownat(parent, filepath.Base(d.Target), int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
			}
		}
		_ = unix.Close(parent)
		if err == nil || errors.Is(err, unix.EEXIST) {
			return nil
		}
		if !errors.Is(err, unix.EPERM) {
			return &os.PathError{Op: "make device", Path: d.Target, Err: err}
		}
	}
	return r.mount(Mount{Type: "bind", Source: d.Source, Target: d.Target})
}
