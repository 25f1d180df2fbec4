package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What a token's user carries beside its name, under Kubernetes' names.
const (
	extraPodName  = "authentication.kubernetes.io/pod-name"
	extraPodUID   = "authentication.kubernetes.io/pod-uid"
	extraNodeName = "authentication.kubernetes.io/node-name"
	extraNodeUID  = "authentication.kubernetes.io/node-uid"
)

const (
	// verifiedMax bounds the tokens whose signature's verification is remembered.
	verifiedMax = 4096
	// deletionGrace is how long a token is still good after what it is bound to began to be deleted for good.
	deletionGrace = 60 * time.Second
)

// errGone is the one answer for everything that makes a well-signed token bad, so that it tells nothing of the cluster.
var errGone = errors.New("service account token has been invalidated")

func username(namespace, name string) string {
	return "system:serviceaccount:" + namespace + ":" + name
}

// AuthenticateToken returns the service account of a token. It returns false for what is not a token of this issuer and an
// error for one that is, but is not good. The audiences wanted are those in the context, or the API server's own.
func (m *Manager) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	sum := sha256.Sum256([]byte(token))
	m.mu.RLock()
	c := m.verified[sum]
	m.mu.RUnlock()
	if c == nil {
		if !m.issued(token) {
			return nil, false, nil
		}
		var err error
		if c, err = m.parse(token); err != nil {
			return nil, false, err
		}
		m.mu.Lock()
		if len(m.verified) >= verifiedMax {
			clear(m.verified)
		}
		m.verified[sum] = c
		m.mu.Unlock()
	}
	now := m.clock.Now()
	if c.NotBefore != nil && now.Add(jwt.DefaultLeeway).Before(c.NotBefore.Time()) {
		return nil, false, errors.New("service account token is not valid yet")
	}
	if !now.Before(c.Expiry.Time()) {
		return nil, false, errors.New("service account token has expired")
	}
	wanted, ok := authenticator.AudiencesFrom(ctx)
	if !ok || len(wanted) == 0 {
		wanted = m.audiences
	}
	audiences := authenticator.Audiences(c.Audience).Intersect(wanted)
	if len(audiences) == 0 {
		return nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", c.Audience, wanted)
	}
	if err := m.live(ctx, &c.Kubernetes, now); err != nil {
		return nil, false, err
	}
	return &authenticator.Response{User: c.user(), Audiences: audiences}, true, nil
}

// issued reports whether the token claims to be of this issuer; nothing is verified.
func (m *Manager) issued(token string) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return false
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	return json.Unmarshal(payload, &c) == nil && c.Issuer == m.issuer
}

func (m *Manager) parse(token string) (*claims, error) {
	t, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, fmt.Errorf("parse service account token: %w", err)
	}
	key, ok := m.keys[t.Headers[0].KeyID]
	if !ok {
		return nil, errors.New("service account token is signed by an unknown key")
	}
	c := &claims{}
	if err := t.Claims(key.Key, c); err != nil {
		return nil, fmt.Errorf("verify service account token: %w", err)
	}
	k := c.Kubernetes
	if c.Issuer != m.issuer || c.Expiry == nil || k.Namespace == "" || k.ServiceAccount.Name == "" || k.ServiceAccount.UID == "" ||
		c.Subject != username(k.Namespace, k.ServiceAccount.Name) {
		return nil, errors.New("service account token lacks required claims")
	}
	return c, nil
}

// live checks that everything the token is bound to exists, is the same, and is not being deleted for longer than a moment.
func (m *Manager) live(ctx context.Context, k *private, now time.Time) error {
	check := func(obj client.Object, namespace string, r ref) error {
		err := m.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: r.Name}, obj)
		if apierrors.IsNotFound(err) {
			return errGone
		}
		if err != nil {
			return err
		}
		if obj.GetUID() != r.UID {
			return errGone
		}
		if d := obj.GetDeletionTimestamp(); d != nil && d.Add(deletionGrace).Before(now) {
			return errGone
		}
		return nil
	}
	if err := check(&corev1.ServiceAccount{}, k.Namespace, k.ServiceAccount); err != nil {
		return err
	}
	switch {
	case k.Pod != nil:
		return check(&corev1.Pod{}, k.Namespace, *k.Pod)
	case k.Secret != nil:
		return check(&corev1.Secret{}, k.Namespace, *k.Secret)
	case k.Node != nil:
		return check(&corev1.Node{}, "", *k.Node)
	}
	return nil
}

func (c *claims) user() user.Info {
	k := c.Kubernetes
	u := &user.DefaultInfo{
		Name:   c.Subject,
		UID:    string(k.ServiceAccount.UID),
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + k.Namespace},
		Extra:  map[string][]string{user.CredentialIDKey: {"JTI=" + c.ID}},
	}
	if k.Pod != nil {
		u.Extra[extraPodName], u.Extra[extraPodUID] = []string{k.Pod.Name}, []string{string(k.Pod.UID)}
	}
	if k.Node != nil {
		u.Extra[extraNodeName] = []string{k.Node.Name}
		if k.Node.UID != "" {
			u.Extra[extraNodeUID] = []string{string(k.Node.UID)}
		}
	}
	return u
}
