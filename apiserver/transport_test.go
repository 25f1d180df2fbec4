package apiserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/store/memstore"
)

func roundTrip(t *testing.T, s *apiserver.Server, req *http.Request) (*http.Response, error) {
	t.Helper()
	return s.RESTConfig(apiserver.Admin).Transport.RoundTrip(req)
}

func request(t *testing.T, ctx context.Context, method, path string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://kubernetes.in-process"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestMemoryTransport(t *testing.T) {
	s := start(t, apiserver.Options{})
	ctx := t.Context()
	t.Run("whole", func(t *testing.T) {
		req := request(t, ctx, "GET", "/version", nil)
		req.Header.Set("Authorization", "Bearer whatever")
		resp, err := roundTrip(t, s, req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(b), apiserver.Version) || int64(len(b)) != resp.ContentLength {
			t.Errorf("%d %v %s", resp.StatusCode, err, b)
		}
		if req.Header.Get("Authorization") == "" {
			t.Error("the caller's request was changed")
		}
	})
	t.Run("large", func(t *testing.T) {
		cs := clientFor(t, s.RESTConfig(apiserver.Admin))
		big := map[string]string{"pad": strings.Repeat("x", 100<<10)}
		for i := range 10 {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("big-%d", i)}, Data: big}
			if _, err := cs.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		l, err := cs.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{})
		if err != nil || len(l.Items) != 10 || l.Items[9].Data["pad"] != big["pad"] {
			t.Errorf("%v, %d items", err, len(l.Items))
		}
		// A large answer that is not read to its end keeps nothing.
		resp, err := roundTrip(t, s, request(t, ctx, "GET", "/api/v1/configmaps", nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
			t.Error(err)
		}
		resp.Body.Close()
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		resp, err := roundTrip(t, s, request(t, ctx, "GET", "/api/v1/pods?watch=true&resourceVersion=1", nil))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := io.ReadAll(resp.Body); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		resp.Body.Close()
		if _, err := roundTrip(t, s, request(t, ctx, "GET", "/api/v1/pods", nil)); err == nil {
			t.Log("a cancelled request was fast enough to be answered")
		}
	})
	t.Run("upgraded", func(t *testing.T) {
		req := request(t, ctx, "GET", "/api/v1/namespaces?watch=true", nil)
		for k, v := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		} {
			req.Header.Set(k, v)
		}
		resp, err := roundTrip(t, s, req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusSwitchingProtocols || !websocket.IsWebSocketUpgrade(req) {
			t.Fatalf("got %d", resp.StatusCode)
		}
		conn, ok := resp.Body.(io.ReadWriteCloser)
		if !ok {
			t.Fatalf("body is a %T", resp.Body)
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil || !bytes.Contains(buf[:n], []byte(`"ADDED"`)) {
			t.Errorf("%v %q", err, buf[:n])
		}
		conn.Close()
	})
}

// Watches and half-read answers, over TLS and in memory, do not keep a server from stopping at once.
func TestStopsAtOnce(t *testing.T) {
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := apiserver.New(st, listening())
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s, func() { st.Close() })
	remote, _ := overTLS(t, s, apiserver.Admin)
	memory := clientFor(t, s.RESTConfig(apiserver.Admin))
	for _, cs := range []*kubernetes.Clientset{remote, memory} {
		for range 20 {
			w, err := cs.CoreV1().Namespaces().Watch(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
		}
	}
	begin := time.Now()
	stop()
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("stopping took %v", d)
	}
}

// A server answers on all its listeners, under all its names.
func TestListeners(t *testing.T) {
	o := apiserver.Options{Listen: []string{"127.0.0.1:0", "127.0.0.2:0"}, ServerNames: []string{"api.example.com"}}
	s := start(t, o)
	_, cfg := overTLS(t, s, apiserver.Admin)
	for _, name := range []string{"", "api.example.com", "kubernetes.default.svc", "10.96.0.1", "localhost", "127.0.0.2"} {
		c := rest.CopyConfig(cfg)
		c.ServerName = name
		if _, err := clientFor(t, c).Discovery().ServerVersion(); err != nil {
			t.Errorf("as %q: %v", name, err)
		}
	}
	c := rest.CopyConfig(cfg)
	c.ServerName = "evil.example.com"
	if _, err := clientFor(t, c).Discovery().ServerVersion(); err == nil {
		t.Error("the certificate is good for a name that is not the server's")
	}
}

func TestOpenAPI(t *testing.T) {
	s := start(t, apiserver.Options{})
	cs := clientFor(t, s.RESTConfig(apiserver.Admin))
	doc, err := cs.Discovery().OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(doc.Paths.Path); n < 150 {
		t.Errorf("v2 document has %d paths", n)
	}
	paths, err := cs.Discovery().OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	lists, err := cs.Discovery().ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lists {
		p := "apis/" + l.GroupVersion
		if !strings.Contains(l.GroupVersion, "/") {
			p = "api/" + l.GroupVersion
		}
		gv, ok := paths[p]
		if !ok {
			t.Errorf("%s has no document", l.GroupVersion)
			continue
		}
		for _, ct := range []string{"application/json", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"} {
			if b, err := gv.Schema(ct); err != nil || len(b) < 1000 {
				t.Errorf("%s as %s: %v, %d bytes", p, ct, err, len(b))
			}
		}
	}
}
