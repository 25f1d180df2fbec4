package admission

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/admission/internal/admissiontest"
)

// plugin returns one of the default plugins by name.
func plugin(t *testing.T, name string, deps Deps) admission.Interface {
	t.Helper()
	plugins, err := Default(deps)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins {
		if p.Name == name {
			return p.Interface
		}
	}
	t.Fatalf("no plugin %s", name)
	return nil
}

func TestDefaultOrder(t *testing.T) {
	c := admissiontest.Client(t)
	plugins, err := Default(Deps{Reader: c, Client: c, Authorizer: authorizer.AuthorizerFunc(nil)})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := NewChain(plugins, ChainOptions{Off: []string{"PodSecurity"}})
	if err != nil {
		t.Fatal(err)
	}
	want := "NamespaceLifecycle LimitRanger ServiceAccount NodeRestriction TaintNodesByCondition Priority DefaultTolerationSeconds DefaultStorageClass " +
		"PersistentVolumeClaimResize RuntimeClass CertificateApproval CertificateSigning CertificateSubjectRestriction DefaultIngressClass ResourceQuota"
	if got := strings.Join(chain.Names(), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !chain.Handles(admission.Delete) || chain.Handles(admission.Connect) {
		t.Error("the chain handles what its plugins do not, or not what they do")
	}
	for _, bad := range []ChainOptions{{Off: []string{"Nope"}}, {On: []string{"Nope"}}, {On: []string{"Priority"}, Off: []string{"Priority"}}} {
		if _, err := NewChain(plugins, bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	if _, err := NewChain(append(plugins, plugins[0]), ChainOptions{}); err == nil {
		t.Error("a plugin is accepted twice")
	}
	if _, err := Default(Deps{}); err == nil {
		t.Error("no reader is accepted")
	}
}

func TestLate(t *testing.T) {
	var late Late
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p"}}
	if _, err := admissiontest.Run(t, &late, admissiontest.Request{Object: pod}); err == nil {
		t.Error("requests are let through before there are plugins")
	}
	chain, err := NewChain(nil, ChainOptions{})
	if err != nil {
		t.Fatal(err)
	}
	late.Set(chain)
	if _, err := admissiontest.Run(t, &late, admissiontest.Request{Object: pod}); err != nil {
		t.Error(err)
	}
}

func TestDefaultClasses(t *testing.T) {
	class := func(name string, age time.Duration, isDefault string) client.Object {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{
			Name: name, CreationTimestamp: metav1.NewTime(time.Now().Add(-age)), Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": isDefault},
		}}
	}
	ingressClass := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "nginx", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}}}
	deps := Deps{Reader: admissiontest.Client(t, class("old", time.Hour, "true"), class("new", time.Minute, "true"), class("newest", 0, "false"), ingressClass)}

	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "c"}}
	if _, err := admissiontest.Run(t, plugin(t, "DefaultStorageClass", deps), admissiontest.Request{Object: claim}); err != nil {
		t.Fatal(err)
	}
	if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName != "new" {
		t.Errorf("got class %v, want the newest default", claim.Spec.StorageClassName)
	}
	none := ""
	claim.Spec.StorageClassName = &none
	if _, err := admissiontest.Run(t, plugin(t, "DefaultStorageClass", deps), admissiontest.Request{Object: claim}); err != nil || *claim.Spec.StorageClassName != "" {
		t.Errorf("a claim that wants no class got %q (%v)", *claim.Spec.StorageClassName, err)
	}
	ingress := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "i"}}
	if _, err := admissiontest.Run(t, plugin(t, "DefaultIngressClass", deps), admissiontest.Request{Object: ingress}); err != nil {
		t.Fatal(err)
	}
	if ingress.Spec.IngressClassName == nil || *ingress.Spec.IngressClassName != "nginx" {
		t.Errorf("got class %v", ingress.Spec.IngressClassName)
	}
}

