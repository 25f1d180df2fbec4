package apiserver_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a server until the test ends.
func start(t testing.TB, o apiserver.Options) *apiserver.Server {
	t.Helper()
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := apiserver.New(st, o)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, func() { st.Close() })
	return s
}

func run(t testing.TB, s *apiserver.Server, after func()) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(time.Minute):
				buf := make([]byte, 1<<20)
				t.Fatalf("Run did not return:\n%s", buf[:runtime.Stack(buf, true)])
			}
			after()
		})
	}
	t.Cleanup(stop)
	ready, ok := context.WithTimeout(ctx, time.Minute)
	defer ok()
	if err := s.WaitReady(ready); err != nil {
		t.Fatal(err)
	}
	return stop
}

// overTLS returns a client by kubeconfig, as another process has it.
func overTLS(t testing.TB, s *apiserver.Server, u user.Info) (*kubernetes.Clientset, *rest.Config) {
	t.Helper()
	raw, err := s.Kubeconfig(u)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(raw)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	return clientFor(t, cfg), cfg
}

func clientFor(t testing.TB, cfg *rest.Config) *kubernetes.Clientset {
	t.Helper()
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cs, err := kubernetes.NewForConfigAndClient(cfg, hc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hc.CloseIdleConnections)
	return cs
}

func listening() apiserver.Options { return apiserver.Options{Listen: []string{"127.0.0.1:0"}} }

// The same object is seen through every door.
func TestDoors(t *testing.T) {
	ctx := t.Context()
	s := start(t, listening())
	remote, _ := overTLS(t, s, apiserver.Admin)
	memory := clientFor(t, s.RESTConfig(apiserver.Admin))
	direct := s.Client(apiserver.Admin)

	w, err := memory.CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	made, err := remote.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "doors"}, Data: map[string]string{"a": "b"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for ev := range w.ResultChan() {
		if cm := ev.Object.(*corev1.ConfigMap); cm.Name == "doors" {
			if cm.ResourceVersion != made.ResourceVersion {
				t.Errorf("watch has version %s, want %s", cm.ResourceVersion, made.ResourceVersion)
			}
			break
		}
	}
	got := &corev1.ConfigMap{}
	if err := direct.Get(ctx, client.ObjectKey{Namespace: "default", Name: "doors"}, got); err != nil || got.Data["a"] != "b" {
		t.Errorf("in-process: %v, %v", err, got.Data)
	}
	if err := memory.CoreV1().ConfigMaps("default").Delete(ctx, "doors", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := remote.CoreV1().ConfigMaps("default").Get(ctx, "doors", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after deletion: %v", err)
	}
}

func TestBootstrap(t *testing.T) {
	ctx := t.Context()
	s := start(t, listening())
	cs, _ := overTLS(t, s, apiserver.Admin)
	for _, ns := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		if _, err := cs.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	svc, err := cs.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil || svc.Spec.ClusterIP != "10.96.0.1" || svc.Spec.Ports[0].Port != 443 {
		t.Errorf("service: %v, %+v", err, svc.Spec)
	}
	if cm, err := cs.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{}); err != nil || cm.Data["client-ca-file"] == "" {
		t.Errorf("authentication config: %v", err)
	}
	if _, err := cs.RbacV1().ClusterRoles().Get(ctx, "cluster-admin", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// What is kept in a directory and a store survives the server.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	o := listening()
	o.Dir = dir
	var kubeconfig []byte
	for i := range 2 {
		s, err := apiserver.New(st, o)
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, s, func() {})
		if i == 0 {
			file := filepath.Join(dir, "sub", "admin.conf")
			if err := s.WriteKubeconfig(file, apiserver.Admin); err != nil {
				t.Fatal(err)
			}
			if fi, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != 0o600 {
				t.Errorf("kubeconfig: %v, %v", err, fi.Mode())
			}
			if kubeconfig, err = os.ReadFile(file); err != nil {
				t.Fatal(err)
			}
			cs, _ := overTLS(t, s, apiserver.Admin)
			if _, err := cs.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		} else {
			cfg, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Host = s.URL()
			if _, err := clientFor(t, cfg).CoreV1().Namespaces().Get(t.Context(), "kept", metav1.GetOptions{}); err != nil {
				t.Errorf("with the first server's credentials: %v", err)
			}
		}
		stop()
	}
}

