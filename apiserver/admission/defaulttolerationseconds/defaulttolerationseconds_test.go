package defaulttolerationseconds

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver/admission/internal/admissiontest"
)

func TestPlugin(t *testing.T) {
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	all := corev1.Toleration{Operator: corev1.TolerationOpExists}
	notReady := corev1.Toleration{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
	noSchedule := corev1.Toleration{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
	for _, tt := range []struct {
		name string
		have []corev1.Toleration
		want int
	}{{"none", nil, 2}, {"all", []corev1.Toleration{all}, 1}, {"one", []corev1.Toleration{notReady}, 2}, {"other effect", []corev1.Toleration{noSchedule}, 3}} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p"}, Spec: corev1.PodSpec{Tolerations: tt.have}}
		for range 2 {
			if _, err := admissiontest.Run(t, p, admissiontest.Request{Object: pod}); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(pod.Spec.Tolerations); got != tt.want {
			t.Errorf("%s: got %d tolerations, want %d: %v", tt.name, got, tt.want, pod.Spec.Tolerations)
		}
	}
	bad := int64(-1)
	if _, err := New(Options{NotReadySeconds: &bad}); err == nil {
		t.Error("negative seconds are accepted")
	}
}
