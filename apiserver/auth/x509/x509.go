package x509

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/clock"
)

// credentialID is the extra under which Kubernetes tells which credential was used.
const credentialID = "authentication.kubernetes.io/credential-id"

// Options of an Authenticator.
type Options struct {
	// Clock against which certificates expire. Default the real clock.
	Clock clock.PassiveClock
}

// verifiedMax bounds the certificates whose verification is remembered.
const verifiedMax = 1024

// Authenticator verifies client certificates against a pool of authorities. A chain's signatures are checked once,
// its period of validity on every request, so a certificate that expires during a connection stops
// working. A request without a certificate is not its business.
type Authenticator struct {
	roots *x509.CertPool
	clock clock.PassiveClock

	mu       sync.RWMutex
	verified map[[sha256.Size]byte]verified
}

type verified struct {
	response            *authenticator.Response
	notBefore, notAfter time.Time
}

var _ authenticator.Request = (*Authenticator)(nil)

// New returns an authenticator that trusts roots.
func New(roots *x509.CertPool, opts Options) (*Authenticator, error) {
	if roots == nil {
		return nil, fmt.Errorf("x509: expected a pool of trusted authorities")
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return &Authenticator{roots: roots, clock: opts.Clock, verified: map[[sha256.Size]byte]verified{}}, nil
}

// AuthenticateRequest returns the certificate's user, false if there is no certificate, and an error if it is
// not to be trusted.
func (a *Authenticator) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	leaf := r.TLS.PeerCertificates[0]
	now := a.clock.Now()
	sum := sha256.Sum256(leaf.Raw)
	a.mu.RLock()
	v, ok := a.verified[sum]
	a.mu.RUnlock()
	if ok && !now.Before(v.notBefore) && !now.After(v.notAfter) {
		return v.response, true, nil
	}
	opts := x509.VerifyOptions{
		Roots:         a.roots,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range r.TLS.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(opts)
	if err != nil {
		return nil, false, fmt.Errorf("verifying certificate SN=%d failed: %w", leaf.SerialNumber, err)
	}
	if leaf.Subject.CommonName == "" {
		return nil, false, nil
	}
	v = verified{notBefore: leaf.NotBefore, notAfter: leaf.NotAfter, response: &authenticator.Response{User: &user.DefaultInfo{
		Name:   leaf.Subject.CommonName,
		Groups: leaf.Subject.Organization,
		Extra:  map[string][]string{credentialID: {"X509SHA256=" + hex.EncodeToString(sum[:])}},
	}}}
	for _, c := range chains[0] {
		if c.NotBefore.After(v.notBefore) {
			v.notBefore = c.NotBefore
		}
		if c.NotAfter.Before(v.notAfter) {
			v.notAfter = c.NotAfter
		}
	}
	a.mu.Lock()
	if len(a.verified) >= verifiedMax {
		clear(a.verified)
	}
	a.verified[sum] = v
	a.mu.Unlock()
	return v.response, true, nil
}
