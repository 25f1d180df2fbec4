package apiserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	"k8s.io/utils/ptr"
)

func TestLogs(t *testing.T) {
	_, cs, _, k := cluster(t)
	ctx := t.Context()
	get := func(pod string, o corev1.PodLogOptions) (string, error) {
		res := cs.CoreV1().Pods("default").GetLogs(pod, &o).Do(ctx)
		b, _ := res.Raw()
		return string(b), res.Error()
	}
	if got, err := get("p", corev1.PodLogOptions{}); err != nil || got != "log of default/p/c\n" {
		t.Errorf("%v %q", err, got)
	}
	if !k.users["kube-apiserver-kubelet-client"] {
		t.Errorf("kubelet saw %v", k.users)
	}
	if _, err := get("p", corev1.PodLogOptions{TailLines: ptr.To[int64](5), LimitBytes: ptr.To[int64](9), SinceSeconds: ptr.To[int64](7), Timestamps: true}); err != nil {
		t.Error(err)
	}
	if k.log != "limitBytes=9&sinceSeconds=7&tailLines=5&timestamps=true" {
		t.Errorf("kubelet was asked %s", k.log)
	}
	if got, err := get("two", corev1.PodLogOptions{Container: "b"}); err != nil || got != "log of default/two/b\n" {
		t.Errorf("%v %q", err, got)
	}
	if got, err := get("pending", corev1.PodLogOptions{}); err != nil || got != "" {
		t.Errorf("log of a pod without node: %v %q", err, got)
	}
	for name, tc := range map[string]struct {
		pod  string
		opts corev1.PodLogOptions
		want string
	}{
		"ambiguous":    {"two", corev1.PodLogOptions{}, "a container name must be specified for pod two, choose one of: [a b]"},
		"no container": {"p", corev1.PodLogOptions{Container: "x"}, "container x is not valid for pod p"},
		"no pod":       {"none", corev1.PodLogOptions{}, `pods "none" not found`},
		"bad tail":     {"p", corev1.PodLogOptions{TailLines: ptr.To[int64](-1)}, `PodLogOptions "p" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0`},
		"previous":     {"p", corev1.PodLogOptions{Previous: true}, `previous terminated container "c" in pod "p" not found`},
	} {
		if _, err := get(tc.pod, tc.opts); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stream, err := cs.CoreV1().Pods("default").GetLogs("p", &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := stream.Read(buf); err != nil || string(buf[:n]) != "log of default/p/c\n" {
		t.Errorf("follow: %v %q", err, buf[:n])
	}
	stream.Close()
}

func execURL(cs *kubernetes.Clientset, sub, pod string, o *corev1.PodExecOptions) *rest.Request {
	return cs.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name(pod).SubResource(sub).VersionedParams(o, scheme.ParameterCodec)
}

type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	v, ok := <-s
	if !ok {
		return nil
	}
	return &v
}

// Commands run for both protocols that kubectl speaks.
func TestExec(t *testing.T) {
	_, cs, cfg, _ := cluster(t)
	for protocol, newExecutor := range map[string]func(*rest.Request) (remotecommand.Executor, error){
		"websocket": func(r *rest.Request) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(cfg, "GET", r.URL().String())
		},
		"spdy": func(r *rest.Request) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(cfg, "POST", r.URL())
		},
	} {
		t.Run(protocol, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			run := func(sub, pod string, o *corev1.PodExecOptions, so remotecommand.StreamOptions) (string, string, error) {
				e, err := newExecutor(execURL(cs, sub, pod, o))
				if err != nil {
					t.Fatal(err)
				}
				var out, errs bytes.Buffer
				so.Stdout = &out
				if o.Stderr {
					so.Stderr = &errs
				}
				so.Tty = o.TTY
				err = e.StreamWithContext(ctx, so)
				return out.String(), errs.String(), err
			}
			if out, _, err := run("exec", "p", &corev1.PodExecOptions{Command: []string{"args", "a b", "c"}, Stdout: true}, remotecommand.StreamOptions{}); err != nil || out != "c:args,a b,c:false" {
				t.Errorf("%v %q", err, out)
			}
			if out, _, err := run("exec", "p", &corev1.PodExecOptions{Command: []string{"cat"}, Stdin: true, Stdout: true},
				remotecommand.StreamOptions{Stdin: strings.NewReader(strings.Repeat("through ", 10000))}); err != nil || len(out) != 80000 {
				t.Errorf("cat: %v, %d bytes", err, len(out))
			}
			if out, _, err := run("attach", "p", &corev1.PodExecOptions{Stdin: true, Stdout: true}, remotecommand.StreamOptions{Stdin: strings.NewReader("hello")}); err != nil || out != "hello" {
				t.Errorf("attach: %v %q", err, out)
			}
			_, errs, err := run("exec", "p", &corev1.PodExecOptions{Command: []string{"fail"}, Stdout: true, Stderr: true}, remotecommand.StreamOptions{})
			var code exec.CodeExitError
			if !errors.As(err, &code) || code.Code != 3 || errs != "failing" {
				t.Errorf("fail: %v %q", err, errs)
			}
			q := make(sizes, 1)
			q <- remotecommand.TerminalSize{Width: 80, Height: 24}
			if out, _, err := run("exec", "p", &corev1.PodExecOptions{Command: []string{"size"}, Stdin: true, Stdout: true, TTY: true},
				remotecommand.StreamOptions{Stdin: bytes.NewReader(nil), TerminalSizeQueue: q}); err != nil || out != "80x24" {
				t.Errorf("size: %v %q", err, out)
			}
			close(q)
			for pod, want := range map[string]string{
				"two": "a container name must be specified for pod two", "none": `pods "none" not found`, "pending": "pod pending does not have a host assigned",
			} {
				if _, _, err := run("exec", pod, &corev1.PodExecOptions{Command: []string{"x"}, Stdout: true}, remotecommand.StreamOptions{}); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v", pod, err)
				}
			}
		})
	}
	if err := execURL(cs, "exec", "p", &corev1.PodExecOptions{Command: []string{"x"}, Stdout: true}).Do(t.Context()).Error(); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "Upgrade request required") {
		t.Errorf("without upgrade: %v", err)
	}
}