func TestRuntimeClass(t *testing.T) {
	overhead := corev1.ResourceList{"cpu": resource.MustParse("100m")}
	deps := Deps{Reader: admissiontest.Client(t, &nodev1.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: "vm"}, Handler: "kata", Overhead: &nodev1.Overhead{PodFixed: overhead},
		Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"vm": "yes"}, Tolerations: []corev1.Toleration{{Key: "vm"}}},
	})}
	p := plugin(t, "RuntimeClass", deps)
	pod := func(class string) *corev1.Pod {
		x := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p"}}
		if class != "" {
			x.Spec.RuntimeClassName = &class
		}
		return x
	}
	good := pod("vm")
	if _, err := admissiontest.Run(t, p, admissiontest.Request{Object: good}); err != nil {
		t.Fatal(err)
	}
	if cpu := good.Spec.Overhead["cpu"]; cpu.String() != "100m" || good.Spec.NodeSelector["vm"] != "yes" || len(good.Spec.Tolerations) != 1 {
		t.Errorf("got %v %v %v", good.Spec.Overhead, good.Spec.NodeSelector, good.Spec.Tolerations)
	}
	other := pod("vm")
	other.Spec.NodeSelector = map[string]string{"vm": "no"}
	greedy := pod("")
	greedy.Spec.Overhead = overhead
	for _, tt := range []struct {
		pod  *corev1.Pod
		want string
	}{
		{pod("gone"), `pod rejected: RuntimeClass "gone" not found`},
		{other, `conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no`},
		{greedy, `Overhead set without corresponding RuntimeClass defined Overhead`},
	} {
		if _, err := admissiontest.Run(t, p, admissiontest.Request{Object: tt.pod}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

func TestTaintNodes(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	for range 2 {
		if _, err := admissiontest.Run(t, plugin(t, "TaintNodesByCondition", Deps{Reader: admissiontest.Client(t)}), admissiontest.Request{Object: node}); err != nil {
			t.Fatal(err)
		}
	}
	if len(node.Spec.Taints) != 1 || node.Spec.Taints[0].Key != "node.kubernetes.io/not-ready" || node.Spec.Taints[0].Effect != corev1.TaintEffectNoSchedule {
		t.Errorf("got %v", node.Spec.Taints)
	}
}

func TestClaimResize(t *testing.T) {
	yes, fixed, grows := true, "fixed", "grows"
	deps := Deps{Reader: admissiontest.Client(t, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: fixed}},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: grows}, AllowVolumeExpansion: &yes})}
	claim := func(class, size string, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "c"}, Status: corev1.PersistentVolumeClaimStatus{Phase: phase},
			Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{"storage": resource.MustParse(size)},
			}},
		}
	}
	for _, tt := range []struct {
		class, size string
		phase       corev1.PersistentVolumeClaimPhase
		want        string
	}{
		{grows, "2Gi", corev1.ClaimBound, ""},
		{fixed, "1Gi", corev1.ClaimBound, ""},
		{fixed, "2Gi", corev1.ClaimBound, "the storageclass that provisions the pvc must support resize"},
		{grows, "2Gi", corev1.ClaimPending, "only bound persistent volume claims can be expanded"},
	} {
		_, err := admissiontest.Run(t, plugin(t, "PersistentVolumeClaimResize", deps), admissiontest.Request{
			Object: claim(tt.class, tt.size, tt.phase), Old: claim(tt.class, "1Gi", tt.phase), Operation: admission.Update,
		})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: got %v", tt, err)
		}
	}
}

func TestCertificates(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr := func(organization, signer string) *certificatesv1.CertificateSigningRequest {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{Organization: []string{organization}}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: signer, Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		}}
	}
	deps := Deps{Reader: admissiontest.Client(t), Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if a.GetResource() == "signers" && a.GetName() == "example.com/*" && a.GetVerb() == "approve" {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionNoOpinion, "", nil
	})}
	signed := csr("x", "example.com/a")
	signed.Status.Certificate = []byte("x")
	for _, tt := range []struct {
		plugin string
		req    admissiontest.Request
		want   string
	}{
		{"CertificateSubjectRestriction", admissiontest.Request{Object: csr("system:masters", "kubernetes.io/kube-apiserver-client")}, "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"},
		{"CertificateSubjectRestriction", admissiontest.Request{Object: csr("people", "kubernetes.io/kube-apiserver-client")}, ""},
		{"CertificateSubjectRestriction", admissiontest.Request{Object: csr("system:masters", "example.com/a")}, ""},
		{"CertificateApproval", admissiontest.Request{Object: csr("x", "example.com/a"), Old: csr("x", "example.com/a"), Operation: admission.Update, Subresource: "approval"}, ""},
		{"CertificateApproval", admissiontest.Request{Object: csr("x", "example.com/a"), Old: csr("x", "other.com/a"), Operation: admission.Update, Subresource: "approval"}, `user not permitted to approve requests with signerName "other.com/a"`},
		{"CertificateSigning", admissiontest.Request{Object: signed, Old: csr("x", "example.com/a"), Operation: admission.Update, Subresource: "status"}, `user not permitted to sign requests with signerName "example.com/a"`},
		{"CertificateSigning", admissiontest.Request{Object: signed, Old: signed, Operation: admission.Update, Subresource: "status"}, ""},
	} {
		_, err := admissiontest.Run(t, plugin(t, tt.plugin, deps), tt.req)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.plugin, err, tt.want)
		}
	}
}