// Twenty servers live in one process and leave nothing behind.
func TestManyServers(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			st, err := memstore.New(memstore.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer st.Close()
			s, err := apiserver.New(st, listening())
			if err != nil {
				t.Error(err)
				return
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			if err := s.WaitReady(ctx); err != nil {
				t.Error(err)
				return
			}
			hc, err := rest.HTTPClientFor(s.RESTConfig(apiserver.Admin))
			if err != nil {
				t.Error(err)
				return
			}
			cs, err := kubernetes.NewForConfigAndClient(s.RESTConfig(apiserver.Admin), hc)
			if err != nil {
				t.Error(err)
				return
			}
			name := fmt.Sprintf("only-%d", i)
			if _, err := cs.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
				t.Error(err)
			}
			if l, err := cs.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); err != nil || len(l.Items) != 5 {
				t.Errorf("%s: %v, %d namespaces", name, err, len(l.Items))
			}
			// A watch that is never read, and one in flight, must not keep the server from ending.
			if _, err := cs.CoordinationV1().Leases("").Watch(ctx, metav1.ListOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestReadyAtOnce(t *testing.T) {
	goal := 100 * time.Millisecond
	if raceDetector {
		goal = time.Second
	}
	best := time.Hour
	for range 20 { // the machine may be busy
		st, err := memstore.New(memstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		s, err := apiserver.New(st, listening())
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, s, func() { st.Close() })
		best = min(best, time.Since(begin))
		stop()
		if best < goal {
			return
		}
	}
	if best > 3*goal { // no other program runs that long without a pause
		t.Errorf("ready after %v, want %v", best, goal)
	}
	t.Logf("ready after %v, want %v", best, goal)
}

func TestIdentities(t *testing.T) {
	ctx := t.Context()
	o := listening()
	o.Tokens = map[string]user.Info{"s3cret": &user.DefaultInfo{Name: "tokenuser", Groups: []string{user.SystemPrivilegedGroup}}}
	s := start(t, o)
	_, cfg := overTLS(t, s, apiserver.Admin)
	anonymous := rest.AnonymousClientConfig(cfg)

	if _, err := clientFor(t, anonymous).CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) ||
		err.Error() != `pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "default"` {
		t.Errorf("anonymous: %v", err)
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/healthz": 200, "/version": 200, "/metrics": 403, "/api": 403} {
		hc, err := rest.HTTPClientFor(anonymous)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Get(s.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		hc.CloseIdleConnections()
		if resp.StatusCode != want {
			t.Errorf("anonymous %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	withToken := func(token string) *kubernetes.Clientset {
		c := rest.CopyConfig(anonymous)
		c.BearerToken = token
		return clientFor(t, c)
	}
	if _, err := withToken("s3cret").CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("static token: %v", err)
	}
	if _, err := withToken("wrong").CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("wrong token: %v", err)
	}
	node, _ := overTLS(t, s, &user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup}})
	if _, err := node.CoordinationV1().Leases("kube-node-lease").Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{}); err != nil {
		t.Errorf("node: %v", err)
	}
	if _, err := node.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("node making a namespace: %v", err)
	}
	imp := rest.CopyConfig(cfg)
	imp.Impersonate = rest.ImpersonationConfig{UserName: "alice"}
	if _, err := clientFor(t, imp).CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("impersonated: %v", err)
	}
}

func TestServiceAccountToken(t *testing.T) {
	ctx := t.Context()
	s := start(t, listening())
	cs, cfg := overTLS(t, s, apiserver.Admin)
	if _, err := cs.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "app"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	tr, err := cs.CoreV1().ServiceAccounts("default").CreateToken(ctx, "app", tokenRequest(), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := rest.AnonymousClientConfig(cfg)
	c.BearerToken = tr.Status.Token
	app := clientFor(t, c)
	self, err := app.AuthenticationV1().SelfSubjectReviews().Create(ctx, selfReview(), metav1.CreateOptions{})
	if err != nil || self.Status.UserInfo.Username != "system:serviceaccount:default:app" {
		t.Fatalf("who am I: %v, %+v", err, self)
	}
	review, err := cs.AuthenticationV1().TokenReviews().Create(ctx, tokenReview(tr.Status.Token), metav1.CreateOptions{})
	if err != nil || !review.Status.Authenticated || review.Status.User.Username != "system:serviceaccount:default:app" {
		t.Errorf("review: %v, %+v", err, review)
	}
	if err := cs.CoreV1().ServiceAccounts("default").Delete(ctx, "app", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := app.AuthenticationV1().SelfSubjectReviews().Create(ctx, selfReview(), metav1.CreateOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("token of a deleted account: %v", err)
	}
}

func TestHandlerStoppedAndOptions(t *testing.T) {
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	s, err := apiserver.New(st, apiserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, func() {})()
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run ran twice")
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := s.RESTConfig(apiserver.Admin).Transport.RoundTrip(req); err == nil {
		resp.Body.Close()
		t.Error("a stopped server answered")
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Errorf("WaitReady after a run that was ready: %v", err)
	}
	if _, err := s.AdminKubeconfig(); err == nil {
		t.Error("a server that listens nowhere has a kubeconfig")
	}
	for name, o := range map[string]apiserver.Options{
		"ServiceCIDRs":     {ServiceCIDRs: prefixes("10.96.0.1/12")},
		"ServiceCIDRs two": {ServiceCIDRs: prefixes("10.96.0.0/12", "10.0.0.0/16")},
		"NodePorts":        {NodePorts: apiserver.PortRange{First: 5, Last: 1}},
		"RequestTimeout":   {RequestTimeout: -1},
		"Tokens":           {Tokens: map[string]user.Info{"": apiserver.Admin}},
		"DisableAdmission": {DisableAdmission: []string{"Nonsense"}},
		"AdvertisePort":    {AdvertisePort: 70000},
	} {
		if _, err := apiserver.New(st, o); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := apiserver.New(nil, apiserver.Options{}); err == nil {
		t.Error("no store was accepted")
	}
	busy := start(t, listening())
	again, err := apiserver.New(st, apiserver.Options{Listen: []string{busy.URL()[len("https://"):]}})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Run(t.Context()); err == nil {
		t.Error("an address in use was listened on")
	}
}
