package certificates

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// parse reads the request within a CSR.
func parse(csr *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	b, _ := pem.Decode(csr.Spec.Request)
	if b == nil || b.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	r, err := x509.ParseCertificateRequest(b.Bytes)
	if err != nil {
		return nil, err
	}
	return r, r.CheckSignature()
}

func noNames(r *x509.CertificateRequest) error {
	if len(r.DNSNames)+len(r.EmailAddresses)+len(r.IPAddresses)+len(r.URIs) > 0 {
		return errors.New("subject alternative names are not allowed")
	}
	return nil
}

func usages(have []certificatesv1.KeyUsage, required []certificatesv1.KeyUsage, optional ...certificatesv1.KeyUsage) error {
	for _, u := range required {
		if !slices.Contains(have, u) {
			return fmt.Errorf("usages did not match: %q is required", u)
		}
	}
	for _, u := range have {
		if !slices.Contains(required, u) && !slices.Contains(optional, u) {
			return fmt.Errorf("usages did not match: %q is not allowed", u)
		}
	}
	return nil
}

func nodeSubject(r *x509.CertificateRequest) error {
	if !slices.Equal(r.Subject.Organization, []string{"system:nodes"}) {
		return errors.New("subject organization is not system:nodes")
	}
	if !strings.HasPrefix(r.Subject.CommonName, nodePrefix) {
		return errors.New("subject common name does not begin with system:node:")
	}
	return nil
}

const nodePrefix = "system:node:"

// check applies the rules of a request's signer.
func check(csr *certificatesv1.CertificateSigningRequest, r *x509.CertificateRequest) error {
	const client, server, sign, encipher = certificatesv1.UsageClientAuth, certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment
	switch csr.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientSignerName:
		return usages(csr.Spec.Usages, []certificatesv1.KeyUsage{client}, sign, encipher)
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		return errors.Join(nodeSubject(r), noNames(r), usages(csr.Spec.Usages, []certificatesv1.KeyUsage{client, sign}, encipher))
	case certificatesv1.KubeletServingSignerName:
		err := errors.Join(nodeSubject(r), usages(csr.Spec.Usages, []certificatesv1.KeyUsage{server, sign}, encipher))
		if len(r.DNSNames)+len(r.IPAddresses) == 0 {
			err = errors.Join(err, errors.New("DNS or IP subjectAltName is required"))
		}
		if len(r.EmailAddresses)+len(r.URIs) > 0 {
			err = errors.Join(err, errors.New("email and URI subjectAltNames are not allowed"))
		}
		return err
	}
	return nil
}

var keyUsages = map[certificatesv1.KeyUsage]x509.KeyUsage{
	certificatesv1.UsageSigning: x509.KeyUsageDigitalSignature, certificatesv1.UsageDigitalSignature: x509.KeyUsageDigitalSignature,
	certificatesv1.UsageContentCommitment: x509.KeyUsageContentCommitment, certificatesv1.UsageKeyEncipherment: x509.KeyUsageKeyEncipherment,
	certificatesv1.UsageKeyAgreement: x509.KeyUsageKeyAgreement, certificatesv1.UsageDataEncipherment: x509.KeyUsageDataEncipherment,
	certificatesv1.UsageEncipherOnly: x509.KeyUsageEncipherOnly, certificatesv1.UsageDecipherOnly: x509.KeyUsageDecipherOnly,
}

var extendedUsages = map[certificatesv1.KeyUsage]x509.ExtKeyUsage{
	certificatesv1.UsageServerAuth: x509.ExtKeyUsageServerAuth, certificatesv1.UsageClientAuth: x509.ExtKeyUsageClientAuth,
	certificatesv1.UsageCodeSigning: x509.ExtKeyUsageCodeSigning, certificatesv1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageTimestamping: x509.ExtKeyUsageTimeStamping, certificatesv1.UsageOCSPSigning: x509.ExtKeyUsageOCSPSigning,
	certificatesv1.UsageSMIME: x509.ExtKeyUsageEmailProtection, certificatesv1.UsageAny: x509.ExtKeyUsageAny,
}

// backdate allows for clocks that run behind.
const backdate = 5 * time.Minute

// sign makes the certificate of a request, valid no longer than the authority's.
func (c *Controller) sign(csr *certificatesv1.CertificateSigningRequest, r *x509.CertificateRequest, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: r.Subject, DNSNames: r.DNSNames, IPAddresses: r.IPAddresses, EmailAddresses: r.EmailAddresses, URIs: r.URIs,
		BasicConstraintsValid: true, NotBefore: now.Add(-backdate),
	}
	for _, u := range csr.Spec.Usages {
		k, isKey := keyUsages[u]
		e, isExtended := extendedUsages[u]
		switch {
		case isKey:
			t.KeyUsage |= k
		case isExtended:
			t.ExtKeyUsage = append(t.ExtKeyUsage, e)
		default:
			return nil, fmt.Errorf("unrecognized key usage %q", u)
		}
	}
	life := c.opts.Duration
	if s := csr.Spec.ExpirationSeconds; s != nil {
		life = min(life, max(10*time.Minute, time.Duration(*s)*time.Second))
	}
	t.NotAfter = now.Add(life)
	if t.NotAfter.After(c.opts.CA.NotAfter) {
		t.NotAfter = c.opts.CA.NotAfter
	}
	if !now.Before(t.NotAfter) {
		return nil, errors.New("the signer has expired")
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.opts.CA, r.PublicKey, c.opts.Key)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return out.Bytes(), err
}
