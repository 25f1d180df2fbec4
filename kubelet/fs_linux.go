package kubelet

import "golang.org/x/sys/unix"

const hostOS = "linux"

// fsUsage is how many bytes of a file system are used and how many there are.
func fsUsage(path string) (used, total uint64) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0
	}
	size := uint64(st.Bsize)
	return (st.Blocks - st.Bavail) * size, st.Blocks * size
}
