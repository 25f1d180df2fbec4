package tokens

import (
	"context"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

const (
	minLifetime     = 10 * 60
	maxLifetime     = 1 << 32
	defaultLifetime = 60 * 60
)

type ref struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid,omitempty"`
}

// private are Kubernetes' own claims.
type private struct {
	Namespace      string `json:"namespace,omitempty"`
	Node           *ref   `json:"node,omitempty"`
	Pod            *ref   `json:"pod,omitempty"`
	Secret         *ref   `json:"secret,omitempty"`
	ServiceAccount ref    `json:"serviceaccount"`
}

type claims struct {
	jwt.Claims
	// Audience shadows that of Claims: Kubernetes writes a list even for one.
	Audience   audience `json:"aud"`
	Kubernetes private  `json:"kubernetes.io"`
}

// audience is written as a list and read as a list or a single string (RFC 7519).
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	return (*jwt.Audience)(a).UnmarshalJSON(b)
}

// Virtual declares the serviceaccounts/token subresource.
func (m *Manager) Virtual() *kind.Virtual {
	return &kind.Virtual{
		GVK:      authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"),
		Resource: "serviceaccounts", Subresource: "token", Namespaced: true,
		Default: func(obj client.Object) { defaultRequest(obj.(*authenticationv1.TokenRequest)) },
		Create: func(ctx context.Context, namespace, name string, obj client.Object, dryRun bool) (runtime.Object, error) {
			return m.CreateToken(ctx, namespace, name, obj.(*authenticationv1.TokenRequest))
		},
	}
}

func defaultRequest(r *authenticationv1.TokenRequest) {
	if r.Spec.ExpirationSeconds == nil {
		r.Spec.ExpirationSeconds = ptr.To[int64](defaultLifetime)
	}
}

// CreateToken answers a TokenRequest for a service account. The request is not modified. Errors are API errors: NotFound
// of the account or bound object, Invalid, BadRequest, Conflict of UIDs.
func (m *Manager) CreateToken(ctx context.Context, namespace, name string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	out := req.DeepCopy()
	defaultRequest(out)
	sa := &corev1.ServiceAccount{}
	if err := m.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, sa); err != nil {
		return nil, err
	}
	if out.Namespace != "" && out.Namespace != namespace {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("namespace in URL does not match namespace in TokenRequest object (namespace: %q)", out.Namespace))
	}
	if out.Name != "" && out.Name != name {
		return nil, invalidRequest(name, field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), out.Name, "must match the service account name if specified")})
	}
	seconds := *out.Spec.ExpirationSeconds
	path := field.NewPath("spec", "expirationSeconds")
	var errs field.ErrorList
	if seconds < minLifetime {
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration less than 10 minutes"))
	}
	if seconds > maxLifetime {
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	if len(errs) > 0 {
		return nil, invalidRequest(req.Name, errs)
	}
	if m.max > 0 && seconds > m.max {
		seconds = m.max
		out.Spec.ExpirationSeconds = &seconds
	}
	if len(out.Spec.Audiences) == 0 {
		out.Spec.Audiences = m.audiences
	}
	k := private{Namespace: namespace, ServiceAccount: ref{sa.Name, sa.UID}}
	if err := m.bind(ctx, sa, out.Spec.BoundObjectRef, &k); err != nil {
		return nil, err
	}
	now := m.clock.Now()
	expires := now.Add(time.Duration(seconds) * time.Second)
	token, err := jwt.Signed(m.signer).Claims(claims{Kubernetes: k, Audience: out.Spec.Audiences, Claims: jwt.Claims{
		ID: uuid.NewString(), Issuer: m.issuer, Subject: username(namespace, name),
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expires),
	}}).Serialize()
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("failed to generate token: %w", err))
	}
	out.Name, out.Namespace = name, namespace
	out.CreationTimestamp, out.UID = metav1.NewTime(now).Rfc3339Copy(), types.UID(uuid.NewString())
	out.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.Time{Time: expires}}
	return out, nil
}

func invalidRequest(name string, errs field.ErrorList) error {
	return apierrors.NewInvalid(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind(), name, errs)
}

// bind fills in what the token will depend on beside the service account.
func (m *Manager) bind(ctx context.Context, sa *corev1.ServiceAccount, r *authenticationv1.BoundObjectReference, k *private) error {
	if r == nil {
		return nil
	}
	gvk := schema.FromAPIVersionAndKind(r.APIVersion, r.Kind)
	key := client.ObjectKey{Namespace: sa.Namespace, Name: r.Name}
	var uid types.UID
	switch gvk {
	case corev1.SchemeGroupVersion.WithKind("Pod"):
		pod := &corev1.Pod{}
		if err := m.reader.Get(ctx, key, pod); err != nil {
			return err
		}
		if pod.Spec.ServiceAccountName != sa.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", sa.Name))
		}
		uid = pod.UID
		k.Pod = &ref{pod.Name, pod.UID}
		if pod.Spec.NodeName != "" {
			// The node is told, not required: a token of a pod outlives its node's object.
			k.Node = &ref{Name: pod.Spec.NodeName}
			node := &corev1.Node{}
			switch err := m.reader.Get(ctx, client.ObjectKey{Name: pod.Spec.NodeName}, node); {
			case err == nil:
				k.Node.UID = node.UID
			case !apierrors.IsNotFound(err):
				return apierrors.NewInternalError(err)
			}
		}
	case corev1.SchemeGroupVersion.WithKind("Secret"):
		secret := &corev1.Secret{}
		if err := m.reader.Get(ctx, key, secret); err != nil {
			return err
		}
		uid = secret.UID
		k.Secret = &ref{secret.Name, secret.UID}
	case corev1.SchemeGroupVersion.WithKind("Node"):
		node := &corev1.Node{}
		if err := m.reader.Get(ctx, client.ObjectKey{Name: r.Name}, node); err != nil {
			return err
		}
		uid = node.UID
		k.Node = &ref{node.Name, node.UID}
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk.String()))
	}
	if r.UID != "" && r.UID != uid {
		return apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, r.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", r.UID))
	}
	return nil
}
