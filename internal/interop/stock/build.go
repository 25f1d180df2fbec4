package stock

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Component is the package of a command that can be built.
type Component string

// The components.
const (
	KubeAPIServer Component = "k8s.io/kubernetes/cmd/kube-apiserver"
	KubeScheduler Component = "k8s.io/kubernetes/cmd/kube-scheduler"
	EtcdServer    Component = "go.etcd.io/etcd/server/v3"
	Etcdctl       Component = "go.etcd.io/etcd/etcdctl/v3"
	Etcdutl       Component = "go.etcd.io/etcd/etcdutl/v3"
)

// Components are all that can be built.
func Components() []Component {
	return []Component{KubeAPIServer, KubeScheduler, EtcdServer, Etcdctl, Etcdutl}
}

// KubernetesVersion is what the components of Kubernetes say that they are; they are of the
// module version of that name.
const KubernetesVersion = "v1.37.2"

// unusedFor is how long a binary that nobody uses is kept.
const unusedFor = 7 * 24 * time.Hour

// flags are the same for all, so that they share what they compile with each other and with the tests.
var flags = []string{"-buildvcs=false", "-ldflags=-s -w -X k8s.io/component-base/version.gitVersion=" + KubernetesVersion}

// Binary returns the path of a component's executable, which it builds if need be.
func Binary(t testing.TB, c Component) string {
	t.Helper()
	file, err := binary(t.Context(), c)
	if err != nil {
		t.Fatalf("stock: %v", err)
	}
	return file
}

func binary(ctx context.Context, c Component) (string, error) {
	dir, err := moduleDir(ctx)
	if err != nil {
		return "", err
	}
	key, err := cacheKey(dir)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "keelson-interop")
	mine := filepath.Join(cache, key)
	name := path.Base(strings.TrimSuffix(string(c), "/v3"))
	if c == EtcdServer {
		name = "etcd"
	}
	file := filepath.Join(mine, name)
	if err := os.MkdirAll(mine, 0o755); err != nil {
		return "", err
	}
	// Tests of several packages may want the same binary at the same time.
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	now := time.Now()
	_ = os.Chtimes(mine, now, now)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	forget(cache, now)
	part := file + ".part"
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", part}, flags...), string(c))...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", c, err, out)
	}
	return file, os.Rename(part, file)
}

// moduleDir returns the directory of this module, of which the test runs in some package.
func moduleDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// cacheKey names everything that a binary depends on.
func cacheKey(dir string) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		sum.Write(b)
	}
	fmt.Fprintln(sum, runtime.Version(), runtime.GOOS, runtime.GOARCH, flags)
	return fmt.Sprintf("%x", sum.Sum(nil)[:8]), nil
}

// forget removes the binaries of other versions that have not been used for long.
func forget(cache string, now time.Time) {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.IsDir() && now.Sub(info.ModTime()) > unusedFor {
			_ = os.RemoveAll(filepath.Join(cache, e.Name()))
		}
	}
}
