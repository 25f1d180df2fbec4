package namespacelifecycle

import (
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"

	"github.com/keelson/keelson/apiserver/admission/internal/admissiontest"
)

func namespace(name string, phase corev1.NamespacePhase) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NamespaceStatus{Phase: phase}}
}

func pod(ns string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "p"}}
}

func TestPlugin(t *testing.T) {
	cached := admissiontest.Client(t, namespace("live", corev1.NamespaceActive), namespace("dying", corev1.NamespaceTerminating))
	live := admissiontest.Client(t, namespace("new", corev1.NamespaceActive))
	p, err := New(cached, Options{Live: live})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		req   admissiontest.Request
		want  string // "" is admitted
		check func(error) bool
	}{
		{name: "create", req: admissiontest.Request{Object: pod("live")}},
		{name: "create where the cache lags", req: admissiontest.Request{Object: pod("new")}},
		{name: "create in none", req: admissiontest.Request{Object: pod("gone")}, want: `namespaces "gone" not found`, check: apierrors.IsNotFound},
		{
			name: "create in a dying one", req: admissiontest.Request{Object: pod("dying")},
			want: `pods "p" is forbidden: unable to create new content in namespace dying because it is being terminated`,
			check: func(err error) bool {
				return apierrors.IsForbidden(err) && apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
			},
		},
		{name: "update in a dying one", req: admissiontest.Request{Object: pod("dying"), Old: pod("dying"), Operation: admission.Update}},
		{name: "delete in a dying one", req: admissiontest.Request{Old: pod("dying"), Operation: admission.Delete}},
		{name: "review in none", req: admissiontest.Request{Object: &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: "gone"}}}},
		{
			name: "delete default", req: admissiontest.Request{Old: namespace("default", ""), Operation: admission.Delete},
			want: `namespaces "default" is forbidden: this namespace may not be deleted`, check: apierrors.IsForbidden,
		},
		{name: "delete another", req: admissiontest.Request{Old: namespace("live", ""), Operation: admission.Delete}},
		{name: "create a namespace", req: admissiontest.Request{Object: namespace("x", ""), Namespace: "x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := admissiontest.Run(t, p, tt.req)
			if tt.want == "" {
				if err != nil {
					t.Fatalf("got %v, want it admitted", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !tt.check(err) {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
		})
	}
	if _, err := New(nil, Options{}); err == nil {
		t.Error("New accepts no reader")
	}
}
