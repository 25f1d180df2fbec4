package stock

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/keelson/keelson/apiserver/auth/ca"
)

// ServiceCIDR is the range of the Services of an APIServer.
const ServiceCIDR = "10.96.0.0/16"

// APIServerOptions of APIServer.
type APIServerOptions struct {
	// Etcd are the URLs of the etcd to use; without any, one of its own is started.
	Etcd []string
	// EtcdCA, EtcdCert and EtcdKey are files for an etcd with TLS.
	EtcdCA, EtcdCert, EtcdKey string
	// Dir keeps certificates, keys and logs; with the directory of an earlier server its
	// service account tokens remain valid. Empty is a new one that goes with the test.
	Dir string
	// Args come behind the arguments that it has otherwise, so that they win.
	Args []string
}

// Server is a kube-apiserver: TLS, authorization by Node and RBAC, the admission plugins that
// are enabled by default, service account tokens, no controllers.
type Server struct {
	*Process
	// Config is that of an administrator, who is in system:masters.
	Config *rest.Config
	// Kubeconfig is a file that says the same as Config.
	Kubeconfig string
	// CA signs the certificates of clients that the server believes.
	CA *ca.Authority
	// Etcd is the etcd that was started for the server, if one was.
	Etcd *Etcd
}

// APIServer starts a kube-apiserver that lives until the test ends.
func APIServer(t testing.TB, opts APIServerOptions) *Server {
	t.Helper()
	s := &Server{}
	if len(opts.Etcd) == 0 {
		s.Etcd = StartEtcd(t, EtcdOptions{})
		opts.Etcd = []string{s.Etcd.URL}
	}
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	authority, err := ca.New(ca.Options{Dir: opts.Dir})
	if err != nil {
		t.Fatal(err)
	}
	s.CA = authority
	serving, err := authority.Serving("kube-apiserver", "127.0.0.1", "localhost", "kubernetes", "kubernetes.default.svc", "10.96.0.1")
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(opts.Dir, name) }
	writeFile(t, file("apiserver.crt"), serving.CertificatePEM)
	writeFile(t, file("apiserver.key"), serving.KeyPEM)
	port := FreePort(t)
	url := "https://127.0.0.1:" + strconv.Itoa(port)
	if s.Config, err = s.clientConfig(url, "kubernetes-admin", "system:masters"); err != nil {
		t.Fatal(err)
	}
	s.Kubeconfig = file("admin.kubeconfig")
	WriteKubeconfig(t, s.Kubeconfig, s.Config)
	args := []string{
		"--etcd-servers=" + strings.Join(opts.Etcd, ","),
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(port),
		"--advertise-address=192.0.2.1", // not loopback, which may not be an endpoint of a Service
		"--tls-cert-file=" + file("apiserver.crt"), "--tls-private-key-file=" + file("apiserver.key"),
		"--client-ca-file=" + file(ca.CertificateFile),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + file(ca.ServiceAccountKeyFile),
		"--service-account-signing-key-file=" + file(ca.ServiceAccountKeyFile),
		"--service-cluster-ip-range=" + ServiceCIDR,
		"--authorization-mode=Node,RBAC", "--allow-privileged=true",
	}
	for flag, value := range map[string]string{"cafile": opts.EtcdCA, "certfile": opts.EtcdCert, "keyfile": opts.EtcdKey} {
		if value != "" {
			args = append(args, "--etcd-"+flag+"="+value)
		}
	}
	s.Process = start(t, KubeAPIServer, opts.Dir, append(args, opts.Args...), url, answers(s.Config, url+"/readyz"))
	return s
}

// ConfigFor returns the client configuration of a user whom the server knows by a certificate.
func (s *Server) ConfigFor(t testing.TB, user string, groups ...string) *rest.Config {
	t.Helper()
	cfg, err := s.clientConfig(s.Config.Host, user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func (s *Server) clientConfig(url, user string, groups ...string) (*rest.Config, error) {
	pair, err := s.CA.Client(user, groups...)
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host: url, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: s.CA.CertificatePEM(), CertData: pair.CertificatePEM, KeyData: pair.KeyPEM},
	}, nil
}

// WriteKubeconfig writes what a client configuration says to a file.
func WriteKubeconfig(t testing.TB, file string, cfg *rest.Config) {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["stock"] = &clientcmdapi.Cluster{
		Server: cfg.Host, CertificateAuthorityData: cfg.CAData, CertificateAuthority: cfg.CAFile, InsecureSkipTLSVerify: cfg.Insecure,
	}
	c.AuthInfos["user"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData, ClientCertificate: cfg.CertFile, ClientKey: cfg.KeyFile,
		Token: cfg.BearerToken, TokenFile: cfg.BearerTokenFile, Username: cfg.Username, Password: cfg.Password,
	}
	c.Contexts["stock"] = &clientcmdapi.Context{Cluster: "stock", AuthInfo: "user"}
	c.CurrentContext = "stock"
	if err := clientcmd.WriteToFile(*c, file); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t testing.TB, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// answers returns a check that a GET of url gives 200. It leaves no connection behind.
func answers(cfg *rest.Config, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		tlsConfig := &tls.Config{InsecureSkipVerify: true} // for components that sign their certificates themselves
		if cfg != nil && len(cfg.CAData) > 0 {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(cfg.CAData)
			pair, err := tls.X509KeyPair(cfg.CertData, cfg.KeyData)
			if err != nil {
				return err
			}
			tlsConfig = &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s: %s", url, res.Status, body)
		}
		return err
	}
}
