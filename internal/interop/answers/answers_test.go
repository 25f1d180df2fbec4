package answers

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/keelson/keelson/apiserver/apiservertest"
	"github.com/keelson/keelson/internal/interop/stock"
)

var record = flag.Bool("record", false, "write the answers of kube-apiserver into apiserver/apiservertest")

func TestStockAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts kube-apiserver")
	}
	tokens := filepath.Join(t.TempDir(), "tokens.csv")
	var lines strings.Builder
	for token, u := range apiservertest.Users() {
		fmt.Fprintf(&lines, "%s,%s,%s", token, u.GetName(), u.GetUID())
		if g := u.GetGroups(); len(g) > 0 {
			fmt.Fprintf(&lines, ",%q", strings.Join(g, ","))
		}
		lines.WriteString("\n")
	}
	if err := os.WriteFile(tokens, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s := stock.APIServer(t, stock.APIServerOptions{Args: []string{
		"--token-auth-file=" + tokens, "--service-cluster-ip-range=10.96.0.0/12", "--enable-admission-plugins=NodeRestriction", "--kubelet-timeout=2s",
	}})
	tlsConfig, err := rest.TLSConfigFor(rest.AnonymousClientConfig(s.Config))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig}
	t.Cleanup(transport.CloseIdleConnections)
	o := apiservertest.Options{Settle: time.Second}
	if *record {
		o.Record = "../../../apiserver/apiservertest/testdata"
	}
	apiservertest.Run(t, apiservertest.Server{
		URL:    s.Config.Host,
		Client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, o)
}
