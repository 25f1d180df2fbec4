package kubectl

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const nobody = 65534

// TestUnprivileged runs the tests of kubectl's commands as a user without any right, on a network of its own: pods have loopback addresses
// and Services the user space proxy.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("is not root, so that all tests are without privilege")
	}
	for _, name := range []string{"kubectl", "allinone", "box"} {
		binary(t, name)
	}
	dir, err := os.MkdirTemp("", "keelson-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	// Where go test leaves the test's binary only root may look.
	self := filepath.Join(os.Getenv(binaries), "kubectl.test")
	if err := copyFile(self, "/proc/self/exe"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", "sh", "-c",
		`ip link set lo up && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$0" -test.v -test.run='^(TestKubectl|TestKill)$'`, self)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"TestKubectl", "TestKill"} {
		if err := contains(string(out), "--- PASS: "+name+" "); err != nil {
			t.Errorf("%v", err)
		}
	}
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