// Reading pods is not enough to run a command in one, though a WebSocket begins with a GET.
func TestExecForbidden(t *testing.T) {
	s, admin, _, _ := cluster(t)
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), viewer(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	cs, cfg := overTLS(t, s, &user.DefaultInfo{Name: "reader"})
	url := execURL(cs, "exec", "p", &corev1.PodExecOptions{Command: []string{"args"}, Stdout: true}).URL()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := cs.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{}); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	ws, err := remotecommand.NewWebSocketExecutor(cfg, "GET", url.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard}); err == nil || !strings.Contains(err.Error(), "pods/exec") {
		t.Errorf("WebSocket: %v", err)
	}
}

func TestPortForward(t *testing.T) {
	_, cs, cfg, _ := cluster(t)
	url := cs.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("p").SubResource("portforward").URL()
	rt, upgrader, err := spdy.RoundTripperFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	overSPDY := spdy.NewDialer(upgrader, &http.Client{Transport: rt}, "POST", url)
	tunnelled, err := portforward.NewSPDYOverWebsocketDialer(url, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for name, dialer := range map[string]portforwardDialer{"spdy": overSPDY, "websocket": tunnelled} {
		t.Run(name, func(t *testing.T) {
			stop, ready := make(chan struct{}), make(chan struct{})
			fw, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:7777"}, stop, ready, io.Discard, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- fw.ForwardPorts() }()
			select {
			case <-ready:
			case err := <-done:
				t.Fatal(err)
			case <-time.After(time.Minute):
				t.Fatal("not ready")
			}
			ports, err := fw.GetPorts()
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(ports[0].Local))))
				if err != nil {
					t.Fatal(err)
				}
				conn.SetDeadline(time.Now().Add(time.Minute))
				fmt.Fprint(conn, "ping")
				buf := make([]byte, 100)
				n, err := conn.Read(buf)
				if err != nil || string(buf[:n]) != "7777:ping" {
					t.Errorf("%v %q", err, buf[:n])
				}
				conn.Close()
			}
			close(stop)
			<-done
		})
	}
}

