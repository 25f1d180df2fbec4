package podspec

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// BenchmarkPod runs what the creation of an ordinary pod takes in this package.
func BenchmarkPod(b *testing.B) {
	base := newPod(func(p *corev1.Pod) {
		c := main0(p)
		c.Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
		c.Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}
		c.Resources = corev1.ResourceRequirements{Requests: list("cpu=100m", "memory=64Mi"), Limits: list("cpu=1", "memory=128Mi")}
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}}}
		c.VolumeMounts = []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}}
		p.Spec.Volumes = []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
		}}}}}
	})
	ctx := context.Background()
	for name, f := range map[string]func(p *corev1.Pod){
		"default":  DefaultPod,
		"prepare":  func(p *corev1.Pod) { Prepare(ctx, &p.Spec, nil, field.NewPath("spec")) },
		"validate": func(p *corev1.Pod) { ValidatePod(p) },
		"warn":     func(p *corev1.Pod) { PodWarnings(ctx, p, nil) },
		"qos":      func(p *corev1.Pod) { QOSClass(p) },
		"update":   func(p *corev1.Pod) { ValidatePodUpdate(p, base) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f(base)
			}
		})
	}
}
