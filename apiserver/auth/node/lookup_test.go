package node_test

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/keelson/keelson/apiserver/auth/node"
)

// What the informers have not told of yet is known from the reader.
func TestLookup(t *testing.T) {
	claimed := func(s *corev1.PodSpec) {
		usesSecret("volume")(s)
		s.Volumes = append(s.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}})
	}
	mine, theirs := pod("mine", "n1", claimed), pod("theirs", "n2", usesSecret("theirs"))
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
		ClaimRef:               &corev1.ObjectReference{Namespace: "ns", Name: "claim"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{NodePublishSecretRef: &corev1.SecretReference{Name: "s", Namespace: "elsewhere"}}},
	}}
	va := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "va"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "n1"}}
	var broken error
	reader := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(mine, theirs, pv, va).
		WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).
		WithInterceptorFuncs(interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			if broken != nil {
				return broken
			}
			return c.List(ctx, l, opts...)
		}}).Build()
	a, err := node.New(node.Options{Reader: reader})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		ask
		ok bool
	}{
		{ask{"get", "", "secrets", "", "ns", "volume", ""}, true},
		{ask{"get", "", "secrets", "", "ns", "theirs", ""}, false},
		{ask{"get", "", "secrets", "", "elsewhere", "s", ""}, true},
		{ask{"get", "", "secrets", "", "elsewhere", "other", ""}, false},
		{ask{"get", "", "pods", "", "ns", "mine", ""}, true},
		{ask{"get", "", "pods", "", "ns", "theirs", ""}, false},
		{ask{"create", "", "serviceaccounts", "token", "ns", "sa", ""}, true},
		{ask{"get", "", "persistentvolumeclaims", "", "ns", "claim", ""}, true},
		{ask{"get", "", "persistentvolumes", "", "", "pv", ""}, true},
		{ask{"get", "", "persistentvolumes", "", "", "pv2", ""}, false},
		{ask{"get", "storage.k8s.io", "volumeattachments", "", "", "va", ""}, true},
		{ask{"get", "storage.k8s.io", "volumeattachments", "", "", "va2", ""}, false},
	} {
		ok, why := by(t, a, tc.ask)
		if ok != tc.ok {
			t.Errorf("%+v: allowed: %v", tc.ask, ok)
		}
		if !ok && why != none {
			t.Errorf("%+v: %q", tc.ask, why)
		}
	}

	broken = errors.New("broken")
	attrs := authorizer.AttributesRecord{
		User: &user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup}}, ResourceRequest: true, Verb: "get", Resource: "secrets", Namespace: "ns", Name: "volume",
	}
	if d, _, err := a.Authorize(t.Context(), attrs); d != authorizer.DecisionNoOpinion || !errors.Is(err, broken) {
		t.Errorf("broken reader: %v, %v", d, err)
	}
}
