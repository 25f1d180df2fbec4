//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/kubelet"
	"github.com/keelson/keelson/kubelet/processruntime"
	"github.com/keelson/keelson/kubelet/processruntime/image"
	"github.com/keelson/keelson/store/memstore"
)

func TestMain(m *testing.M) {
	if processruntime.Init() {
		return
	}
	goleak.VerifyTestMain(m)
}

type machine struct {
	t      *testing.T
	ctx    context.Context
	srv    *apiserver.Server
	client client.WithWatch
	rt     *processruntime.Runtime
	dir    string
	addr   string // of the kubelet
	stop   func()
}

// start makes a cluster of one machine with real processes, and the image "workload".
func start(t *testing.T) *machine {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "workload")
	build := exec.Command("go", "build", "-o", binary, "github.com/keelson/keelson/kubelet/runtimetest/workload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := apiserver.New(st, apiserver.Options{Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	if err := srv.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	rt, err := processruntime.New(processruntime.Options{Root: filepath.Join(dir, "runtime")})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(rt.Isolation())
	img, err := image.FromBinary(binary, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.ImportImage(ctx, img, "example.com/workload:1"); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, ctx: ctx, srv: srv, client: srv.Client(apiserver.Admin), rt: rt, dir: dir}
	t.Cleanup(func() {
		if m.stop != nil {
			m.stop()
		}
		list, _ := rt.ListPodSandbox(ctx, nil)
		for _, s := range list {
			if err := rt.RemovePodSandbox(ctx, s.Id); err != nil {
				t.Error(err)
			}
		}
		if err := rt.Close(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		<-ended
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": "x"}},
	} {
		if err := m.client.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	m.kubelet()
	return m
}

func (m *machine) kubelet() {
	m.t.Helper()
	ca := m.srv.Cache(apiserver.Admin)
	k, err := kubelet.New(m.client, ca, m.rt, m.rt, kubelet.Options{
		NodeName: "node-1", RootDir: filepath.Join(m.dir, "kubelet"), NodeIPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		ClientCA: m.srv.CA().Pool(),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(m.ctx)
	ended, cached := make(chan error, 1), make(chan error, 1)
	go func() { cached <- ca.Start(ctx) }()
	go func() { ended <- k.Run(ctx) }()
	for k.Addr() == nil {
		time.Sleep(time.Millisecond)
	}
	m.addr = k.Addr().String()
	m.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			m.t.Errorf("the kubelet ended with %v", err)
		}
		<-cached
		m.stop = nil
	}
}

func (m *machine) get(name string) *corev1.Pod {
	m.t.Helper()
	p := &corev1.Pod{}
	if err := m.client.Get(m.ctx, client.ObjectKey{Namespace: "default", Name: name}, p); err != nil {
		m.t.Fatal(err)
	}
	return p
}

func (m *machine) wait(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	m.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if p := m.get(name); ok(p) {
			return p
		}
	}
	var events corev1.EventList
	_ = m.client.List(m.ctx, &events)
	for _, e := range events.Items {
		m.t.Logf("%s %s: %s", e.InvolvedObject.Name, e.Reason, e.Message)
	}
	m.t.Fatalf("%s: not within 30 seconds: %s: %+v", name, what, m.get(name).Status)
	return nil
}

func phase(want corev1.PodPhase) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Status.Phase == want }
}

func pod(name string, args ...string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{
		NodeName: "node-1", RestartPolicy: corev1.RestartPolicyNever,
		Containers: []corev1.Container{{Name: "app", Image: "example.com/workload:1", ImagePullPolicy: corev1.PullNever, Args: args}},
	}}
}

func (m *machine) log(name string) string {
	m.t.Helper()
	p := m.get(name)
	files, err := filepath.Glob(filepath.Join(m.dir, "kubelet", "logs", "default_"+name+"_"+string(p.UID), "*", "*.log"))
	if err != nil || len(files) == 0 {
		m.t.Fatalf("no log of %s: %v", name, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		m.t.Fatal(err)
	}
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		if _, text, ok := strings.Cut(line, " F "); ok {
			out.WriteString(text + "\n")
		}
	}
	return out.String()
}

func (m *machine) create(objs ...client.Object) {
	m.t.Helper()
	for _, o := range objs {
		if err := m.client.Create(m.ctx, o); err != nil {
			m.t.Fatal(err)
		}
	}
}

