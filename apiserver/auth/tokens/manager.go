package tokens

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/url"
	"sync"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// DefaultIssuer is the issuer of clusters that name no other.
const DefaultIssuer = "https://kubernetes.default.svc.cluster.local"

// Options of a Manager.
type Options struct {
	// Issuer goes into tokens and is required of them; a URL. Default DefaultIssuer.
	Issuer string
	// Audiences of the API server itself: those of tokens that name none, and those it accepts. Default the issuer.
	Audiences []string
	// MaxLifetime bounds what a TokenRequest gets, in whole seconds of at least 600. 0 means no bound.
	MaxLifetimeSeconds int64
	// PreviousKeys verify tokens signed before the key was changed.
	PreviousKeys []crypto.PublicKey
	// Clock default the real clock.
	Clock clock.PassiveClock
}

// Manager issues and verifies tokens. Its methods may be called from any goroutine.
type Manager struct {
	issuer    string
	audiences authenticator.Audiences
	max       int64
	reader    client.Reader
	signer    jose.Signer
	keys      map[string]jose.JSONWebKey
	jwks      []byte
	clock     clock.PassiveClock

	mu       sync.RWMutex
	verified map[[sha256.Size]byte]*claims
}

var _ authenticator.Token = (*Manager)(nil)

// New returns a manager that signs with key (ECDSA P-256, from ca.Authority.ServiceAccountKey) and looks service accounts,
// pods, secrets and nodes up in reader.
func New(key crypto.Signer, reader client.Reader, opts Options) (*Manager, error) {
	if key == nil {
		return nil, fmt.Errorf("tokens: expected a signing key")
	}
	if reader == nil {
		return nil, fmt.Errorf("tokens: expected a reader of service accounts")
	}
	if opts.Issuer == "" {
		opts.Issuer = DefaultIssuer
	}
	if u, err := url.Parse(opts.Issuer); err != nil || u.Scheme == "" {
		return nil, fmt.Errorf("tokens: Options.Issuer: %q: expected a URL", opts.Issuer)
	}
	if opts.MaxLifetimeSeconds != 0 && opts.MaxLifetimeSeconds < minLifetime {
		return nil, fmt.Errorf("tokens: Options.MaxLifetimeSeconds: %d: expected 0 or at least %d", opts.MaxLifetimeSeconds, minLifetime)
	}
	if len(opts.Audiences) == 0 {
		opts.Audiences = []string{opts.Issuer}
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	m := &Manager{
		issuer: opts.Issuer, audiences: opts.Audiences, max: opts.MaxLifetimeSeconds, reader: reader, clock: opts.Clock,
		keys: map[string]jose.JSONWebKey{}, verified: map[[sha256.Size]byte]*claims{},
	}
	id, err := m.addKey(key.Public())
	if err != nil {
		return nil, err
	}
	for _, k := range opts.PreviousKeys {
		if _, err := m.addKey(k); err != nil {
			return nil, err
		}
	}
	m.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	return m, m.encodeKeys()
}

func (m *Manager) addKey(pub crypto.PublicKey) (string, error) {
	ec, ok := pub.(*ecdsa.PublicKey)
	if !ok || ec.Curve.Params().BitSize != 256 {
		return "", fmt.Errorf("tokens: %T: expected an ECDSA P-256 key", pub)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("tokens: %w", err)
	}
	sum := sha256.Sum256(der)
	id := base64.RawURLEncoding.EncodeToString(sum[:])
	m.keys[id] = jose.JSONWebKey{Key: pub, KeyID: id, Algorithm: string(jose.ES256), Use: "sig"}
	return id, nil
}

// Issuer returns the issuer of the tokens.
func (m *Manager) Issuer() string { return m.issuer }

// Audiences returns those the API server accepts; they go into requests' contexts.
func (m *Manager) Audiences() authenticator.Audiences { return m.audiences }
