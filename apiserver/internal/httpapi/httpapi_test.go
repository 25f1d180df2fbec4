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
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func (r rules) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(r.Authorize(ctx, a))
}

func (rules) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
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
	o := Options{Authenticator: bearer{}, Metrics: prometheus.NewRegistry()}
	if change != nil {
		change(&o)
	}
	copts := core.Options{Store: st, Groups: groups}
	if r, ok := o.Authorizer.(rules); ok {
		copts.Authorizer = r
	}
	c, err := core.New(copts)
	if err != nil {
		t.Fatal(err)
	}
	o.Core = c
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
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
	ready, ok := context.WithTimeout(ctx, time.Minute)
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
