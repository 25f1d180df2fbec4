package apiservertest_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/apiserver/apiservertest"
	"github.com/keelson/keelson/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The server answers as kube-apiserver does, but for what is known and said in COMPATIBILITY.md.
func TestAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for watches to end")
	}
	apiservertest.Run(t, serve(t), apiservertest.Options{Differences: known()})
}

func serve(t *testing.T) apiservertest.Server {
	t.Helper()
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := apiserver.New(st, apiserver.Options{Listen: []string{"127.0.0.1:0"}, Tokens: apiservertest.Users(), Enforced: []string{"networkpolicies", "horizontalpodautoscalers"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		st.Close()
	})
	ready, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	if err := s.WaitReady(ready); err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := s.AdminKubeconfig()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := rest.TLSConfigFor(rest.AnonymousClientConfig(admin))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig}
	t.Cleanup(transport.CloseIdleConnections)
	return apiservertest.Server{URL: s.URL(), Client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}
