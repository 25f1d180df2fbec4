//go:build linux

package processruntime_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keelson/keelson/kubelet/runtimetest"
)

// What another user could make different.
const unprivilegedChecks = "SandboxIdempotence|NothingLeft|ExitCodes|StartError|Mounts|ReadonlyMount|WritableRootfs|OwnPIDs|SharedPIDs|NoNewPrivs|LogFormat|LogTTY|ExecSync|ExecTTY|AttachStdinOnce|PortForward|Stats|Events|Restart"

// TestUnprivileged runs the suite again as a user without any privilege.
func TestUnprivileged(t *testing.T) {
	needRoot(t)
	dir := shortDir(t)
	binary := filepath.Join(dir, "workload")
	b, err := os.ReadFile(runtimetest.BuildWorkload(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, b, 0o755); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	if err := os.Chown(tmp, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	for _, level := range []string{"userns", "none"} {
		t.Run(level, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestRuntime$/^"+level+"$/^("+unprivilegedChecks+")$", "-test.v", "-test.timeout=120s")
			cmd.Dir = tmp
			cmd.Env = append(os.Environ(), binaryEnv+"="+binary, "TMPDIR="+tmp, "HOME="+tmp)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestRuntime/"+level+"/Restart") {
				t.Errorf("%v\n%s", err, out)
			}
			for _, line := range strings.Split(string(out), "\n") {
				if strings.Contains(line, "SKIP: TestRuntime/userns ") {
					t.Skip("user namespaces are not permitted to unprivileged users")
				}
			}
		})
	}
}
