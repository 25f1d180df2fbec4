package podsecurity

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/pod-security-admission/api"

	"github.com/keelson/keelson/apiserver/admission/internal/admissiontest"
)

func namespace(name string, labels ...string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for i := 0; i < len(labels); i += 2 {
		ns.Labels["pod-security.kubernetes.io/"+labels[i]] = labels[i+1]
	}
	return ns
}

func pod(ns string, privileged bool) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "p"}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Image: "i", SecurityContext: &corev1.SecurityContext{Privileged: &privileged}}},
	}}
}

func TestPods(t *testing.T) {
	c := admissiontest.Client(t, namespace("free"), namespace("base", "enforce", "baseline"), namespace("warned", "warn", "baseline"),
		namespace("strict", "enforce", "restricted", "enforce-version", "v1.30"), namespace("broken", "enforce", "whatever"))
	p, err := New(c, Options{Usernames: []string{"root"}})
	if err != nil {
		t.Fatal(err)
	}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "base", Name: "d"}, Spec: appsv1.DeploymentSpec{
		Template: corev1.PodTemplateSpec{Spec: pod("base", true).Spec},
	}}
	changed := pod("base", true)
	changed.Spec.Containers[0].Image = "other"
	const violates = `pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)`
	const would = `would violate PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)`
	tests := []struct {
		name          string
		req           admissiontest.Request
		want, warning string
	}{
		{"no labels", admissiontest.Request{Object: pod("free", true)}, "", ""},
		{"baseline", admissiontest.Request{Object: pod("base", false)}, "", ""},
		{"baseline, privileged", admissiontest.Request{Object: pod("base", true)}, violates, ""},
		{"warn", admissiontest.Request{Object: pod("warned", true)}, "", would},
		{"restricted of a version", admissiontest.Request{Object: pod("strict", false)}, `violates PodSecurity "restricted:v1.30": allowPrivilegeEscalation != false`, ""},
		{"labels that say nothing are restricted", admissiontest.Request{Object: pod("broken", false)}, `violates PodSecurity "restricted:latest"`, ""},
		{"controllers are warned of", admissiontest.Request{Object: deployment}, "", would},
		{"exempt user", admissiontest.Request{Object: pod("base", true), User: &user.DefaultInfo{Name: "root"}}, "", ""},
		{"update of labels", admissiontest.Request{Object: pod("base", true), Old: pod("base", true), Operation: admission.Update}, "", ""},
		{"update of the image", admissiontest.Request{Object: changed, Old: pod("base", true), Operation: admission.Update}, violates, ""},
		{"status", admissiontest.Request{Object: changed, Old: pod("base", true), Operation: admission.Update, Subresource: "status"}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			warnings, err := admissiontest.Run(t, p, tt.req)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
			if got := strings.Join(warnings, "\n"); got != tt.warning {
				t.Errorf("got warnings %q, want %q", got, tt.warning)
			}
		})
	}
}

func TestNamespaces(t *testing.T) {
	second := pod("n", true)
	second.Name = "a"
	p, err := New(admissiontest.Client(t, namespace("n"), pod("n", true), second), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = admissiontest.Run(t, p, admissiontest.Request{Object: namespace("x", "enforce", "soft", "warn-version", "1.2")})
	for _, want := range []string{"must be one of privileged, baseline, restricted", `must be "latest" or "v1.x"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("labels: got %v, want %s", err, want)
		}
	}
	warnings, err := admissiontest.Run(t, p, admissiontest.Request{Object: namespace("n", "enforce", "baseline"), Old: namespace("n"), Operation: admission.Update})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`existing pods in namespace "n" violate the new PodSecurity enforce level "baseline:latest"`, "a (and 1 other pod): privileged"}
	if strings.Join(warnings, "\n") != strings.Join(want, "\n") {
		t.Errorf("got warnings %q, want %q", warnings, want)
	}
}

func TestOptions(t *testing.T) {
	_, err := New(admissiontest.Client(t), Options{Defaults: api.Policy{Warn: api.LevelVersion{Level: "loud"}}})
	if err == nil || !strings.Contains(err.Error(), "Defaults.Warn.Level") {
		t.Errorf("got %v, want an error that names the field", err)
	}
}
