package apiserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apiserver/pkg/authentication/user"
	clientcmdv1 "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"
)

// Kubeconfig returns a kubeconfig file for u, with a client certificate made for it and the address of the first
// listener, so Run must have begun to listen (WaitReady). u's UID and Extra have no place in a certificate.
func (s *Server) Kubeconfig(u user.Info) ([]byte, error) {
	url := s.URL()
	if url == "" {
		return nil, errors.New("apiserver: kubeconfig: the server listens nowhere, or not yet")
	}
	return s.KubeconfigFor(url, u)
}

// KubeconfigFor is Kubeconfig with another address of the server, https://HOST:PORT.
func (s *Server) KubeconfigFor(url string, u user.Info) ([]byte, error) {
	var groups []string
	for _, g := range u.GetGroups() {
		if g != user.AllAuthenticated {
			groups = append(groups, g)
		}
	}
	pair, err := s.ca.Client(u.GetName(), groups...)
	if err != nil {
		return nil, fmt.Errorf("apiserver: kubeconfig: %w", err)
	}
	context := u.GetName() + "@kubernetes"
	return yaml.Marshal(clientcmdv1.Config{
		APIVersion: "v1", Kind: "Config",
		Clusters: []clientcmdv1.NamedCluster{{Name: "kubernetes", Cluster: clientcmdv1.Cluster{
			Server: url, CertificateAuthorityData: s.ca.CertificatePEM(),
		}}},
		AuthInfos: []clientcmdv1.NamedAuthInfo{{Name: u.GetName(), AuthInfo: clientcmdv1.AuthInfo{
			ClientCertificateData: pair.CertificatePEM, ClientKeyData: pair.KeyPEM,
		}}},
		Contexts:       []clientcmdv1.NamedContext{{Name: context, Context: clientcmdv1.Context{Cluster: "kubernetes", AuthInfo: u.GetName()}}},
		CurrentContext: context,
	})
}

// AdminKubeconfig is Kubeconfig(Admin).
func (s *Server) AdminKubeconfig() ([]byte, error) { return s.Kubeconfig(Admin) }

// WriteKubeconfig writes Kubeconfig(u) to a file with mode 0600, in one step.
func (s *Server) WriteKubeconfig(file string, u user.Info) error {
	b, err := s.Kubeconfig(u)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("apiserver: kubeconfig: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".kubeconfig.*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("apiserver: kubeconfig: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // fails once it is renamed
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("apiserver: kubeconfig: %w", err)
	}
	return nil
}
