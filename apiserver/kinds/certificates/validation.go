package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
)

const (
	legacySigner     = "kubernetes.io/legacy-unknown"
	minExpiration    = 600
	maxSignerPath    = 253 // of namespace and resource, and a dot
	signerNameLength = 253 + 1 + 63 + 1 + 253
)

// ParseRequest returns the PKCS#10 request in PEM data.
func ParseRequest(data []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

func knownUsages() []certificatesv1.KeyUsage {
	return []certificatesv1.KeyUsage{
		certificatesv1.UsageSigning, certificatesv1.UsageDigitalSignature, certificatesv1.UsageContentCommitment, certificatesv1.UsageKeyEncipherment,
		certificatesv1.UsageKeyAgreement, certificatesv1.UsageDataEncipherment, certificatesv1.UsageCertSign, certificatesv1.UsageCRLSign,
		certificatesv1.UsageEncipherOnly, certificatesv1.UsageDecipherOnly, certificatesv1.UsageAny, certificatesv1.UsageServerAuth,
		certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning, certificatesv1.UsageEmailProtection, certificatesv1.UsageSMIME,
		certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel, certificatesv1.UsageIPsecUser, certificatesv1.UsageTimestamping,
		certificatesv1.UsageOCSPSigning, certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC,
	}
}

func validate(c *csr) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if r, err := ParseRequest(c.Spec.Request); err != nil {
		errs = append(errs, field.Invalid(path.Child("request"), c.Spec.Request, fmt.Sprintf("%v", err)))
	} else if err := r.CheckSignature(); err != nil {
		errs = append(errs, field.Invalid(path.Child("request"), c.Spec.Request, fmt.Sprintf("%v", err)))
	}
	if len(c.Spec.Usages) == 0 {
		errs = append(errs, field.Required(path.Child("usages"), ""))
	}
	known := knownUsages()
	seen := map[certificatesv1.KeyUsage]bool{}
	for i, u := range c.Spec.Usages {
		if !slices.Contains(known, u) {
			sorted := slices.Clone(known)
			slices.Sort(sorted)
			errs = append(errs, field.NotSupported(path.Child("usages").Index(i), u, sorted))
		} else if seen[u] {
			errs = append(errs, field.Duplicate(path.Child("usages").Index(i), u))
		}
		seen[u] = true
	}
	if c.Spec.SignerName == legacySigner {
		errs = append(errs, field.Invalid(path.Child("signerName"), c.Spec.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, validateSignerName(c.Spec.SignerName, path.Child("signerName"))...)
	}
	if e := c.Spec.ExpirationSeconds; e != nil && *e < minExpiration {
		errs = append(errs, field.Invalid(path.Child("expirationSeconds"), *e, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return append(errs, validateStatus(c)...)
}

// validateSignerName accepts a domain of two labels at least, a slash, and labels joined by dots.
func validateSignerName(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	segments := strings.Split(name, "/")
	if len(segments) != 2 {
		return field.ErrorList{field.Invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	var errs field.ErrorList
	if len(name) > signerNameLength {
		errs = append(errs, field.TooLong(path, name, signerNameLength))
	}
	errs = append(errs, rules.Messages(validation.IsDNS1123Subdomain(segments[0]), segments[0], path)...)
	if len(strings.Split(segments[0], ".")) < 2 {
		errs = append(errs, field.Invalid(path, segments[0], "should be a domain with at least two segments separated by dots"))
	}
	if len(segments[1]) > maxSignerPath {
		errs = append(errs, field.TooLong(path, segments[1], maxSignerPath))
	}
	for _, label := range strings.Split(segments[1], ".") {
		for _, m := range validation.IsDNS1123Label(label) {
			errs = append(errs, field.Invalid(path, segments[1], fmt.Sprintf("validating label %q: %s", label, m)))
		}
	}
	return errs
}

func validateStatus(c *csr) field.ErrorList {
	path := field.NewPath("status", "conditions")
	var errs field.ErrorList
	seen := map[certificatesv1.RequestConditionType]bool{}
	for i, x := range c.Status.Conditions {
		at := path.Index(i)
		if x.Type == "" {
			errs = append(errs, field.Required(at.Child("type"), ""))
		}
		switch x.Type {
		case certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			if x.Status == "" {
				errs = append(errs, field.Required(at.Child("status"), ""))
			} else {
				errs = append(errs, rules.OneOf(x.Status, at.Child("status"), corev1.ConditionTrue)...)
			}
		default:
			if x.Status == "" {
				errs = append(errs, field.Required(at.Child("status"), ""))
			} else {
				errs = append(errs, rules.OneOf(x.Status, at.Child("status"), corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
			}
		}
		if seen[x.Type] {
			errs = append(errs, field.Duplicate(at.Child("type"), x.Type))
		}
		seen[x.Type] = true
	}
	if seen[certificatesv1.CertificateApproved] && seen[certificatesv1.CertificateDenied] {
		errs = append(errs, field.Invalid(path, certificatesv1.CertificateDenied, "Approved and Denied conditions are mutually exclusive"))
	}
	if len(c.Status.Certificate) > 0 {
		if err := checkCertificates(c.Status.Certificate); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("status", "certificate"), c.Status.Certificate, err.Error()))
		}
	}
	return errs
}

func checkCertificates(data []byte) error {
	blocks := 0
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) > 0 {
			return errors.New("no PEM block headers are permitted")
		}
		certificates, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return err
		}
		if len(certificates) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
		blocks++
	}
	if blocks == 0 {
		return errors.New("must contain at least one CERTIFICATE PEM block")
	}
	return nil
}

// validateUpdate has the rules of an update that may approve, or that may set the certificate.
func validateUpdate(approves, signs bool) func(c, old *csr) field.ErrorList {
	return func(c, old *csr) field.ErrorList {
		errs := validateStatus(c)
		path := field.NewPath("status")
		of := func(c *csr, t certificatesv1.RequestConditionType) (out []certificatesv1.CertificateSigningRequestCondition) {
			for _, x := range c.Status.Conditions {
				if x.Type == t {
					out = append(out, x)
				}
			}
			return out
		}
		for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
			before, now := of(old, t), of(c, t)
			decides := t != certificatesv1.CertificateFailed
			switch {
			case len(now) < len(before):
				errs = append(errs, field.Forbidden(path.Child("conditions"), fmt.Sprintf("updates may not remove a condition of type %q", t)))
			case len(now) > len(before):
				if decides && !approves {
					errs = append(errs, field.Forbidden(path.Child("conditions"), fmt.Sprintf("updates may not add a condition of type %q", t)))
				}
			case decides && !apiequality.Semantic.DeepEqual(before, now):
				errs = append(errs, field.Forbidden(path.Child("conditions"), fmt.Sprintf("updates may not modify a condition of type %q", t)))
			}
		}
		if !bytes.Equal(c.Status.Certificate, old.Status.Certificate) {
			switch {
			case len(old.Status.Certificate) > 0:
				errs = append(errs, field.Forbidden(path.Child("certificate"), "updates may not modify existing certificate content"))
			case !signs:
				errs = append(errs, field.Forbidden(path.Child("certificate"), "updates may not set certificate content"))
			}
		}
		return errs
	}
}
