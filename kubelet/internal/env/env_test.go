package env

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "1", "B": "two"}
	for in, want := range map[string]string{
		"":             "",
		"plain":        "plain",
		"$(A)-$(B)":    "1-two",
		"$(NONE)":      "$(NONE)",
		"$$(A)":        "$(A)",
		"$$$(A)":       "$1",
		"$(A":          "$(A",
		"$":            "$",
		"x$":           "x$",
		"$A":           "$A",
		"$(A)$$$$(B)":  "1$$(B)",
		"$()":          "$()",
		"a$(A)b$(C)$x": "a1b$(C)$x",
	} {
		if got := Expand(in, func(n string) (string, bool) { v, ok := vars[n]; return v, ok }); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("a$(B)$$(")
	f.Fuzz(func(t *testing.T, s string) {
		same := Expand(Expand(s, func(string) (string, bool) { return "", false }), func(string) (string, bool) { return "", false })
		if len(same) > len(s) {
			t.Errorf("%q grew to %q", s, same)
		}
	})
}

type sources struct {
	maps     map[string]map[string]string
	services map[string][]corev1.Service
}

func (s sources) ConfigMap(_ context.Context, ns, name string) (*corev1.ConfigMap, error) {
	if m, ok := s.maps[name]; ok {
		return &corev1.ConfigMap{Data: m}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

func (s sources) Secret(_ context.Context, ns, name string) (*corev1.Secret, error) {
	m, ok := s.maps[name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	out := &corev1.Secret{Data: map[string][]byte{}}
	for k, v := range m {
		out.Data[k] = []byte(v)
	}
	return out, nil
}

func (s sources) Services(_ context.Context, ns string) ([]corev1.Service, error) {
	return s.services[ns], nil
}

func service(name, ip string, ports ...corev1.ServicePort) corev1.Service {
	return corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: ports}}
}

func TestMake(t *testing.T) {
	yes, no := true, false
	cm := func(name, key string, opt *bool) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: opt}}
	}
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Labels: map[string]string{"app": "x"}, Annotations: map[string]string{"a/b": "c"}},
		Spec:       corev1.PodSpec{NodeName: "n1", ServiceAccountName: "sa", EnableServiceLinks: &no},
	}
	src := sources{
		maps: map[string]map[string]string{"m": {"K": "v", "L": "w"}},
		services: map[string][]corev1.Service{
			"default": {service("kubernetes", "10.0.0.1", corev1.ServicePort{Name: "https", Port: 443}), service("other", "10.0.0.9", corev1.ServicePort{Port: 1})},
			"ns":      {service("my-db", "10.0.0.2", corev1.ServicePort{Port: 5432, Protocol: corev1.ProtocolTCP}), service("headless", "None", corev1.ServicePort{Port: 1})},
		},
	}
	kube := []Var{
		{"KUBERNETES_SERVICE_HOST", "10.0.0.1"},
		{"KUBERNETES_SERVICE_PORT", "443"},
		{"KUBERNETES_SERVICE_PORT_HTTPS", "443"},
		{"KUBERNETES_PORT", "tcp://10.0.0.1:443"},
		{"KUBERNETES_PORT_443_TCP", "tcp://10.0.0.1:443"},
		{"KUBERNETES_PORT_443_TCP_PROTO", "tcp"},
		{"KUBERNETES_PORT_443_TCP_PORT", "443"},
		{"KUBERNETES_PORT_443_TCP_ADDR", "10.0.0.1"},
	}
	for _, tc := range []struct {
		name    string
		c       corev1.Container
		links   bool
		want    []Var
		wantErr string
	}{
		{
			name: "values expand in order", c: corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)$(C)"}, {Name: "C", Value: "$(B)"}, {Name: "A", Value: "$(KUBERNETES_SERVICE_HOST)"}}},
			want: []Var{{"A", "10.0.0.1"}, {"B", "1$(C)"}, {"C", "1$(C)"}},
		},
		{
			name: "fields", c: corev1.Container{Env: []corev1.EnvVar{
				{Name: "N", ValueFrom: field("metadata.name")},
				{Name: "L", ValueFrom: field("metadata.labels['app']")},
				{Name: "A", ValueFrom: field("metadata.annotations['a/b']")},
				{Name: "IP", ValueFrom: field("status.podIP")},
				{Name: "H", ValueFrom: field("status.hostIPs")},
				{Name: "SA", ValueFrom: field("spec.serviceAccountName")},
			}},
			want: []Var{{"N", "p"}, {"L", "x"}, {"A", "c"}, {"IP", "1.2.3.4"}, {"H", "9.9.9.9,::9"}, {"SA", "sa"}},
		},
		{name: "unknown field", c: corev1.Container{Env: []corev1.EnvVar{{Name: "N", ValueFrom: field("status.phase")}}}, wantErr: "unsupported fieldPath: status.phase"},
		{name: "config maps", c: corev1.Container{Env: []corev1.EnvVar{{Name: "K", ValueFrom: cm("m", "K", nil)}, {Name: "X", ValueFrom: cm("m", "none", &yes)}, {Name: "Y", ValueFrom: cm("none", "K", &yes)}}}, want: []Var{{"K", "v"}}},
		{name: "missing key", c: corev1.Container{Env: []corev1.EnvVar{{Name: "K", ValueFrom: cm("m", "no", nil)}}}, wantErr: "couldn't find key no in ConfigMap ns/m"},
		{name: "missing map", c: corev1.Container{Env: []corev1.EnvVar{{Name: "K", ValueFrom: cm("none", "no", nil)}}}, wantErr: `configmaps "none" not found`},
		{
			name: "envFrom with prefix, overridden", c: corev1.Container{EnvFrom: []corev1.EnvFromSource{
				{Prefix: "P_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}}},
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: &yes}},
			}, Env: []corev1.EnvVar{{Name: "P_K", Value: "mine"}}},
			want: []Var{{"P_K", "mine"}, {"P_L", "w"}},
		},
		{
			name: "resources", c: corev1.Container{
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1500m")}},
				Env: []corev1.EnvVar{
					{Name: "C", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "requests.cpu"}}},
					{Name: "M", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
				},
			},
			want: []Var{{"C", "2"}, {"M", "1024"}},
		},
		{
			name: "service links", links: true, c: corev1.Container{},
			want: []Var{
				{"MY_DB_SERVICE_HOST", "10.0.0.2"},
				{"MY_DB_SERVICE_PORT", "5432"},
				{"MY_DB_PORT", "tcp://10.0.0.2:5432"},
				{"MY_DB_PORT_5432_TCP", "tcp://10.0.0.2:5432"},
				{"MY_DB_PORT_5432_TCP_PROTO", "tcp"},
				{"MY_DB_PORT_5432_TCP_PORT", "5432"},
				{"MY_DB_PORT_5432_TCP_ADDR", "10.0.0.2"},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := pod.DeepCopy()
			want := append(append([]Var{}, kube...), tc.want...)
			if tc.links {
				p.Spec.EnableServiceLinks = nil
				want = append(append([]Var{}, tc.want...), kube...)
			}
			got, err := Make(context.Background(), Input{
				Pod: p, Container: &tc.c, PodIPs: []string{"1.2.3.4"}, HostIPs: []string{"9.9.9.9", "::9"},
				Allocatable: corev1.ResourceList{"memory": resource.MustParse("1Gi")},
			}, src)
			if tc.wantErr != "" {
				if err == nil || err.Error() != tc.wantErr {
					t.Fatalf("error %v, want %s", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
