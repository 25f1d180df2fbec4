package volumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

const nonBlock = unix.O_NONBLOCK

func isMountPoint(dir string) (bool, error) { return mountinfo.Mounted(dir) }

// mountTmpfs mounts a file system in memory, of so many bytes or, with 0, as large as the kernel likes.
func mountTmpfs(dir string, size int64) error {
	options := ""
	if size > 0 {
		options = fmt.Sprintf("size=%d", size)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: dir, Err: err}
	}
	return nil
}

// pin bind-mounts an open file or directory at target. It tells false if that isn't permitted.
func pin(f *os.File, target string) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return false, err
	}
	if mounted, err := mountinfo.Mounted(target); err == nil && mounted {
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return false, err
		}
	}
	if info.IsDir() {
		if err := os.MkdirAll(target, 0o750); err != nil {
			return false, err
		}
	} else {
		t, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o640)
		if err != nil {
			return false, err
		}
		_ = t.Close()
	}
	err = unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), target, "", unix.MS_BIND|unix.MS_REC, "")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		_ = os.Remove(target)
		return false, nil
	}
	return err == nil, err
}

// unmountAll unmounts everything below a directory, the deepest first.
func unmountAll(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(real))
	if err != nil {
		return err
	}
	sort.Slice(list, func(i, j int) bool { return len(list[i].Mountpoint) > len(list[j].Mountpoint) })
	for _, m := range list {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return &os.PathError{Op: "unmount", Path: m.Mountpoint, Err: err}
		}
	}
	// Removing the directory must not reach into a volume that is still mounted.
	if list, err = mountinfo.GetMounts(mountinfo.PrefixFilter(real)); err != nil {
		return err
	}
	if len(list) > 0 {
		return fmt.Errorf("%s is still mounted", list[0].Mountpoint)
	}
	return nil
}
