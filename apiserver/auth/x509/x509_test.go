package x509

import (
	"crypto/tls"
	stdx509 "crypto/x509"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/keelson/keelson/apiserver/auth/ca"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestAuthenticate(t *testing.T) {
	clk := clocktesting.NewFakePassiveClock(time.Now())
	trusted, err := ca.New(ca.Options{LeafLifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	other, err := ca.New(ca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := New(trusted.Pool(), Options{Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	request := func(p ca.KeyPair, err error) *http.Request {
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.TLS()
		if err != nil {
			t.Fatal(err)
		}
		return &http.Request{TLS: &tls.ConnectionState{PeerCertificates: []*stdx509.Certificate{c.Leaf}}}
	}
	admin := request(trusted.Client("admin", "devs", "system:masters"))

	resp, ok, err := auth.AuthenticateRequest(admin)
	if err != nil || !ok {
		t.Fatalf("got %v, %v", ok, err)
	}
	if resp.User.GetName() != "admin" || !cmp.Equal(resp.User.GetGroups(), []string{"devs", "system:masters"}) {
		t.Errorf("user is %v", resp.User)
	}
	if _, ok, err := auth.AuthenticateRequest(&http.Request{}); ok || err != nil {
		t.Errorf("without certificate: %v, %v", ok, err)
	}
	if _, ok, err := auth.AuthenticateRequest(request(other.Client("admin"))); ok || err == nil {
		t.Error("another authority's certificate was accepted")
	}
	if _, ok, err := auth.AuthenticateRequest(request(trusted.Serving("admin", "localhost"))); ok || err == nil {
		t.Error("a serving certificate was accepted as a client's")
	}
	clk.SetTime(clk.Now().Add(2 * time.Hour))
	if _, ok, err := auth.AuthenticateRequest(admin); ok || err == nil {
		t.Error("an expired certificate was accepted")
	}
	if _, err := New(nil, Options{}); err == nil {
		t.Error("New accepted no pool")
	}
}
