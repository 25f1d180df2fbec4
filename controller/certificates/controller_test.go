package certificates_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/certificates"
	"github.com/keelson/keelson/controller/controllertest"
)

// reviewer answers access reviews: only bootstrap tokens and nodes are allowed.
type reviewer struct{ client.WithWatch }

func (r reviewer) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	if sar, ok := o.(*authorizationv1.SubjectAccessReview); ok {
		sub := sar.Spec.ResourceAttributes.Subresource
		sar.Status.Allowed = sub == "nodeclient" && strings.HasPrefix(sar.Spec.User, "system:bootstrap:") || sub == "selfnodeclient" && strings.HasPrefix(sar.Spec.User, "system:node:")
		return nil
	}
	return r.WithWatch.Create(ctx, o, opts...)
}

func key(t *testing.T) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func request(t *testing.T, user, signer, cn string, usage certificatesv1.KeyUsage, edit func(*x509.CertificateRequest)) *certificatesv1.CertificateSigningRequest {
	r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn, Organization: []string{"system:nodes"}}}
	if edit != nil {
		edit(r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key(t))
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "r"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: "kubernetes.io/" + signer, Username: user,
			Usages: []certificatesv1.KeyUsage{usage, certificatesv1.UsageDigitalSignature},
		},
	}
}

func TestApproveAndSign(t *testing.T) {
	ip := func(s string) func(*x509.CertificateRequest) {
		return func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.ParseIP(s)} }
	}
	const client, server = certificatesv1.UsageClientAuth, certificatesv1.UsageServerAuth
	for _, c := range []struct {
		name, user, signer, cn string
		usage                  certificatesv1.KeyUsage
		edit                   func(*x509.CertificateRequest)
		approved               bool // beforehand
		want                   string
	}{
		{"bootstrap", "system:bootstrap:x", "kube-apiserver-client-kubelet", "system:node:n", client, nil, false, "Approved signed"},
		{"renewal", "system:node:n", "kube-apiserver-client-kubelet", "system:node:n", client, nil, false, "Approved signed"},
		{"stranger", "mallory", "kube-apiserver-client-kubelet", "system:node:n", client, nil, false, ""},
		{"with names", "system:bootstrap:x", "kube-apiserver-client-kubelet", "system:node:n", client, ip("10.0.0.1"), false, ""},
		{"serving", "system:node:n", "kubelet-serving", "system:node:n", server, ip("10.0.0.1"), false, "Approved signed"},
		{"serving another's address", "system:node:n", "kubelet-serving", "system:node:n", server, ip("10.0.0.2"), false, ""},
		{"user not approved", "jane", "kube-apiserver-client", "jane", client, nil, false, ""},
		{"user approved", "jane", "kube-apiserver-client", "jane", client, nil, true, "Approved signed"},
		{"wrong usage approved", "jane", "kube-apiserver-client", "jane", server, nil, true, "Approved Failed"},
		{"another signer", "jane", "other", "jane", client, nil, true, "Approved"},
	} {
		controllertest.Run(t, func(e *controllertest.Env) {
			caKey := key(t)
			tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour * 1000)}
			der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &caKey.PublicKey, caKey)
			e.Check(err)
			ca, err := x509.ParseCertificate(der)
			e.Check(err)
			e.Cluster.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "10.0.0.1"}}}})
			ctl, err := certificates.New(reviewer{e.Client}, e.Cache, certificates.Options{CA: ca, Key: caKey, ApproveKubeletServing: true})
			e.Check(err)
			e.Start(ctl.Run)
			csr := request(t, c.user, c.signer, c.cn, c.usage, c.edit)
			if c.approved {
				csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, LastUpdateTime: metav1.Now()}}
			}
			e.Cluster.Put(csr)
			e.Settle()
			csr, _ = controllertest.Get[*certificatesv1.CertificateSigningRequest](e.Cluster, "", "r")
			var got []string
			for _, cond := range csr.Status.Conditions {
				got = append(got, string(cond.Type))
			}
			if len(csr.Status.Certificate) > 0 {
				got = append(got, "signed")
				b, _ := pem.Decode(csr.Status.Certificate)
				cert, err := x509.ParseCertificate(b.Bytes)
				e.Check(err)
				if err := cert.CheckSignatureFrom(ca); err != nil || cert.Subject.CommonName != c.cn || cert.NotAfter.After(ca.NotAfter) || len(cert.ExtKeyUsage) != 1 {
					t.Errorf("%s: certificate of %s until %v, %v", c.name, cert.Subject, cert.NotAfter, err)
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("%s: %q, expected %q", c.name, s, c.want)
			}
			e.Advance(25 * time.Hour)
			if _, ok := controllertest.Get[*certificatesv1.CertificateSigningRequest](e.Cluster, "", "r"); ok {
				t.Errorf("%s: not deleted", c.name)
			}
		})
	}
}

// TestServingBeforeNode has a kubelet ask before its Node has addresses.
func TestServingBeforeNode(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		caKey := key(t)
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour * 1000)}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &caKey.PublicKey, caKey)
		e.Check(err)
		ca, err := x509.ParseCertificate(der)
		e.Check(err)
		ctl, err := certificates.New(reviewer{e.Client}, e.Cache, certificates.Options{CA: ca, Key: caKey, ApproveKubeletServing: true})
		e.Check(err)
		e.Start(ctl.Run)
		csr := request(t, "system:node:n", "kubelet-serving", "system:node:n", certificatesv1.UsageServerAuth, func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.ParseIP("10.0.0.1")} })
		csr.CreationTimestamp = metav1.Now()
		e.Cluster.Put(csr)
		signed := func() bool {
			csr, _ := controllertest.Get[*certificatesv1.CertificateSigningRequest](e.Cluster, "", "r")
			return len(csr.Status.Certificate) > 0
		}
		e.Advance(3 * time.Second)
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
		e.Cluster.Put(n)
		e.Advance(3 * time.Second)
		if signed() {
			t.Fatal("signed for an address that no Node has")
		}
		n = n.DeepCopy()
		n.Status.Addresses = []corev1.NodeAddress{{Address: "10.0.0.1"}}
		e.Cluster.Put(n)
		e.Advance(10 * time.Second)
		if !signed() {
			t.Error("not signed, though the Node has the address")
		}
	})
}
