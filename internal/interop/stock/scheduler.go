package stock

import (
	"path/filepath"
	"strconv"
	"testing"

	"k8s.io/client-go/rest"
)

// SchedulerOptions of Scheduler.
type SchedulerOptions struct {
	// Config is that of the scheduler's user, on whatever API server.
	Config *rest.Config
	// Args come behind the arguments that it has otherwise, so that they win.
	Args []string
}

// Scheduler starts a kube-scheduler that lives until the test ends: without leader election,
// with the default profile. Its URL, of which the certificate is signed by nobody, serves /metrics to those whom
// the API server lets.
func Scheduler(t testing.TB, opts SchedulerOptions) *Process {
	t.Helper()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	WriteKubeconfig(t, kubeconfig, opts.Config)
	port := strconv.Itoa(FreePort(t))
	url := "https://127.0.0.1:" + port
	args := []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--authentication-tolerate-lookup-failure=true", "--bind-address=127.0.0.1", "--secure-port=" + port, "--cert-dir=" + dir,
		"--leader-elect=false", "--kube-api-qps=10000", "--kube-api-burst=10000",
	}
	return start(t, KubeScheduler, dir, append(args, opts.Args...), url, answers(nil, url+"/readyz"))
}
