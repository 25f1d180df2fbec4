package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"slices"
	"sync"
	"time"
)

// KeyPair is a certificate and its private key, PEM encoded.
type KeyPair struct {
	CertificatePEM, KeyPEM []byte
}

// TLS returns the pair as crypto/tls uses it.
func (p KeyPair) TLS() (tls.Certificate, error) { return tls.X509KeyPair(p.CertificatePEM, p.KeyPEM) }

// Request says what to sign.
type Request struct {
	Subject pkix.Name
	// Hosts are names and addresses of a serving certificate.
	Hosts []string
	// Usages default to client authentication.
	Usages []x509.ExtKeyUsage
	// Lifetime defaults to Options.LeafLifetime and never goes beyond the authority's own end.
	Lifetime time.Duration
}

// Sign returns the certificate, PEM encoded, of another's public key.
func (a *Authority) Sign(pub crypto.PublicKey, r Request) ([]byte, error) {
	now := a.opts.Clock.Now()
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	if r.Lifetime <= 0 {
		r.Lifetime = a.opts.LeafLifetime
	}
	notAfter := now.Add(r.Lifetime)
	if notAfter.After(a.cert.NotAfter) {
		notAfter = a.cert.NotAfter
	}
	notBefore := now.Add(-backdate)
	if notBefore.Before(a.cert.NotBefore) {
		notBefore = a.cert.NotBefore
	}
	usages := r.Usages
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	names, ips := splitHosts(r.Hosts)
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               r.Subject,
		DNSNames:              names,
		IPAddresses:           ips,
		NotBefore:             notBefore.UTC(),
		NotAfter:              notAfter.UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usages,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("ca: sign certificate of %q: %w", r.Subject.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// Issue makes a key and its certificate.
func (a *Authority) Issue(r Request) (KeyPair, error) {
	key, err := newKey()
	if err != nil {
		return KeyPair{}, err
	}
	return a.issue(key, r)
}

func (a *Authority) issue(key *ecdsa.PrivateKey, r Request) (KeyPair, error) {
	cert, err := a.Sign(key.Public(), r)
	if err != nil {
		return KeyPair{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return KeyPair{}, err
	}
	return KeyPair{CertificatePEM: cert, KeyPEM: keyPEM}, nil
}

// Client returns the client certificate of a user or component: its name is the certificate's common
// name, its groups are the organizations, as Kubernetes reads them.
func (a *Authority) Client(user string, groups ...string) (KeyPair, error) {
	if user == "" {
		return KeyPair{}, fmt.Errorf("ca: client certificate: expected a user name")
	}
	return a.Issue(Request{Subject: pkix.Name{CommonName: user, Organization: slices.Clone(groups)}})
}

// Kubelet returns the client certificate of a node's kubelet: user system:node:NODE of group system:nodes.
func (a *Authority) Kubelet(node string) (KeyPair, error) {
	if node == "" {
		return KeyPair{}, fmt.Errorf("ca: kubelet certificate: expected a node name")
	}
	return a.Client("system:node:"+node, "system:nodes")
}

// Serving returns a serving certificate for hosts, names and addresses alike.
func (a *Authority) Serving(name string, hosts ...string) (KeyPair, error) {
	return a.Issue(Request{
		Subject: pkix.Name{CommonName: name},
		Hosts:   hosts,
		Usages:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// ServingTLS returns a function for tls.Config.GetCertificate. The certificate is made on first use and
// renewed after two thirds of its life, so a server may run for longer than a certificate lives.
func (a *Authority) ServingTLS(name string, hosts ...string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	get := a.renewed(func() (KeyPair, error) { return a.Serving(name, hosts...) })
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return get() }
}

// ClientTLS is ServingTLS for tls.Config.GetClientCertificate.
func (a *Authority) ClientTLS(user string, groups ...string) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	get := a.renewed(func() (KeyPair, error) { return a.Client(user, groups...) })
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return get() }
}

func (a *Authority) renewed(issue func() (KeyPair, error)) func() (*tls.Certificate, error) {
	var mu sync.Mutex
	var current *tls.Certificate
	var renew time.Time
	return func() (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		now := a.opts.Clock.Now()
		if current != nil && now.Before(renew) {
			return current, nil
		}
		pair, err := issue()
		if err != nil {
			return nil, err
		}
		cert, err := pair.TLS()
		if err != nil {
			return nil, err
		}
		if cert.Leaf == nil {
			if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
				return nil, err
			}
		}
		current, renew = &cert, now.Add(cert.Leaf.NotAfter.Sub(now)*2/3)
		return current, nil
	}
}
