package tokens

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/keelson/keelson/apiserver/auth/ca"
)

type fixture struct {
	*Manager
	client client.Client
	clock  *clocktesting.FakePassiveClock
	ca     *ca.Authority
}

func setup(t *testing.T, o Options) fixture {
	t.Helper()
	meta := func(name, uid string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(uid)}
	}
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(
		&corev1.ServiceAccount{ObjectMeta: meta("app", "u-sa")},
		&corev1.Secret{ObjectMeta: meta("s", "u-secret")},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u-node"}},
		&corev1.Pod{ObjectMeta: meta("p", "u-pod"), Spec: corev1.PodSpec{ServiceAccountName: "app", NodeName: "n1"}},
		&corev1.Pod{ObjectMeta: meta("other", "u-other"), Spec: corev1.PodSpec{ServiceAccountName: "default"}},
	).Build()
	authority, err := ca.New(ca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	clk := clocktesting.NewFakePassiveClock(time.Now())
	o.Clock = clk
	m, err := New(authority.ServiceAccountKey(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	return fixture{m, c, clk, authority}
}

func request(kind, name string, uid types.UID) *authenticationv1.TokenRequest {
	r := &authenticationv1.TokenRequest{}
	if kind != "" {
		r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name, UID: uid}
	}
	return r
}

func (f fixture) issue(t *testing.T, r *authenticationv1.TokenRequest) string {
	t.Helper()
	out, err := f.CreateToken(t.Context(), "ns", "app", r)
	if err != nil {
		t.Fatal(err)
	}
	return out.Status.Token
}

func TestRoundTrip(t *testing.T) {
	f := setup(t, Options{})
	out, err := f.CreateToken(t.Context(), "ns", "app", request("Pod", "p", "u-pod"))
	if err != nil {
		t.Fatal(err)
	}
	if want := f.clock.Now().Add(time.Hour); !out.Status.ExpirationTimestamp.Time.Equal(want) {
		t.Errorf("expires %v, want %v", out.Status.ExpirationTimestamp, want)
	}
	for range 2 { // the second time the signature is remembered
		resp, ok, err := f.AuthenticateToken(t.Context(), out.Status.Token)
		if err != nil || !ok {
			t.Fatalf("got %v, %v", ok, err)
		}
		u := resp.User
		extra := u.GetExtra()
		if id := extra["authentication.kubernetes.io/credential-id"]; len(id) != 1 || !strings.HasPrefix(id[0], "JTI=") {
			t.Errorf("credential id is %v", id)
		}
		got := []string{
			u.GetName(), u.GetUID(), strings.Join(u.GetGroups(), ","), extra[extraPodName][0], extra[extraPodUID][0],
			extra[extraNodeName][0], extra[extraNodeUID][0],
		}
		want := []string{"system:serviceaccount:ns:app", "u-sa", "system:serviceaccounts,system:serviceaccounts:ns", "p", "u-pod", "n1", "u-node"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("user (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(authenticator.Audiences{DefaultIssuer}, resp.Audiences); diff != "" {
			t.Error(diff)
		}
	}
}

func TestClaims(t *testing.T) {
	f := setup(t, Options{})
	token := f.issue(t, request("Node", "n1", ""))
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatal(err)
	}
	if id, _ := got["jti"].(string); len(id) != 36 {
		t.Errorf("jti is %q", id)
	}
	delete(got, "jti")
	now := float64(f.clock.Now().Unix())
	want := map[string]any{
		"aud": []any{DefaultIssuer}, "iss": DefaultIssuer, "sub": "system:serviceaccount:ns:app",
		"iat": now, "nbf": now, "exp": now + 3600,
		"kubernetes.io": map[string]any{
			"namespace": "ns", "serviceaccount": map[string]any{"name": "app", "uid": "u-sa"}, "node": map[string]any{"name": "n1", "uid": "u-node"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
}

func TestRefusedRequests(t *testing.T) {
	f := setup(t, Options{})
	short, long := request("", "", ""), request("", "", "")
	short.Spec.ExpirationSeconds, long.Spec.ExpirationSeconds = ptr.To[int64](599), ptr.To[int64](1<<32+1)
	for name, tc := range map[string]struct {
		sa   string
		req  *authenticationv1.TokenRequest
		want string
	}{
		"no account":    {"nobody", request("", "", ""), `serviceaccounts "nobody" not found`},
		"short":         {"app", short, "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"},
		"long":          {"app", long, "may not specify a duration larger than 2^32 seconds"},
		"other account": {"app", request("Pod", "other", ""), `cannot bind token for serviceaccount "app" to pod running with different serviceaccount name.`},
		"no pod":        {"app", request("Pod", "gone", ""), `pods "gone" not found`},
		"stale uid":     {"app", request("Secret", "s", "old"), "the UID in the bound object reference (old) does not match the UID in record"},
		"kind":          {"app", request("ConfigMap", "s", ""), "cannot bind token to object of type /v1, Kind=ConfigMap"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.CreateToken(t.Context(), "ns", tc.sa, tc.req)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestRefusedTokens(t *testing.T) {
	f, stranger := setup(t, Options{}), setup(t, Options{})
	good := f.issue(t, request("", "", ""))
	sign := func(c claims) string {
		s, err := jwt.Signed(f.signer).Claims(c).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + strings.Split(good, ".")[1] + "."
	hmac, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: make([]byte, 32)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sym, err := jwt.Signed(hmac).Claims(jwt.Claims{Issuer: f.issuer}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ token, want string }{
		"garbage":      {"x", ""},
		"not a JWT":    {"a.b.c", ""},
		"no algorithm": {none, "parse service account token"},
		"symmetric":    {sym, "parse service account token"},
		"stranger's":   {stranger.issue(t, request("", "", "")), "unknown key"},
		"tampered":     {good[:len(good)-6] + "AAAAAA", "verify service account token"},
		"no claims":    {sign(claims{Claims: jwt.Claims{Issuer: f.issuer, Expiry: jwt.NewNumericDate(f.clock.Now().Add(time.Hour))}}), "lacks required claims"},
		"other issuer": {sign(claims{Claims: jwt.Claims{Issuer: "https://x"}}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, ok, err := f.AuthenticateToken(t.Context(), tc.token)
			if ok {
				t.Fatal("accepted")
			}
			if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestInvalidation(t *testing.T) {
	for name, tc := range map[string]struct {
		req    *authenticationv1.TokenRequest
		change func(f fixture) error
		want   string
	}{
		"expired": {request("", "", ""), func(f fixture) error { f.clock.SetTime(f.clock.Now().Add(61 * time.Minute)); return nil }, "expired"},
		"account deleted": {request("", "", ""), func(f fixture) error {
			return f.client.Delete(context.Background(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "app"}})
		}, "invalidated"},
		"pod deleted": {request("Pod", "p", ""), func(f fixture) error {
			return f.client.Delete(context.Background(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}})
		}, "invalidated"},
		"secret made again": {request("Secret", "s", ""), func(f fixture) error {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}}
			if err := f.client.Delete(context.Background(), s); err != nil {
				return err
			}
			return f.client.Create(context.Background(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", UID: "new"}})
		}, "invalidated"},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, Options{})
			token := f.issue(t, tc.req)
			if _, ok, err := f.AuthenticateToken(t.Context(), token); !ok {
				t.Fatal(err)
			}
			if err := tc.change(f); err != nil {
				t.Fatal(err)
			}
			_, ok, err := f.AuthenticateToken(t.Context(), token)
			if ok || err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v", ok, err)
			}
		})
	}
}

func TestAudiences(t *testing.T) {
	f := setup(t, Options{Audiences: []string{"api", "api2"}})
	r := request("", "", "")
	r.Spec.Audiences = []string{"vault", "api2"}
	token := f.issue(t, r)
	resp, ok, err := f.AuthenticateToken(t.Context(), token)
	if !ok || !cmp.Equal(resp.Audiences, authenticator.Audiences{"api2"}) {
		t.Errorf("got %v, %v", resp, err)
	}
	resp, ok, _ = f.AuthenticateToken(authenticator.WithAudiences(t.Context(), authenticator.Audiences{"vault"}), token)
	if !ok || !cmp.Equal(resp.Audiences, authenticator.Audiences{"vault"}) {
		t.Errorf("got %v", resp)
	}
	if _, ok, err := f.AuthenticateToken(authenticator.WithAudiences(t.Context(), authenticator.Audiences{"other"}), token); ok || err == nil {
		t.Error("a token was accepted for an audience that is not its own")
	}
}

// A third party verifies a token with nothing but the served documents.
func TestDiscovery(t *testing.T) {
	f := setup(t, Options{})
	doc, err := f.Discovery("https://10.0.0.1:6443/")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		I string `json:"issuer"`
		J string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		t.Fatal(err)
	}
	if d.I != DefaultIssuer || d.J != "https://10.0.0.1:6443/openid/v1/jwks" {
		t.Errorf("document is %s", doc)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(f.Keys(), &set); err != nil {
		t.Fatal(err)
	}
	tok, err := jwt.ParseSigned(f.issue(t, request("", "", "")), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	keys := set.Key(tok.Headers[0].KeyID)
	if len(keys) != 1 || !keys[0].IsPublic() {
		t.Fatalf("key set %s has %d public keys of the token", f.Keys(), len(keys))
	}
	if err := tok.Claims(keys[0].Key, &jwt.Claims{}); err != nil {
		t.Error(err)
	}
}

func TestPreviousKeys(t *testing.T) {
	old := setup(t, Options{})
	now := setup(t, Options{PreviousKeys: []crypto.PublicKey{old.ca.ServiceAccountKey().Public()}})
	if _, ok, err := now.AuthenticateToken(t.Context(), old.issue(t, request("", "", ""))); !ok {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	f := setup(t, Options{})
	for _, o := range []Options{{Issuer: "::"}, {Issuer: "plain"}, {MaxLifetimeSeconds: 5}} {
		if _, err := New(f.ca.ServiceAccountKey(), f.client, o); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%+v: got %v", o, err)
		}
	}
	if _, err := New(nil, f.client, Options{}); err == nil {
		t.Error("no key was accepted")
	}
	if _, err := New(f.ca.ServiceAccountKey(), nil, Options{}); err == nil {
		t.Error("no reader was accepted")
	}
	m := setup(t, Options{MaxLifetimeSeconds: 600})
	out, err := m.CreateToken(t.Context(), "ns", "app", request("", "", ""))
	if err != nil || *out.Spec.ExpirationSeconds != 600 {
		t.Errorf("bound lifetime is %v, %v", out, err)
	}
}

func FuzzAuthenticate(f *testing.F) {
	authority, err := ca.New(ca.Options{})
	if err != nil {
		f.Fatal(err)
	}
	m, err := New(authority.ServiceAccountKey(), fake.NewClientBuilder().Build(), Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMuY2x1c3Rlci5sb2NhbCJ9.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if _, ok, _ := m.AuthenticateToken(context.Background(), token); ok {
			t.Errorf("%q was accepted", token)
		}
	})
}
