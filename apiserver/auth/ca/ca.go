package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/utils/clock"
)

// Names of the files in Options.Dir.
const (
	CertificateFile       = "ca.crt"
	KeyFile               = "ca.key"
	ServiceAccountKeyFile = "sa.key"
)

// backdate lets machines whose clocks are behind use a new certificate at once.
const backdate = 5 * time.Minute

// Options of an Authority. The zero value keeps everything in memory.
type Options struct {
	// Dir is where the authority's certificate and keys are kept; it is made if missing. Empty keeps them in memory.
	Dir string
	// CommonName of the authority's certificate. Default "kubernetes".
	CommonName string
	// Lifetime of the authority's own certificate. Default ten years.
	Lifetime time.Duration
	// LeafLifetime is that of the certificates it signs. Default one year.
	LeafLifetime time.Duration
	// Clock gives the time certificates start from. Default the real clock.
	Clock clock.PassiveClock
}

func (o Options) withDefaults() Options {
	if o.CommonName == "" {
		o.CommonName = "kubernetes"
	}
	if o.Lifetime == 0 {
		o.Lifetime = 10 * 365 * 24 * time.Hour
	}
	if o.LeafLifetime == 0 {
		o.LeafLifetime = 365 * 24 * time.Hour
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return o
}

func (o Options) validate() error {
	if o.Lifetime < 0 {
		return fmt.Errorf("ca: Options.Lifetime: %v: expected a positive duration", o.Lifetime)
	}
	if o.LeafLifetime < 0 || o.LeafLifetime > o.Lifetime {
		return fmt.Errorf("ca: Options.LeafLifetime: %v: expected a positive duration of at most Lifetime (%v)", o.LeafLifetime, o.Lifetime)
	}
	return nil
}

// Authority signs certificates. Its methods may be called from any goroutine.
type Authority struct {
	opts    Options
	cert    *x509.Certificate
	certPEM []byte
	key     *ecdsa.PrivateKey
	saKey   *ecdsa.PrivateKey
}

// New returns the authority kept in Options.Dir, which it makes if there is none. A directory with
// a certificate but no key, or with files that do not belong together, is an error and left as it is.
func New(opts Options) (*Authority, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	a := &Authority{opts: opts}
	if opts.Dir == "" {
		if err := a.generate(); err != nil {
			return nil, err
		}
		return a, nil
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if err := a.load(); err != nil {
		return nil, fmt.Errorf("ca: %s: %w", opts.Dir, err)
	}
	return a, nil
}

func (a *Authority) generate() error {
	var err error
	if a.key, err = newKey(); err != nil {
		return err
	}
	if a.saKey, err = newKey(); err != nil {
		return err
	}
	return a.selfSign()
}

func (a *Authority) selfSign() error {
	now := a.opts.Clock.Now()
	serial, err := newSerial()
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: a.opts.CommonName},
		DNSNames:              []string{a.opts.CommonName},
		NotBefore:             now.Add(-backdate).UTC(),
		NotAfter:              now.Add(a.opts.Lifetime).UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("ca: sign own certificate: %w", err)
	}
	return a.setCertificate(der)
}

func (a *Authority) setCertificate(der []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	a.cert, a.certPEM = cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return nil
}

func (a *Authority) load() error {
	certFile, keyFile := filepath.Join(a.opts.Dir, CertificateFile), filepath.Join(a.opts.Dir, KeyFile)
	certPEM, err := os.ReadFile(certFile)
	haveCert := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if a.key, err = loadKey(keyFile, !haveCert); err != nil {
		return err
	}
	if a.saKey, err = loadKey(filepath.Join(a.opts.Dir, ServiceAccountKeyFile), true); err != nil {
		return err
	}
	if !haveCert {
		// The key is written before the certificate, so a crash between the two is completed here.
		if err := a.selfSign(); err != nil {
			return err
		}
		return writeFile(certFile, a.certPEM, 0o644)
	}
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return fmt.Errorf("%s: no PEM block of type CERTIFICATE", CertificateFile)
	}
	if err := a.setCertificate(block.Bytes); err != nil {
		return fmt.Errorf("%s: %w", CertificateFile, err)
	}
	if !a.cert.IsCA {
		return fmt.Errorf("%s: not a certificate authority", CertificateFile)
	}
	if pub, ok := a.cert.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(a.key.Public()) {
		return fmt.Errorf("%s is not the certificate of %s", CertificateFile, KeyFile)
	}
	if now := a.opts.Clock.Now(); now.After(a.cert.NotAfter) {
		return fmt.Errorf("%s: expired on %s", CertificateFile, a.cert.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// Certificate returns the authority's own certificate; it is shared and must not be modified.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Key returns the authority's own key, for a signer of CertificateSigningRequests.
func (a *Authority) Key() crypto.Signer { return a.key }

// CertificatePEM returns the authority's certificate as clients put it into certificate-authority-data.
func (a *Authority) CertificatePEM() []byte { return append([]byte(nil), a.certPEM...) }

// Pool returns a pool that holds the authority's certificate alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// ServiceAccountKey returns the key that signs service-account tokens (ES256).
func (a *Authority) ServiceAccountKey() crypto.Signer { return a.saKey }

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("ca: generate key: %w", err)
	}
	return key, nil
}

func newSerial() (*big.Int, error) {
	// RFC 5280: positive and at most 20 octets.
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("ca: serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// splitHosts tells addresses from names and drops repetitions.
func splitHosts(hosts []string) (names []string, ips []net.IP) {
	seen := map[string]bool{}
	for _, h := range hosts {
		if h == "" || seen[h] {
			continue
		}
		seen[h] = true
		if ip := net.ParseIP(h); ip != nil {
			ips = append(ips, ip)
		} else {
			names = append(names, h)
		}
	}
	return names, ips
}
