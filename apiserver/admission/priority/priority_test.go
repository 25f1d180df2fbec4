package priority

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"

	"github.com/keelson/keelson/apiserver/admission/internal/admissiontest"
)

func class(name string, value int32, isDefault bool) *schedulingv1.PriorityClass {
	never := corev1.PreemptNever
	return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, GlobalDefault: isDefault, PreemptionPolicy: &never}
}

func pod(class string, priority *int32) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p"}, Spec: corev1.PodSpec{PriorityClassName: class, Priority: priority}}
}

func TestPods(t *testing.T) {
	ten := int32(10)
	tests := []struct {
		name    string
		classes []*schedulingv1.PriorityClass
		pod     *corev1.Pod
		class   string
		value   int32
		policy  corev1.PreemptionPolicy
		err     string
	}{
		{name: "none", pod: pod("", nil), policy: corev1.PreemptLowerPriority},
		{name: "named", classes: []*schedulingv1.PriorityClass{class("high", 100, false)}, pod: pod("high", nil), class: "high", value: 100, policy: corev1.PreemptNever},
		{name: "default of two", classes: []*schedulingv1.PriorityClass{class("a", 50, true), class("b", 5, true)}, pod: pod("", nil), class: "b", value: 5, policy: corev1.PreemptNever},
		{name: "unknown", pod: pod("what", nil), err: `pods "p" is forbidden: no PriorityClass with name what was found`},
		{
			name: "given", classes: []*schedulingv1.PriorityClass{class("high", 100, false)}, pod: pod("high", &ten),
			err: `pods "p" is forbidden: the integer value of priority (10) must not be provided in pod spec; priority admission controller computed 100 from the given PriorityClass name`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := admissiontest.Client(t)
			for _, x := range tt.classes {
				if err := c.Create(t.Context(), x); err != nil {
					t.Fatal(err)
				}
			}
			p, err := New(c, Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = admissiontest.Run(t, p, admissiontest.Request{Object: tt.pod})
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s := tt.pod.Spec
			if s.PriorityClassName != tt.class || *s.Priority != tt.value || *s.PreemptionPolicy != tt.policy {
				t.Errorf("got %q %d %s", s.PriorityClassName, *s.Priority, *s.PreemptionPolicy)
			}
			again := tt.pod.DeepCopy()
			again.Spec.Priority, again.Spec.PreemptionPolicy = nil, nil
			if _, err := admissiontest.Run(t, p, admissiontest.Request{Object: again, Old: tt.pod, Operation: admission.Update}); err != nil || *again.Spec.Priority != tt.value {
				t.Errorf("update: got %v %v, want the priority kept", again.Spec.Priority, err)
			}
		})
	}
}

func TestOneDefault(t *testing.T) {
	p, err := New(admissiontest.Client(t, class("a", 1, true)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admissiontest.Run(t, p, admissiontest.Request{Object: class("a", 1, true), Old: class("a", 1, true), Operation: admission.Update}); err != nil {
		t.Error(err)
	}
	_, err = admissiontest.Run(t, p, admissiontest.Request{Object: class("b", 1, true)})
	if want := `priorityclasses.scheduling.k8s.io "b" is forbidden: PriorityClass a is already marked as default. Only one default can exist`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
