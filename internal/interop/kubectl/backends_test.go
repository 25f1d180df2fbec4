package kubectl

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/keelson/keelson/internal/interop/stock"
)

// lack skips for want of something, unless it must be there.
func lack(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") != "" {
		t.Fatalf("privileged tests are required: "+format, args...)
	}
	t.Skipf(format, args...)
}

// TestContainerd runs allinone on Debian's containerd, with Debian's CNI plugins.
func TestContainerd(t *testing.T) {
	socket := containerd(t)
	c := start(t, "-runtime", "cri="+socket)
	c.endToEnd(t)
	c.k(t, "get node node-1 -o jsonpath={.status.nodeInfo.containerRuntimeVersion}", "containerd://")
}

// TestEtcd runs allinone on an etcd, the real one and the one that storectl serves.
func TestEtcd(t *testing.T) {
	t.Run("etcd", func(t *testing.T) {
		c := start(t, "-store", "etcd="+stock.StartEtcd(t, stock.EtcdOptions{NoFsync: true}).URL)
		c.endToEnd(t)
	})
	t.Run("storectl serve", func(t *testing.T) {
		cmd := exec.Command(binary(t, "storectl"), "serve", "-store", "bolt="+filepath.Join(t.TempDir(), "served.db"), "-listen", "127.0.0.1:0")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				t.Errorf("storectl: %v", err)
			}
		})
		lines := bufio.NewScanner(out)
		if !lines.Scan() {
			t.Fatal("storectl serves nothing")
		}
		c := start(t, "-store", "etcd="+strings.TrimPrefix(lines.Text(), "serving "))
		c.endToEnd(t)
	})
}

// endToEnd has a pod run and answer through its Service, looks into it, and starts allinone again, which must find what it had.
func (c *cluster) endToEnd(t *testing.T) {
	t.Helper()
	env := ""
	if os.Geteuid() != 0 {
		env = ", env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]"
	}
	c.apply(t, "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 8081, targetPort: 8080}]}\n")
	c.pod(t, "web", ready, "command: [httpd], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}"+env)
	look := func(round string) {
		t.Helper()
		url := "http://" + c.k(t, "get svc web -o jsonpath={.spec.clusterIP}") + ":8081/" + round
		eventually(t, func() error {
			resp, err := (&http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Get(url)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			return contains(string(b), "web /"+round)
		})
		c.k(t, "exec web -- echo in "+round, "in "+round)
		c.in(t, "typed", "exec -i web -- cat", "typed")
		c.k(t, "logs web", "GET /"+round)
		s := c.terminal(t, "true", "exec", "-it", "web", "--", "size")
		s.resizes(t)
		if err := s.end(); err != nil {
			t.Errorf("exec -it: %v\n%s", err, s.shown())
		}
	}
	look("first")
	id := "get pod web -o jsonpath={.status.containerStatuses[0].containerID},{.status.containerStatuses[0].restartCount}"
	was := c.k(t, id)
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("allinone: %v\n%s", err, c.log)
	}
	c.run()
	c.k(t, "wait pod/web --for="+ready+" --timeout=60s", "met")
	if now := c.k(t, id); now != was {
		t.Errorf("the container is %s after a restart, was %s", now, was)
	}
	look("second")
	c.k(t, "logs web", "GET /first")
	c.k(t, "delete pod web --timeout=60s", "deleted")
}

// containerd starts a containerd of its own, with nothing outside one directory, and returns its socket.
func containerd(t *testing.T) string {
	t.Helper()
	const plugins = "/usr/lib/cni"
	if os.Geteuid() != 0 {
		lack(t, "containerd needs root")
	}
	for _, program := range []string{"containerd", "runc", "ctr", filepath.Join(plugins, "bridge")} {
		if _, err := exec.LookPath(program); err != nil {
			lack(t, "needs Debian's packages containerd, runc and containernetworking-plugins: %v", err)
		}
	}
	dir, err := os.MkdirTemp("", "kcri") // short: sockets are below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	write := func(file, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Services are reached by way of the machine's routes, of which a new network namespace has none.
	ip(t, "link add uplink0 type bridge")
	ip(t, "addr add 192.0.2.1/24 dev uplink0")
	ip(t, "link set uplink0 up")
	ip(t, "route add default via 192.0.2.2")
	t.Cleanup(func() { ip(t, "link del uplink0"); ip(t, "link del cri0") })
	socket := filepath.Join(dir, "c.sock")
	const pause = "localhost/pause:1"
	write("config.toml", fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "%[1]s/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[2]q
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[3]q
    conf_dir = "%[1]s/cni"
`, dir, pause, plugins))
	write("cni/10-pods.conflist", fmt.Sprintf(`{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cri0", "isGateway": true, "ipam": {"type": "host-local", "dataDir": "%s/ipam", "subnet": "10.244.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}`, dir))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("containerd", "--config", filepath.Join(dir, "config.toml"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log.Close()
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("containerd's log ends with:\n%s", b[max(0, len(b)-4000):])
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		killed := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		killed.Stop()
	})
	tag, err := name.NewTag(pause)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pause.tar")
	if err := tarball.WriteToFile(file, tag, boxImage(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		out, err := exec.Command("ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", file).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return socket
}
