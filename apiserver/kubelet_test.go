package apiserver_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/keelson/keelson/apiserver"
)

// kubelet is a node's streaming server without containers: commands echo, logs are canned.
type kubelet struct {
	t *testing.T

	mu    sync.Mutex
	users map[string]bool
	log   string // query of the last request for logs
}

var execProtocols = []string{"v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"}

func (k *kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	k.mu.Lock()
	k.users[r.TLS.PeerCertificates[0].Subject.CommonName] = true
	k.mu.Unlock()
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch parts[0] {
	case "containerLogs":
		k.mu.Lock()
		k.log = r.URL.Query().Encode()
		k.mu.Unlock()
		if r.FormValue("previous") == "true" {
			http.Error(w, `previous terminated container "c" in pod "p" not found`, http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "log of %s\n", strings.Join(parts[1:], "/"))
		if r.FormValue("follow") == "true" {
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	case "exec", "attach":
		o, err := remotecommand.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		remotecommand.ServeExec(w, r, k, parts[2], "", parts[3], r.URL.Query()["command"], o, time.Minute, 10*time.Second, execProtocols)
	case "portForward":
		o, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, k, parts[2], "", o, time.Minute, 10*time.Second, []string{"portforward.k8s.io"})
	case "healthz":
		fmt.Fprint(w, "kubelet ok")
	default:
		http.NotFound(w, r)
	}
}

// ExecInContainer runs the "commands" cat, size, fail and args.
func (k *kubelet) ExecInContainer(_ context.Context, _, _, container string, cmd []string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	switch {
	case len(cmd) == 0, cmd[0] == "cat":
		_, err := io.Copy(out, in)
		return err
	case cmd[0] == "size":
		s := <-resize
		fmt.Fprintf(out, "%dx%d", s.Width, s.Height)
		return nil
	case cmd[0] == "fail":
		fmt.Fprint(errs, "failing")
		return utilexec.CodeExitError{Code: 3, Err: fmt.Errorf("exit 3")}
	}
	fmt.Fprintf(out, "%s:%s:%v", container, strings.Join(cmd, ","), tty)
	return nil
}

// PortForward answers each line with the port and the line.
func (k *kubelet) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	buf := make([]byte, 1024)
	for {
		n, err := stream.Read(buf)
		if n > 0 {
			fmt.Fprintf(stream, "%d:%s", port, buf[:n])
		}
		if err != nil {
			return nil
		}
	}
}

// cluster is a server with a node, whose kubelet is fake, and the pod p with container c on it.
func cluster(t *testing.T) (*apiserver.Server, *kubernetes.Clientset, *rest.Config, *kubelet) {
	t.Helper()
	o := listening()
	o.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("127.96.0.0/16")}
	o.DisableAdmission = []string{"ServiceAccount"}
	s := start(t, o)
	k := &kubelet{t: t, users: map[string]bool{}}
	hs := httptest.NewUnstartedServer(k)
	hs.TLS = &tls.Config{
		GetCertificate: s.CA().ServingTLS("n1", "127.0.0.1"), ClientCAs: s.CA().Pool(), ClientAuth: tls.VerifyClientCertIfGiven, NextProtos: []string{"http/1.1"},
	}
	hs.StartTLS()
	t.Cleanup(hs.Close)
	_, port, err := net.SplitHostPort(hs.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	cs, cfg := overTLS(t, s, apiserver.Admin)
	ctx := t.Context()
	node, err := cs.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "nowhere.invalid"}, {Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(n)
	if _, err := cs.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, containers := range map[string][]string{"p": {"c"}, "two": {"a", "b"}, "pending": {"c"}} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: corev1.PodSpec{NodeName: "n1"}}
		if name == "pending" {
			pod.Spec.NodeName = ""
		}
		for _, c := range containers {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: c, Image: "i"})
		}
		if _, err := cs.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return s, cs, cfg, k
}
