package ca

import (
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

func newTest(t *testing.T, o Options) *Authority {
	t.Helper()
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestKeptInDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	a, b := newTest(t, Options{Dir: dir}), newTest(t, Options{Dir: dir})
	if diff := cmp.Diff(string(a.CertificatePEM()), string(b.CertificatePEM())); diff != "" {
		t.Errorf("certificate changed over a restart: %s", diff)
	}
	if !a.saKey.Equal(b.saKey) {
		t.Error("service-account key changed over a restart")
	}
	if runtime.GOOS != "windows" {
		for file, mode := range map[string]fs.FileMode{".": 0o700, KeyFile: 0o600, ServiceAccountKeyFile: 0o600, CertificateFile: 0o644} {
			fi, err := os.Stat(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			if got := fi.Mode().Perm(); got != mode {
				t.Errorf("%s has mode %o, want %o", file, got, mode)
			}
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("directory holds %d files, want 3", len(entries))
	}
}

func TestDamagedDirectory(t *testing.T) {
	for name, tc := range map[string]struct {
		damage func(dir string) error
		want   string
	}{
		"key missing":    {func(d string) error { return os.Remove(filepath.Join(d, KeyFile)) }, "ca.key"},
		"not PEM":        {func(d string) error { return os.WriteFile(filepath.Join(d, CertificateFile), []byte("x"), 0o600) }, "no PEM block"},
		"key not PEM":    {func(d string) error { return os.WriteFile(filepath.Join(d, KeyFile), nil, 0o600) }, "no PEM block"},
		"another's key":  {func(d string) error { return swapKey(d) }, "is not the certificate of"},
		"cert completed": {func(d string) error { return os.Remove(filepath.Join(d, CertificateFile)) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			newTest(t, Options{Dir: dir})
			if err := tc.damage(dir); err != nil {
				t.Fatal(err)
			}
			_, err := New(Options{Dir: dir})
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func swapKey(dir string) error {
	if err := os.Remove(filepath.Join(dir, KeyFile)); err != nil {
		return err
	}
	_, err := loadKey(filepath.Join(dir, KeyFile), true)
	return err
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Lifetime: -1}, {LeafLifetime: -1}, {Lifetime: time.Hour, LeafLifetime: 2 * time.Hour}} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%+v: got %v", o, err)
		}
	}
	if _, err := newTest(t, Options{}).Client(""); err == nil {
		t.Error("a client certificate without a name was signed")
	}
}

func TestHandshake(t *testing.T) {
	a, other := newTest(t, Options{}), newTest(t, Options{})
	kubelet, err := a.Kubelet("n1")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := kubelet.TLS()
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{
		GetCertificate: a.ServingTLS("kube-apiserver", "kubernetes", "127.0.0.1"),
		ClientCAs:      a.Pool(), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}
	shake := func(c *tls.Config) (*x509.Certificate, error) {
		p, q := net.Pipe()
		defer p.Close()
		defer q.Close()
		s := tls.Server(p, server)
		done := make(chan error, 1)
		go func() { done <- s.Handshake() }()
		if err := tls.Client(q, c).Handshake(); err != nil {
			q.Close()
			<-done
			return nil, err
		}
		if err := <-done; err != nil {
			return nil, err
		}
		return s.ConnectionState().PeerCertificates[0], nil
	}
	peer, err := shake(&tls.Config{RootCAs: a.Pool(), ServerName: "127.0.0.1", Certificates: []tls.Certificate{leaf}})
	if err != nil {
		t.Fatal(err)
	}
	if peer.Subject.CommonName != "system:node:n1" || !cmp.Equal(peer.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("subject is %v", peer.Subject)
	}
	if _, err := shake(&tls.Config{RootCAs: a.Pool(), ServerName: "evil.example", Certificates: []tls.Certificate{leaf}}); err == nil {
		t.Error("a name that is not in the certificate was accepted")
	}
	if _, err := shake(&tls.Config{RootCAs: other.Pool(), ServerName: "kubernetes", Certificates: []tls.Certificate{leaf}}); err == nil {
		t.Error("another authority's certificate was accepted")
	}
}

func TestRenewal(t *testing.T) {
	clk := clocktesting.NewFakePassiveClock(time.Now())
	a := newTest(t, Options{Clock: clk, LeafLifetime: 3 * time.Hour})
	get := a.ServingTLS("x", "localhost")
	first, err := get(nil)
	if err != nil {
		t.Fatal(err)
	}
	clk.SetTime(clk.Now().Add(time.Hour))
	if again, _ := get(nil); again != first {
		t.Error("renewed after a third of its life")
	}
	clk.SetTime(clk.Now().Add(90 * time.Minute))
	next, err := get(nil)
	if err != nil || next == first {
		t.Fatalf("not renewed after two thirds of its life (%v)", err)
	}
	if !next.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Error("renewed certificate does not live longer")
	}
}

func TestNeverOutlivesAuthority(t *testing.T) {
	a := newTest(t, Options{Lifetime: time.Hour, LeafLifetime: time.Hour})
	p, err := a.Issue(Request{Lifetime: 48 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.TLS()
	if err != nil {
		t.Fatal(err)
	}
	if c.Leaf.NotAfter.After(a.Certificate().NotAfter) || c.Leaf.NotBefore.Before(a.Certificate().NotBefore) {
		t.Errorf("certificate lives %v to %v, authority %v to %v", c.Leaf.NotBefore, c.Leaf.NotAfter, a.cert.NotBefore, a.cert.NotAfter)
	}
}
