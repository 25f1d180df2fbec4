package certificates

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/view"
)

// Options configures a Controller.
type Options struct {
	controller.Common
	// CA and Key sign; both are required.
	CA  *x509.Certificate
	Key crypto.Signer
	// Duration is how long certificates are valid at most; 0 means a year.
	Duration time.Duration
	// ApproveKubeletServing approves serving certificates that a node asks for
	// itself, for addresses its Node object has. Kubernetes leaves these to the
	// operator: who can write a Node's addresses decides what is signed.
	ApproveKubeletServing bool
}

// Controller reconciles CertificateSigningRequests.
type Controller struct {
	client client.WithWatch
	opts   Options
	runner *controller.Runner
	csrs   *view.View[*certificatesv1.CertificateSigningRequest]
}

// signers are those this controller signs for.
var signers = []string{
	certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeAPIServerClientKubeletSignerName,
	certificatesv1.KubeletServingSignerName, "kubernetes.io/legacy-unknown",
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	switch {
	case o.CA == nil || !o.CA.IsCA:
		return nil, errors.New("certificates: Options.CA is no certificate authority")
	case o.Key == nil:
		return nil, errors.New("certificates: Options.Key is nil, expected the authority's key")
	case o.Duration < 0:
		return nil, fmt.Errorf("certificates: Options.Duration is %v, expected a positive duration, or 0 for the default", o.Duration)
	}
	if o.Duration == 0 {
		o.Duration = 365 * 24 * time.Hour
	}
	ctl := &Controller{client: c, opts: o}
	r, err := controller.New("certificate", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "certificate-controller",
		Setup:     func(ctx context.Context) error { return ctl.csrs.Start(ctx) },
		Sources:   []controller.Source{controller.For(&certificatesv1.CertificateSigningRequest{})},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.csrs = view.New(c, cc, &certificatesv1.CertificateSigningRequest{})
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func condition(csr *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequestCondition {
	for i := range csr.Status.Conditions {
		if csr.Status.Conditions[i].Type == t {
			return &csr.Status.Conditions[i]
		}
	}
	return nil
}

// Reconcile approves, signs or deletes one request.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	cached, err := c.csrs.Get(ctx, "", req.Name)
	if err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	now := c.runner.Clock().Now()
	left := expiry(cached).Sub(now)
	if left <= 0 {
		err := c.client.Delete(ctx, cached, client.Preconditions{UID: &cached.UID})
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	res := controller.Result{RequeueAfter: left}
	if len(cached.Status.Certificate) > 0 || condition(cached, certificatesv1.CertificateDenied) != nil || condition(cached, certificatesv1.CertificateFailed) != nil ||
		!slices.Contains(signers, cached.Spec.SignerName) {
		return res, nil
	}
	csr := cached.DeepCopy()
	r, err := parse(csr)
	if err == nil {
		err = check(csr, r)
	}
	approved := condition(csr, certificatesv1.CertificateApproved) != nil
	switch {
	case !approved && err != nil:
		return res, nil // left to the operator, who may see more in it
	case !approved:
		err := c.approve(ctx, csr, r)
		if errors.Is(err, errNotYet) {
			// Twice as long from time to time, while the request waits.
			age := now.Sub(csr.CreationTimestamp.Time)
			return controller.Result{RequeueAfter: min(max(age, 500*time.Millisecond), 5*time.Minute, left)}, nil
		}
		return res, client.IgnoreNotFound(err)
	case err != nil:
		csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: err.Error(),
			LastUpdateTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now),
		})
	default:
		if csr.Status.Certificate, err = c.sign(csr, r, now); err != nil {
			return res, fmt.Errorf("signing %s: %w", csr.Name, err)
		}
	}
	return res, client.IgnoreNotFound(c.client.Status().Update(ctx, csr))
}

// expiry is when a request is deleted: done ones after an hour, those that wait
// after a day.
func expiry(csr *certificatesv1.CertificateSigningRequest) time.Time {
	end := csr.CreationTimestamp.Add(24 * time.Hour)
	for _, cond := range csr.Status.Conditions {
		if t := cond.LastUpdateTime.Add(time.Hour); !cond.LastUpdateTime.IsZero() && t.Before(end) {
			end = t
		}
	}
	return end
}

// approve approves what this controller may: kubelets' certificates.
func (c *Controller) approve(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, r *x509.CertificateRequest) error {
	self := csr.Spec.Username == r.Subject.CommonName
	switch csr.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		subresource, what := "nodeclient", "kubelet client"
		if self {
			subresource, what = "selfnodeclient", "self kubelet client"
		}
		allowed, err := c.allowed(ctx, csr, subresource)
		if err != nil || !allowed {
			return err
		}
		return c.setApproved(ctx, csr, fmt.Sprintf("Auto approving %s certificate after SubjectAccessReview.", what))
	case certificatesv1.KubeletServingSignerName:
		if !c.opts.ApproveKubeletServing || !self {
			return nil
		}
		n := &corev1.Node{}
		if err := c.client.Get(ctx, client.ObjectKey{Name: strings.TrimPrefix(r.Subject.CommonName, nodePrefix)}, n); client.IgnoreNotFound(err) != nil {
			return err
		}
		if !hasNames(n, r) {
			return errNotYet
		}
		return c.setApproved(ctx, csr, "Auto approving kubelet serving certificate for addresses of its Node.")
	}
	return nil
}

// errNotYet has a request looked at again: a kubelet may ask before it has made its Node and given it addresses.
var errNotYet = errors.New("the Node does not have all names and addresses that are asked for")

func hasNames(n *corev1.Node, r *x509.CertificateRequest) bool {
	have := map[string]bool{}
	for _, a := range n.Status.Addresses {
		have[a.Address] = true
	}
	for _, name := range r.DNSNames {
		if !have[name] {
			return false
		}
	}
	for _, ip := range r.IPAddresses {
		if !have[ip.String()] {
			return false
		}
	}
	return true
}

func (c *Controller) allowed(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, subresource string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range csr.Spec.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: csr.Spec.Username, UID: csr.Spec.UID, Groups: csr.Spec.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: certificatesv1.GroupName, Resource: "certificatesigningrequests", Verb: "create", Version: "*", Subresource: subresource,
		},
	}}
	if err := c.client.Create(ctx, review); err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

func (c *Controller) setApproved(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, message string) error {
	now := metav1.NewTime(c.runner.Clock().Now())
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: message, LastUpdateTime: now, LastTransitionTime: now,
	})
	return c.client.SubResource("approval").Update(ctx, csr)
}
