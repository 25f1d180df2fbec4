package kubelet_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/fakeruntime"
)

// authority issues client certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

func (a *authority) config(t *testing.T, host, name string, groups ...string) *rest.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name, Organization: groups}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &rest.Config{Host: "https://" + host, TLSClientConfig: rest.TLSClientConfig{
		Insecure: true,
		CertData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), KeyData: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}}
}

func get(t *testing.T, c *rest.Config, path string) (int, string) {
	t.Helper()
	config, err := rest.TLSConfigFor(c)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}).Get(c.Host + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 20 seconds: %s", what)
}

// serving runs a kubelet with its server in real time.
func serving(t *testing.T, simulated bool, pods ...*corev1.Pod) (*kubelet.Kubelet, *authority, *harness) {
	t.Helper()
	cluster := controllertest.NewCluster()
	cluster.GracefulPods = true
	c := cluster.Client()
	ca, err := controllertest.NewCache(c)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := fakeruntime.New(fakeruntime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	auth := newAuthority(t)
	k, err := kubelet.New(c, ca, rt, rt, kubelet.Options{
		NodeName: "n1", Simulated: simulated, RootDir: t.TempDir(), ClientCA: auth.pool, ClusterDNS: []string{"10.96.0.10"},
		Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if a.GetUser().GetName() == "admin" || a.GetSubresource() == "metrics" {
				return authorizer.DecisionAllow, "", nil
			}
			return authorizer.DecisionNoOpinion, "", nil
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	go func() { ended <- ca.Start(ctx) }()
	go func() { ended <- rt.Run(ctx) }()
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
	h := &harness{t: t, ctx: ctx, client: c, cache: ca, rt: rt}
	for _, p := range pods {
		if err := c.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range pods {
		eventually(t, "pod runs", func() bool { return h.pod(p.Name).Status.Phase == corev1.PodRunning })
	}
	return k, auth, h
}

func TestServer(t *testing.T) {
	k, auth, _ := serving(t, true, newPod("web", annotate("log-lines", "3")))
	host := k.Addr().String()
	admin, nobody := auth.config(t, host, "admin"), auth.config(t, host, "nobody")
	anonymous := &rest.Config{Host: "https://" + host, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}

	if code, _ := get(t, anonymous, "/pods"); code != http.StatusUnauthorized {
		t.Errorf("anonymous: %d", code)
	}
	if code, body := get(t, nobody, "/pods"); code != http.StatusForbidden || !strings.HasPrefix(body, "Forbidden (user=nobody, verb=get, resource=nodes, subresource(s)=[proxy])") {
		t.Errorf("nobody: %d %s", code, body)
	}
	if code, body := get(t, nobody, "/metrics"); code != http.StatusOK || !strings.Contains(body, "kubelet_started_containers_total 1") {
		t.Errorf("metrics: %d %s", code, body)
	}
	if code, body := get(t, nobody, "/metrics/resource"); code != http.StatusOK || !strings.Contains(body, `container_memory_working_set_bytes{container="app",namespace="default",pod="web"} 1.048576e+06`) {
		t.Errorf("resource metrics: %d %s", code, body)
	}
	for path, want := range map[string]string{
		"/healthz":                                    "ok",
		"/containerLogs/default/web/app":              "app line 1\napp line 2\napp line 3\n",
		"/containerLogs/default/web/app?tailLines=1":  "app line 3\n",
		"/containerLogs/default/web/app?limitBytes=5": "app l",
	} {
		if code, body := get(t, admin, path); code != http.StatusOK || body != want {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	for path, want := range map[string]int{
		"/containerLogs/default/none/app":              http.StatusNotFound,
		"/containerLogs/default/web/none":              http.StatusNotFound,
		"/containerLogs/default/web/app?tailLines=-1":  http.StatusUnprocessableEntity,
		"/containerLogs/default/web/app?previous=true": http.StatusBadRequest,
		"/exec/default/web/app?command=x&output=1":     http.StatusBadRequest,
		"/exec/default/none/app?command=x&output=1":    http.StatusNotFound,
		"/nothing": http.StatusNotFound,
	} {
		if code, body := get(t, admin, path); code != want {
			t.Errorf("%s: %d %q, want %d", path, code, body, want)
		}
	}
	_, body := get(t, admin, "/pods")
	var list corev1.PodList
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Items) != 1 || list.Items[0].Status.Phase != corev1.PodRunning {
		t.Errorf("%v %s", err, body)
	}
	_, body = get(t, admin, "/stats/summary")
	var sum statsapi.Summary
	if err := json.Unmarshal([]byte(body), &sum); err != nil || len(sum.Pods) != 1 || len(sum.Pods[0].Containers) != 1 || sum.Node.Memory == nil {
		t.Errorf("%v %s", err, body)
	}
}

func TestStreams(t *testing.T) {
	k, auth, _ := serving(t, true, newPod("web"))
	config := auth.config(t, k.Addr().String(), "admin")
	run := func(exec remotecommand.Executor, in string) string {
		t.Helper()
		var out bytes.Buffer
		o := remotecommand.StreamOptions{Stdout: &out}
		if in != "" {
			o.Stdin = strings.NewReader(in)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := exec.StreamWithContext(ctx, o); err != nil {
			return "error: " + err.Error()
		}
		return out.String()
	}
	spdyExec := func(path string) remotecommand.Executor {
		u, err := url.Parse(config.Host + path)
		if err != nil {
			t.Fatal(err)
		}
		exec, err := remotecommand.NewSPDYExecutor(config, http.MethodPost, u)
		if err != nil {
			t.Fatal(err)
		}
		return exec
	}
	for _, tc := range []struct{ path, in, want string }{
		{"/exec/default/web/app?command=echo&command=a&command=b&output=1", "", "a b\n"},
		{"/exec/default/web/app?command=cat&input=1&output=1", "typed", "typed"},
		{"/attach/default/web/app?input=1&output=1", "hello", "hello"},
		{"/exec/default/web/app?command=sh&command=-c&command=exit+7&output=1", "", "error: command terminated with exit code 7"},
	} {
		if got := run(spdyExec(tc.path), tc.in); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.path, got, tc.want)
		}
	}

	// Port forwarding: what is sent comes back.
	rt, up, err := spdy.RoundTripperFor(config)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(config.Host + "/portForward/default/web")
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := spdy.NewDialer(up, &http.Client{Transport: rt}, http.MethodPost, u).Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	headers := http.Header{}
	headers.Set(corev1.PortHeader, "80")
	headers.Set(corev1.PortForwardRequestIDHeader, "1")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	if _, err := conn.CreateStream(headers); err != nil {
		t.Fatal(err)
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	stream, err := conn.CreateStream(headers)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(stream, buf); err != nil || string(buf) != "ping" {
		t.Errorf("%q %v", buf, err)
	}
}

// TestFiles runs a pod with everything that needs files.
func TestFiles(t *testing.T) {
	optional := true
	k, _, h := serving(t, false, newPod("p", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{
			{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: &optional}}},
		}
		c := &p.Spec.Containers[0]
		c.TerminationMessagePath = "/dev/termination-log"
		c.Env = []corev1.EnvVar{{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}}
		c.VolumeMounts = []corev1.VolumeMount{{Name: "e", MountPath: "/data", SubPathExpr: "of-$(IP)"}, {Name: "c", MountPath: "/conf"}}
	}))
	_ = k
	p := h.pod("p")
	list, err := h.rt.ListContainers(h.ctx, nil)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	st, err := h.rt.ContainerStatus(h.ctx, list[0].Id, false)
	if err != nil {
		t.Fatal(err)
	}
	mounts := map[string]string{}
	for _, m := range st.Status.Mounts {
		if _, err := os.Stat(m.HostPath); err != nil {
			t.Error(err)
		}
		mounts[m.ContainerPath] = m.HostPath
	}
	for _, path := range []string{"/data", "/conf", "/etc/hosts", "/dev/termination-log"} {
		if mounts[path] == "" {
			t.Errorf("nothing is mounted at %s: %v", path, mounts)
		}
	}
	hosts, err := os.ReadFile(mounts["/etc/hosts"])
	if err != nil || !strings.Contains(string(hosts), p.Status.PodIP+"\tp\n") {
		t.Errorf("%s %v", hosts, err)
	}
	root := filepath.Dir(filepath.Dir(mounts["/etc/hosts"]))
	// What the container says last becomes its message.
	if err := os.WriteFile(mounts["/dev/termination-log"], []byte("I am done"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.rt.StopContainer(h.ctx, list[0].Id, 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the container is restarted, with its last message", func() bool {
		cs := h.pod("p").Status.ContainerStatuses[0]
		last := cs.LastTerminationState.Terminated
		return cs.RestartCount == 1 && last != nil && last.Message == "I am done"
	})
	if err := h.client.Delete(h.ctx, p); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod's directory is removed", func() bool {
		entries, err := os.ReadDir(root)
		return err == nil && len(entries) == 0
	})
}
