package certificates

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	certificatekinds "github.com/keelson/keelson/apiserver/kinds/certificates"
)

// Names of the plugins.
const (
	ApprovalName           = "CertificateApproval"
	SigningName            = "CertificateSigning"
	SubjectRestrictionName = "CertificateSubjectRestriction"
)

// Plugin implements admission.ValidationInterface.
type Plugin struct {
	*admission.Handler
	check func(context.Context, admission.Attributes, *csr) error
}

type csr = certificatesv1.CertificateSigningRequest

var _ admission.ValidationInterface = (*Plugin)(nil)

// NewApproval returns the plugin CertificateApproval.
func NewApproval(a authorizer.UnconditionalAuthorizer) (*Plugin, error) {
	if a == nil {
		return nil, errors.New("certificates: authorizer: expected one, got nil")
	}
	return &Plugin{Handler: admission.NewHandler(admission.Update), check: func(ctx context.Context, attrs admission.Attributes, _ *csr) error {
		old, ok := attrs.GetOldObject().(*csr)
		if !ok || attrs.GetSubresource() != "approval" {
			return nil
		}
		if !allowed(ctx, a, attrs.GetUserInfo(), "approve", old.Spec.SignerName) {
			return admission.NewForbidden(attrs, fmt.Errorf("user not permitted to approve requests with signerName %q", old.Spec.SignerName))
		}
		return nil
	}}, nil
}

// NewSigning returns the plugin CertificateSigning.
func NewSigning(a authorizer.UnconditionalAuthorizer) (*Plugin, error) {
	if a == nil {
		return nil, errors.New("certificates: authorizer: expected one, got nil")
	}
	failed := func(c *csr) int {
		return slices.IndexFunc(c.Status.Conditions, func(x certificatesv1.CertificateSigningRequestCondition) bool {
			return x.Type == certificatesv1.CertificateFailed
		})
	}
	return &Plugin{Handler: admission.NewHandler(admission.Update), check: func(ctx context.Context, attrs admission.Attributes, c *csr) error {
		old, ok := attrs.GetOldObject().(*csr)
		if !ok || attrs.GetSubresource() != "status" {
			return nil
		}
		if slices.Equal(old.Status.Certificate, c.Status.Certificate) && (failed(old) >= 0) == (failed(c) >= 0) {
			return nil
		}
		if !allowed(ctx, a, attrs.GetUserInfo(), "sign", old.Spec.SignerName) {
			return admission.NewForbidden(attrs, fmt.Errorf("user not permitted to sign requests with signerName %q", old.Spec.SignerName))
		}
		return nil
	}}, nil
}

// NewSubjectRestriction returns the plugin CertificateSubjectRestriction.
func NewSubjectRestriction() *Plugin {
	return &Plugin{Handler: admission.NewHandler(admission.Create), check: func(_ context.Context, attrs admission.Attributes, c *csr) error {
		if attrs.GetSubresource() != "" || c.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
			return nil
		}
		request, err := certificatekinds.ParseRequest(c.Spec.Request)
		if err != nil {
			return admission.NewForbidden(attrs, fmt.Errorf("failed to parse CSR: %w", err))
		}
		if slices.Contains(request.Subject.Organization, user.SystemPrivilegedGroup) {
			return admission.NewForbidden(attrs, fmt.Errorf("use of %s signer with %s group is not allowed", certificatesv1.KubeAPIServerClientSignerName, user.SystemPrivilegedGroup))
		}
		return nil
	}}
}

// Validate implements admission.ValidationInterface.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if r := a.GetResource(); r.Group != certificatesv1.GroupName || r.Resource != "certificatesigningrequests" {
		return nil
	}
	c, ok := a.GetObject().(*csr)
	if !ok {
		return admission.NewForbidden(a, fmt.Errorf("expected type CertificateSigningRequest, got: %T", a.GetObject()))
	}
	return p.check(ctx, a, c)
}

// allowed asks for the signer by name, and then for all signers of its domain.
func allowed(ctx context.Context, a authorizer.UnconditionalAuthorizer, u user.Info, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		decision, _, err := a.Authorize(ctx, authorizer.AttributesRecord{
			User: u, Verb: verb, Name: name, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", ResourceRequest: true,
		})
		if err == nil && decision == authorizer.DecisionAllow {
			return true
		}
	}
	return false
}