func TestProxies(t *testing.T) {
	_, cs, _, _ := cluster(t)
	ctx := t.Context()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/page":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprint(w, `<a href="/abs">x</a><a href="rel">y</a><img src="http://other.example/z">`)
		default:
			fmt.Fprintf(w, "%s %s?%s auth=%q uri=%s", r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Authorization"), r.Header.Get("X-Forwarded-Uri"))
		}
	}))
	defer backend.Close()
	_, port, _ := net.SplitHostPort(backend.Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	pod, err := cs.CoreV1().Pods("default").Get(ctx, "p", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status.PodIP, pod.Status.PodIPs = "127.0.0.1", []corev1.PodIP{{IP: "127.0.0.1"}}
	if _, err := cs.CoreV1().Pods("default").UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cs.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cs.DiscoveryV1().EndpointSlices("default").Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(int32(n))}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"127.0.0.1"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	get := func(path string) (string, error) {
		res := cs.CoreV1().RESTClient().Get().AbsPath(path).Param("q", "1").Do(ctx)
		b, _ := res.Raw()
		return string(b), res.Error()
	}
	for path, uri := range map[string]string{
		"/api/v1/namespaces/default/pods/p:" + port + "/proxy/a/b":      "/a/b",
		"/api/v1/namespaces/default/services/web/proxy/a/b":             "",
		"/api/v1/namespaces/default/services/web:http/proxy/a/b":        "/a/b",
		"/api/v1/namespaces/default/services/http:web:80/proxy/a/b":     "/a/b",
		"/api/v1/namespaces/default/services/http:web:http/proxy/a/b/":  "/a/b/",
		"/api/v1/namespaces/default/pods/http:p:" + port + "/proxy/a b": "/a b",
	} {
		got, err := get(path)
		if uri == "" {
			if !apierrors.IsServiceUnavailable(err) {
				t.Errorf("%s: %v %q", path, err, got)
			}
			continue
		}
		if want := "GET " + uri + `?q=1 auth=""`; err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %v %q, want %q", path, err, got, want)
		}
	}
	if got, err := get("/api/v1/nodes/n1/proxy/healthz"); err != nil || got != "kubelet ok" {
		t.Errorf("node: %v %q", err, got)
	}
	const base = "/api/v1/namespaces/default/services/web:http/proxy"
	if got, err := get(base + "/page"); err != nil || got != `<a href="`+base+`/abs">x</a><a href="rel">y</a><img src="http://other.example/z">` {
		t.Errorf("page: %v %q", err, got)
	}
	hc := *cs.CoreV1().RESTClient().(*rest.RESTClient).Client
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	root := strings.TrimSuffix(cs.CoreV1().RESTClient().Get().AbsPath("/").URL().String(), "/")
	for path, want := range map[string]string{base: base + "/", base + "/redirect": base + "/elsewhere"} {
		resp, err := hc.Get(root + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if l := resp.Header.Get("Location"); l != want {
			t.Errorf("%s: %d to %q, want %q", path, resp.StatusCode, l, want)
		}
	}
	for path, want := range map[string]string{
		"/api/v1/namespaces/default/services/none/proxy/":   `services "none" not found`,
		"/api/v1/namespaces/default/services/web:81/proxy/": `no service port 81 found for service "web"`,
		"/api/v1/namespaces/default/pods/two:80/proxy/":     "address not allowed",
		"/api/v1/namespaces/default/pods/x:p:80/proxy/":     "invalid pod request",
	} {
		if _, err := get(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
