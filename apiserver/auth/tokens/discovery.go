package tokens

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

func (m *Manager) encodeKeys() error {
	set := jose.JSONWebKeySet{}
	for _, k := range m.keys {
		set.Keys = append(set.Keys, k)
	}
	slices.SortFunc(set.Keys, func(a, b jose.JSONWebKey) int { return strings.Compare(a.KeyID, b.KeyID) })
	var err error
	if m.jwks, err = json.Marshal(set); err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	return nil
}

// Keys returns the key set document served at /openid/v1/jwks (media type application/jwk-set+json).
func (m *Manager) Keys() []byte { return m.jwks }

// Discovery returns the document served at /.well-known/openid-configuration; base is the API server's own
// address, for example https://10.0.0.1:6443.
func (m *Manager) Discovery(base string) ([]byte, error) {
	return json.Marshal(struct {
		Issuer        string   `json:"issuer"`
		JWKS          string   `json:"jwks_uri"`
		ResponseTypes []string `json:"response_types_supported"`
		SubjectTypes  []string `json:"subject_types_supported"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	}{m.issuer, strings.TrimSuffix(base, "/") + "/openid/v1/jwks", []string{"id_token"}, []string{"public"}, []string{string(jose.ES256)}})
}
