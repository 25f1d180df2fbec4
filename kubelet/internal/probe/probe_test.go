package probe

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func hostPort(t *testing.T, addr string) (string, int) {
	t.Helper()
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		t.Fatal(err)
	}
	return host, n
}

func TestHTTP(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			if r.Header.Get("X") != "y" || r.Host != "example" || !strings.HasPrefix(r.UserAgent(), "kube-probe/") {
				w.WriteHeader(http.StatusTeapot)
			}
			_, _ = w.Write([]byte("fine"))
		case "/moved":
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
		case "/bad":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	plain, secure := httptest.NewServer(h), httptest.NewTLSServer(h)
	defer plain.Close()
	defer secure.Close()
	for _, tc := range []struct {
		server *httptest.Server
		scheme corev1.URIScheme
		path   string
		ok     bool
		output string
	}{
		{plain, "", "/ok", true, "fine"},
		{secure, corev1.URISchemeHTTPS, "/ok", true, "fine"},
		{plain, "", "/moved", true, ""},
		{plain, "", "/bad", false, "HTTP probe failed with statuscode: 503"},
	} {
		u, _ := url.Parse(tc.server.URL)
		host, port := hostPort(t, u.Host)
		a := &corev1.HTTPGetAction{Path: tc.path, Scheme: tc.scheme, HTTPHeaders: []corev1.HTTPHeader{{Name: "X", Value: "y"}, {Name: "Host", Value: "example"}}}
		ok, out := HTTP(t.Context(), Client(), a, host, port)
		if ok != tc.ok || tc.output != "" && out != tc.output {
			t.Errorf("%s: %v %q", tc.path, ok, out)
		}
	}
}

func TestTCPAndGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, hs := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(s, hs)
	go func() { _ = s.Serve(l) }()
	host, port := hostPort(t, l.Addr().String())
	if ok, out := TCP(t.Context(), host, port); !ok {
		t.Error(out)
	}
	if ok, out := GRPC(t.Context(), host, port, "", time.Second); !ok {
		t.Error(out)
	}
	hs.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	if ok, out := GRPC(t.Context(), host, port, "", time.Second); ok || out != `service unhealthy (responded with "NOT_SERVING")` {
		t.Error(ok, out)
	}
	s.Stop()
	if ok, _ := TCP(t.Context(), host, port); ok {
		t.Error("connected to a closed port")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if ok, out := GRPC(ctx, host, port, "", 100*time.Millisecond); ok || !strings.HasPrefix(out, "timeout: failed to connect service") {
		t.Error(ok, out)
	}
}

func TestPort(t *testing.T) {
	c := &corev1.Container{Name: "c", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}}}
	for _, tc := range []struct {
		in  intstr.IntOrString
		out int
		err string
	}{
		{intstr.FromInt32(8080), 8080, ""},
		{intstr.FromString("http"), 80, ""},
		{intstr.FromString("81"), 81, ""},
		{intstr.FromString("none"), 0, "couldn't find port: none in container c"},
		{intstr.FromInt32(70000), 0, "invalid port number: 70000"},
	} {
		got, err := Port(tc.in, c)
		if got != tc.out || (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
			t.Errorf("%v: %d %v", tc.in, got, err)
		}
	}
}
