package apiserver_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
)

// A kubelet has what its pod needs from the moment that the pod is bound to its node.
func TestNodeReadsAtOnce(t *testing.T) {
	ctx := t.Context()
	s := start(t, apiserver.Options{})
	admin := s.Client(&user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}})
	kubelet := s.Client(&user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup, user.AllAuthenticated}})
	if err := admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		name := fmt.Sprintf("p%d", i)
		meta := metav1.ObjectMeta{Namespace: "default", Name: name}
		if err := admin.Create(ctx, &corev1.Secret{ObjectMeta: meta}); err != nil {
			t.Fatal(err)
		}
		p := &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "i"}},
			Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}}},
		}}
		if err := admin.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
		key := client.ObjectKeyFromObject(p)
		if err := kubelet.Get(ctx, key, &corev1.Secret{}); !apierrors.IsForbidden(err) {
			t.Fatalf("before the pod is bound: %v", err)
		}
		if err := admin.SubResource("binding").Create(ctx, p, &corev1.Binding{ObjectMeta: meta, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}); err != nil {
			t.Fatal(err)
		}
		if err := kubelet.Get(ctx, key, &corev1.Secret{}); err != nil {
			t.Fatalf("pod %d: %v", i, err)
		}
	}
}
