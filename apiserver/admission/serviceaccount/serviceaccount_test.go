package serviceaccount

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver/admission/internal/admissiontest"
)

func account(name string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
}

func pod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p"}, Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "i"}},
		Containers: []corev1.Container{
			{Name: "a"}, {Name: "b", VolumeMounts: []corev1.VolumeMount{{Name: "own", MountPath: DefaultAPITokenMountPath}}},
		},
	}}
}

func TestTokenVolume(t *testing.T) {
	a := account("default")
	a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
	p, err := New(admissiontest.Client(t, a), Options{})
	if err != nil {
		t.Fatal(err)
	}
	x := pod()
	if _, err := admissiontest.Run(t, p, admissiontest.Request{Object: x}); err != nil {
		t.Fatal(err)
	}
	if x.Spec.ServiceAccountName != "default" || x.Spec.DeprecatedServiceAccount != "default" {
		t.Errorf("account: got %q, %q", x.Spec.ServiceAccountName, x.Spec.DeprecatedServiceAccount)
	}
	if len(x.Spec.ImagePullSecrets) != 1 || x.Spec.ImagePullSecrets[0].Name != "registry" {
		t.Errorf("pull secrets: got %v", x.Spec.ImagePullSecrets)
	}
	if len(x.Spec.Volumes) != 1 || !strings.HasPrefix(x.Spec.Volumes[0].Name, "kube-api-access-") || len(x.Spec.Volumes[0].Name) != len("kube-api-access-")+5 {
		t.Fatalf("volumes: got %v", x.Spec.Volumes)
	}
	v := x.Spec.Volumes[0]
	if s := v.Projected.Sources; len(s) != 3 || *s[0].ServiceAccountToken.ExpirationSeconds != 3607 || s[1].ConfigMap.Name != "kube-root-ca.crt" ||
		s[2].DownwardAPI.Items[0].FieldRef.FieldPath != "metadata.namespace" || *v.Projected.DefaultMode != 0o644 {
		t.Errorf("sources: got %v", s)
	}
	for _, c := range []corev1.Container{x.Spec.InitContainers[0], x.Spec.Containers[0]} {
		if len(c.VolumeMounts) != 1 || c.VolumeMounts[0].Name != v.Name || !c.VolumeMounts[0].ReadOnly {
			t.Errorf("container %s: got mounts %v", c.Name, c.VolumeMounts)
		}
	}
	if m := x.Spec.Containers[1].VolumeMounts; len(m) != 1 || m[0].Name != "own" {
		t.Errorf("a container's own mount was changed: %v", m)
	}
}

func TestNoToken(t *testing.T) {
	no, yes := false, true
	tests := []struct {
		name         string
		pod, account *bool
		opts         Options
		want         bool
	}{
		{"default", nil, nil, Options{}, true},
		{"pod says no", &no, &yes, Options{}, false},
		{"pod says yes", &yes, &no, Options{}, true},
		{"account says no", nil, &no, Options{}, false},
		{"option", nil, nil, Options{NoToken: true}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := account("app")
			a.AutomountServiceAccountToken = tt.account
			p, err := New(admissiontest.Client(t, a), tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			x := pod()
			x.Spec.ServiceAccountName = "app"
			x.Spec.AutomountServiceAccountToken = tt.pod
			if _, err := admissiontest.Run(t, p, admissiontest.Request{Object: x}); err != nil {
				t.Fatal(err)
			}
			if got := len(x.Spec.Volumes) == 1; got != tt.want {
				t.Errorf("got volume %v, want %v", got, tt.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	strict := account("strict")
	strict.Annotations = map[string]string{enforceMountable: "true"}
	strict.Secrets = []corev1.ObjectReference{{Name: "mine"}}
	p, err := New(admissiontest.Client(t, strict), Options{})
	if err != nil {
		t.Fatal(err)
	}
	mirror := pod()
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	mirror.Spec.ServiceAccountName = "strict"
	plain := pod()
	plain.Annotations = mirror.Annotations
	missing := pod()
	missing.Spec.ServiceAccountName = "gone"
	theirs := pod()
	theirs.Spec.ServiceAccountName = "strict"
	theirs.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "theirs"}}}}
	mine := theirs.DeepCopy()
	mine.Spec.Volumes[0].Secret.SecretName = "mine"
	for _, tt := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"mirror pod with an account", mirror, `a mirror pod may not reference service accounts`},
		{"mirror pod", plain, ""},
		{"no such account", missing, `pods "p" is forbidden: error looking up service account n/gone: serviceaccount "gone" not found`},
		{"secret of others", theirs, `is not allowed because service account strict does not reference that secret`},
		{"secret of its own", mine, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := admissiontest.Run(t, p, admissiontest.Request{Object: tt.pod})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestWaitsForDefaultAccount(t *testing.T) {
	c := admissiontest.Client(t)
	synctest.Test(t, func(t *testing.T) {
		p, err := New(c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(350 * time.Millisecond)
			if err := c.Create(t.Context(), account("default")); err != nil {
				t.Error(err)
			}
		}()
		start := time.Now()
		if _, err := admissiontest.Run(t, p, admissiontest.Request{Object: pod()}); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != 400*time.Millisecond {
			t.Errorf("waited %v", waited)
		}
	})
}
