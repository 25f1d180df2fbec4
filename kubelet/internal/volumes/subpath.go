package volumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// SubPath resolves a path inside a volume, making a directory of it if there is nothing, and returns what to mount. Links are followed only
// as long as they stay in the volume. Where the machine permits, what was resolved is pinned by a bind mount, so that
// a container can't exchange it for a link before it is mounted; CleanUp undoes it.
func (m *Manager) SubPath(pod *corev1.Pod, volume Volume, name, sub, container string, index int) (string, error) {
	if filepath.IsAbs(sub) || sub == "" {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q", name, container)
	}
	for part := range strings.SplitSeq(filepath.ToSlash(sub), "/") {
		if part == ".." {
			return "", fmt.Errorf("subPath %q of volumeMount %q must not contain \"..\"", sub, name)
		}
	}
	defer m.lock(pod.UID)()
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("failed to create subPath directory for volumeMount %q of container %q: %w", name, container, err)
	}
	root, err := os.OpenRoot(volume.Path)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = root.Close() }()
	sub = filepath.Clean(sub)
	if _, err := root.Stat(sub); errors.Is(err, os.ErrNotExist) {
		info, err := root.Stat(".")
		if err != nil {
			return fail(err)
		}
		if err := root.MkdirAll(sub, info.Mode().Perm()); err != nil {
			return fail(err)
		}
		if err := root.Chmod(sub, info.Mode().Perm()); err != nil {
			return fail(err)
		}
	} else if err != nil {
		return fail(err)
	}
	f, err := root.OpenFile(sub, os.O_RDONLY|nonBlock, 0)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = f.Close() }()
	target := filepath.Join(m.PodDir(pod.UID), "volume-subpaths", name, container, strconv.Itoa(index))
	pinned, err := pin(f, target)
	if err != nil {
		return fail(err)
	}
	if pinned {
		return target, nil
	}
	real, err := filepath.EvalSymlinks(filepath.Join(volume.Path, sub))
	if err != nil {
		return fail(err)
	}
	base, err := filepath.EvalSymlinks(volume.Path)
	if err != nil {
		return fail(err)
	}
	if real != base && !strings.HasPrefix(real, base+string(filepath.Separator)) {
		return fail(fmt.Errorf("subpath %q is not within the volume", sub))
	}
	return real, nil
}
