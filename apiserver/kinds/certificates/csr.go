package certificates

import (
	"context"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

// Options of the group.
type Options struct {
	// Clock stamps conditions. Default: the real one.
	Clock clock.PassiveClock
}

// Group returns the declarations of API group certificates.k8s.io.
func Group(opts Options) kind.Group {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return kind.Group{
		Name:        certificatesv1.GroupName,
		AddToScheme: certificatesv1.AddToScheme,
		Versions:    []string{"v1"},
		Kinds:       []*kind.Kind{signingRequest(opts)},
	}
}

type csr = certificatesv1.CertificateSigningRequest

func signingRequest(opts Options) *kind.Kind {
	return &kind.Kind{
		GVK:        certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"),
		Resource:   "certificatesigningrequests",
		Singular:   "certificatesigningrequest",
		ShortNames: []string{"csr"},

		PrepareForCreate: typed.Prepare(prepare),
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, c, old *csr) {
			c.Spec, c.Status, c.Generation = old.Spec, old.Status, old.Generation
		}),
		Validate:                 typed.Validate(validate),
		ValidateUpdate:           typed.ValidateUpdate(validateUpdate(false, false)),
		AllowUnconditionalUpdate: true,
		Status: &kind.Subresource{
			Prepare: typed.PrepareUpdate(func(_ context.Context, c, old *csr) {
				keepMeta(c, old)
				c.Spec = old.Spec
				keepConditions(c, old, certificatesv1.CertificateApproved)
				keepConditions(c, old, certificatesv1.CertificateDenied)
				opts.stamp(c)
			}),
			Validate: typed.ValidateUpdate(validateUpdate(false, true)),
		},
		Subresources: map[string]*kind.Subresource{"approval": {
			Prepare: typed.PrepareUpdate(func(_ context.Context, c, old *csr) {
				keepMeta(c, old)
				c.Spec = old.Spec
				conditions := c.Status.Conditions
				c.Status = old.Status
				c.Status.Conditions = conditions
				opts.stamp(c)
			}),
			Validate: typed.ValidateUpdate(validateUpdate(true, false)),
		}},
		Fields: map[string]func(client.Object) string{
			"spec.signerName": typed.Field(func(c *csr) string { return c.Spec.SignerName }),
		},
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Age(),
			table.Text("SignerName", certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc()["signerName"]),
			table.Text("Requestor", certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc()["request"]),
			table.Text("RequestedDuration", certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc()["expirationSeconds"]),
			table.Text("Condition", certificatesv1.CertificateSigningRequestStatus{}.SwaggerDoc()["conditions"]),
		},
		Row: typed.Row(func(c *csr, now time.Time) []any {
			signer, requested := "<none>", "<none>"
			if c.Spec.SignerName != "" {
				signer = c.Spec.SignerName
			}
			if c.Spec.ExpirationSeconds != nil {
				requested = duration.HumanDuration(time.Duration(*c.Spec.ExpirationSeconds) * time.Second)
			}
			return []any{c.Name, table.Since(c.CreationTimestamp, now), signer, c.Spec.Username, requested, conditionCell(c)}
		}),
	}
}

func conditionCell(c *csr) string {
	has := func(t certificatesv1.RequestConditionType) bool {
		return slices.ContainsFunc(c.Status.Conditions, func(x certificatesv1.CertificateSigningRequestCondition) bool { return x.Type == t })
	}
	cell := "Pending"
	switch {
	case has(certificatesv1.CertificateDenied):
		cell = "Denied"
	case has(certificatesv1.CertificateApproved):
		cell = "Approved"
	}
	if has(certificatesv1.CertificateFailed) {
		cell += ",Failed"
	}
	if len(c.Status.Certificate) > 0 {
		cell += ",Issued"
	}
	return cell
}

// prepare records who asks; nobody can ask in another's name, or with an approval.
func prepare(ctx context.Context, c *csr) {
	c.Spec.Username, c.Spec.UID, c.Spec.Groups, c.Spec.Extra = "", "", nil, nil
	if u, ok := request.UserFrom(ctx); ok {
		c.Spec.Username, c.Spec.UID, c.Spec.Groups = u.GetName(), u.GetUID(), slices.Clone(u.GetGroups())
		for k, v := range u.GetExtra() {
			if c.Spec.Extra == nil {
				c.Spec.Extra = map[string]certificatesv1.ExtraValue{}
			}
			c.Spec.Extra[k] = v
		}
	}
	c.Status = certificatesv1.CertificateSigningRequestStatus{}
}

// keepMeta undoes changes of metadata in a subresource, but of managed fields and the resource version.
func keepMeta(c, old *csr) {
	fields, version := c.ManagedFields, c.ResourceVersion
	c.ObjectMeta = *old.ObjectMeta.DeepCopy()
	c.ManagedFields, c.ResourceVersion = fields, version
}

// keepConditions puts the conditions of a type back in place of those that a status update brings.
func keepConditions(c, old *csr, t certificatesv1.RequestConditionType) {
	var before []certificatesv1.CertificateSigningRequestCondition
	for _, x := range old.Status.Conditions {
		if x.Type == t {
			before = append(before, x)
		}
	}
	n := 0
	for i := range c.Status.Conditions {
		if c.Status.Conditions[i].Type != t {
			continue
		}
		// Only a condition that says the same is replaced; validation refuses the others.
		if n < len(before) && c.Status.Conditions[i].Status == before[n].Status {
			c.Status.Conditions[i] = before[n]
		}
		n++
	}
	if n == 0 {
		c.Status.Conditions = append(before, c.Status.Conditions...)
	}
}

func (o Options) stamp(c *csr) {
	now := metav1.NewTime(o.Clock.Now()).Rfc3339Copy()
	for i := range c.Status.Conditions {
		x := &c.Status.Conditions[i]
		if x.LastUpdateTime.IsZero() {
			x.LastUpdateTime = now
		}
		if x.LastTransitionTime.IsZero() {
			x.LastTransitionTime = now
		}
	}
}
