package compose

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/go-logr/logr"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/certificate"
)

// Identity is what a node is known by: certificates that the cluster signs when the node asks for them, renewed before they expire.
type Identity struct {
	// Config is the node's own, as user system:node:NAME.
	Config *rest.Config
	// ServingCert is the kubelet's; there is none before the Node object has the addresses it is for.
	ServingCert func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// CA is whom the node trusts.
	CA *x509.CertPool
}

// Join asks for a node's certificates, for the first time with the rights of config, and keeps them in dir. Their renewal ends with ctx.
func Join(ctx context.Context, config *rest.Config, name string, ip netip.Addr, dir string, log logr.Logger) (*Identity, error) {
	if err := rest.LoadTLSFiles(config); err != nil {
		return nil, err
	}
	ctx = logr.NewContext(ctx, log.V(1))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	own := rest.AnonymousClientConfig(config)
	id := &Identity{Config: own, CA: x509.NewCertPool()}
	if !id.CA.AppendCertsFromPEM(config.CAData) {
		return nil, errors.New("the kubeconfig has no certificate authority")
	}
	request := func(kind, signer string, usage certificatesv1.KeyUsage, with *rest.Config, template x509.CertificateRequest) (certificate.Manager, certificate.FileStore, error) {
		store, err := certificate.NewFileStoreWithLogger(log.V(1), "kubelet-"+kind, dir, dir, "", "")
		if err != nil {
			return nil, nil, err
		}
		template.Subject = pkix.Name{CommonName: "system:node:" + name, Organization: []string{user.NodesGroup}}
		m, err := certificate.NewManager(&certificate.Config{
			Name: kind, Ctx: &ctx, SignerName: signer, Template: &template, CertificateStore: store,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, usage},
			ClientsetFn: func(current *tls.Certificate) (kubernetes.Interface, error) {
				if current != nil {
					return kubernetes.NewForConfig(own)
				}
				return kubernetes.NewForConfig(with)
			},
		})
		if err != nil {
			return nil, nil, err
		}
		m.Start()
		return m, store, nil
	}
	client, store, err := request("client", certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.UsageClientAuth, config, x509.CertificateRequest{})
	if err != nil {
		return nil, err
	}
	// Read again whenever it is renewed.
	own.CertFile, own.KeyFile = store.CurrentPath(), store.CurrentPath()
	issued, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("no certificate for node %s within a minute: does the kubeconfig permit to ask for it, and does the cluster's certificates controller run?", name))
	defer cancel()
	if err := Poll(issued, func() (bool, error) { return client.Current() != nil, nil }); err != nil {
		return nil, err
	}
	own.CertFile, own.KeyFile = store.CurrentPath(), store.CurrentPath()
	serving, _, err := request("serving", certificatesv1.KubeletServingSignerName, certificatesv1.UsageServerAuth, own, x509.CertificateRequest{
		DNSNames: []string{name}, IPAddresses: []net.IP{ip.AsSlice()},
	})
	if err != nil {
		return nil, err
	}
	id.ServingCert = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if cert := serving.Current(); cert != nil {
			return cert, nil
		}
		return nil, errors.New("the cluster has not signed the kubelet's serving certificate yet")
	}
	return id, nil
}
