package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/apps"
	"github.com/keelson/keelson/apiserver/kinds/batch"
	"github.com/keelson/keelson/apiserver/kinds/coordination"
	"github.com/keelson/keelson/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bearer authenticates "Bearer NAME" as the user NAME.
type bearer struct{}

func (bearer) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, false, nil
	}
	if name == "bad" {
		return nil, false, io.ErrUnexpectedEOF
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, true, nil
}

// rules allows everything to "admin", impersonation of "alice" to "bob", and what is listed as "verb resource".
type rules map[string]bool

func (rules) allow() authorizer.Decision { return authorizer.DecisionAllow }

func (r rules) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	u := a.GetUser().GetName()
	what := a.GetResource()
	if s := a.GetSubresource(); s != "" {
		what += "/" + s
	}
	if !a.IsResourceRequest() {
		what = a.GetPath()
	}
	if u == "admin" || r[u+" "+a.GetVerb()+" "+what] || r[u+" "+a.GetVerb()+" "+what+" "+a.GetName()] {
		return r.allow(), "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

type fixture struct {
	*httptest.Server
	handler *Handler
	core    *core.Core
}

func serve(t testing.TB, change func(*Options)) *fixture {
	t.Helper()
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	groups := []kind.Group{apps.Group(), batch.Group(), coordination.Group()}
	c, err := core.New(core.Options{Store: st, Groups: groups})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	o := Options{Core: c, Authenticator: bearer{}, Metrics: prometheus.NewRegistry()}
	if change != nil {
		change(&o)
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		h.StopStreams()
		s.Close()
		cancel()
		<-done
		st.Close()
	})
	ready, ok := context.WithTimeout(ctx, 10*time.Second)
	defer ok()
	if err := c.WaitReady(ready); err != nil {
		t.Fatal(err)
	}
	return &fixture{Server: s, handler: h, core: c}
}

func (f *fixture) client(t testing.TB, contentType string) kubernetes.Interface {
	t.Helper()
	cfg := &rest.Config{Host: f.URL, BearerToken: "admin", QPS: -1, ContentConfig: rest.ContentConfig{ContentType: contentType}}
	cs, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cs.CoreV1().RESTClient().(*rest.RESTClient).Client.CloseIdleConnections() })
	return cs
}

// do sends a request as admin; headers are NAME, VALUE pairs.
func (f *fixture) do(t testing.TB, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, f.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer admin")
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := f.Client().Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}