func TestRealPods(t *testing.T) {
	m := start(t)
	m.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "conf"}, Data: map[string]string{"greeting": "hello"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "sec"}, StringData: map[string]string{"key": "value"}, Data: map[string][]byte{"key": []byte("value")}})

	// Environment, command line and volumes arrive.
	p := pod("env", "env GREETING", "env IP", "env EXPANDED", "cat /conf/greeting", "cat /sec/deep/key", "cat /data/f", "hostname", "exit 0")
	p.Spec.InitContainers = []corev1.Container{{
		Name: "init", Image: "example.com/workload:1", ImagePullPolicy: corev1.PullNever, Args: []string{"write /data/f from init"},
		VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
	}}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}}},
		{Name: "sec", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec", Items: []corev1.KeyToPath{{Key: "key", Path: "deep/key"}}}}},
	}
	c := &p.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "conf", MountPath: "/conf"}, {Name: "sec", MountPath: "/sec"}}
	c.Env = []corev1.EnvVar{
		{Name: "GREETING", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}, Key: "greeting"}}},
		{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.hostIP"}}},
		{Name: "EXPANDED", Value: "<$(GREETING)>"},
	}
	m.create(p)
	got := m.wait("env", "succeeded", phase(corev1.PodSucceeded))
	if want := "hello\n127.0.0.1\n<hello>\n"; !strings.HasPrefix(m.log("env"), want) {
		t.Errorf("%q, want %q first", m.log("env"), want)
	}
	if s := got.Status; s.InitContainerStatuses[0].State.Terminated == nil || s.ContainerStatuses[0].State.Terminated.Reason != "Completed" || s.ContainerStatuses[0].ImageID == "" {
		t.Errorf("%+v", s)
	}

	// A failure keeps its exit code and its last words.
	p = pod("fail", "print last words", "exit 3")
	p.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	m.create(p)
	got = m.wait("fail", "failed", phase(corev1.PodFailed))
	if term := got.Status.ContainerStatuses[0].State.Terminated; term.ExitCode != 3 || term.Reason != "Error" || !strings.Contains(term.Message, "last words") {
		t.Errorf("%+v", term)
	}

	// Probes.
	port := 20000 + os.Getpid()%20000
	p = pod("probed", "listen "+strconv.Itoa(port))
	p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(port)}}}
	p.Spec.Containers[0].LivenessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/workload", "exit 0"}}}}
	m.create(p)
	ready := func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].Ready
	}
	before := m.wait("probed", "ready", ready)

	// Logs and commands, through the API server; and a service account that is known but may do nothing.
	m.streams()
	m.token()

	// The kubelet comes back: what runs is not touched.
	m.stop()
	m.kubelet()
	m.create(pod("later", "trap")) // once this runs, the kubelet has long looked at what there was
	m.wait("later", "running", phase(corev1.PodRunning))
	after := m.wait("probed", "ready", ready)
	if a, b := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
		t.Errorf("before %+v\nafter %+v", a, b)
	}

	// Deletion gives the process its time, and leaves nothing.
	m.create(pod("trap", "trap"))
	m.wait("trap", "running", phase(corev1.PodRunning))
	for _, name := range []string{"trap", "later", "probed", "env", "fail"} {
		if err := m.client.Delete(m.ctx, m.get(name), client.GracePeriodSeconds(5)); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var list corev1.PodList
		if err := m.client.List(m.ctx, &list); err != nil {
			t.Fatal(err)
		}
		left, _ := m.rt.ListPodSandbox(m.ctx, nil)
		dirs, _ := os.ReadDir(filepath.Join(m.dir, "kubelet", "pods"))
		if len(list.Items) == 0 && len(left) == 0 && len(dirs) == 0 {
			break
		}
		if time.Now().After(end) {
			var b bytes.Buffer
			for i := range list.Items {
				b.WriteString(list.Items[i].Name + " ")
			}
			t.Fatalf("left: pods %s, %d sandboxes, %d directories", b.String(), len(left), len(dirs))
		}
	}
}

// streams reads the log of the pod "fail" and runs a command in the pod "probed", as kubectl does.
func (m *machine) streams() {
	t := m.t
	t.Helper()
	kubeconfig, err := m.srv.AdminKubeconfig()
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	hc, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	defer hc.CloseIdleConnections()
	cs, err := kubernetes.NewForConfigAndClient(config, hc)
	if err != nil {
		t.Fatal(err)
	}
	lines := int64(1)
	log, err := cs.CoreV1().Pods("default").GetLogs("fail", &corev1.PodLogOptions{TailLines: &lines}).DoRaw(m.ctx)
	if err != nil || string(log) != "last words\n" {
		t.Errorf("%q %v", log, err)
	}
	req := cs.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("probed").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: "app", Command: []string{"/workload", "stdin", "exit 4"}, Stdin: true, Stdout: true, Stderr: true}, clientscheme.ParameterCodec)
	ws, err := remotecommand.NewWebSocketExecutor(config, "GET", req.URL().String())
	if err != nil {
		t.Fatal(err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(config, "POST", req.URL())
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]remotecommand.Executor{"websocket": ws, "spdy": spdy} {
		var out, errOut bytes.Buffer
		err := e.StreamWithContext(m.ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("typed"), Stdout: &out, Stderr: &errOut})
		if out.String() != "typed" || err == nil || !strings.Contains(err.Error(), "exit code 4") {
			t.Errorf("%s: %q %v", name, out.String(), err)
		}
	}
}

// token asks the kubelet as a service account, which the kubelet has reviewed by the API server, for what it may and may not see.
func (m *machine) token() {
	t := m.t
	t.Helper()
	req := &authenticationv1.TokenRequest{}
	if err := m.client.SubResource("token").Create(m.ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}, req); err != nil {
		t.Fatal(err)
	}
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	ask := func(token, path string) (int, string) {
		r, err := http.NewRequestWithContext(m.ctx, http.MethodGet, "https://"+m.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := hc.Do(r)
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
	if code, body := ask("x."+req.Status.Token, "/pods"); code != http.StatusUnauthorized {
		t.Errorf("%d %s", code, body)
	}
	if code, body := ask(req.Status.Token, "/metrics"); code != http.StatusForbidden || !strings.Contains(body, "user=system:serviceaccount:default:default, verb=get, resource=nodes") {
		t.Errorf("%d %s", code, body)
	}
	m.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "nodes"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"nodes/proxy"}}}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "nodes"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "nodes"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "default"}},
		})
	code, body := ask(req.Status.Token, "/pods")
	if code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
}
