package podspec

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"
)

// PrepareTemplate clears the fields of features that Kubernetes has off and this server does not have, unless old uses
// them too, and adds a warning to ctx for each. old is nil on create.
func PrepareTemplate(ctx context.Context, template, old *corev1.PodTemplateSpec, path *field.Path) {
	var oldSpec *corev1.PodSpec
	if old != nil {
		oldSpec = &old.Spec
	}
	Prepare(ctx, &template.Spec, oldSpec, path.Child("spec"))
}

// Prepare is PrepareTemplate for a spec on its own.
func Prepare(ctx context.Context, spec, old *corev1.PodSpec, path *field.Path) {
	used := map[string]bool{}
	if old != nil {
		unsupported(old, path, func(feature string, _ *field.Path, _ func()) { used[feature] = true })
	}
	unsupported(spec, path, func(feature string, p *field.Path, clear func()) {
		if used[feature] {
			return
		}
		clear()
		warning.AddWarning(ctx, "", fmt.Sprintf("%s: dropped, the feature %s is not supported", p, feature))
	})
}

// unsupported calls found for every field of spec that belongs to a feature this server does not have.
func unsupported(spec *corev1.PodSpec, path *field.Path, found func(feature string, p *field.Path, clear func())) {
	if len(spec.EvictionResponders) > 0 {
		found("EvictionRequestAPI", path.Child("evictionResponders"), func() { spec.EvictionResponders = nil })
	}
	for i := range spec.Volumes {
		unsupportedInVolume(&spec.Volumes[i].VolumeSource, path.Child("volumes").Index(i), found)
	}
	each(spec, path, func(c *corev1.Container, p *field.Path) {
		for i := range c.VolumeMounts {
			if m := &c.VolumeMounts[i]; len(m.BindMountOptions) > 0 {
				found("VolumeBindMountOptions", p.Child("volumeMounts").Index(i).Child("bindMountOptions"), func() { m.BindMountOptions = nil })
			}
		}
		probe := func(name string, probe *corev1.Probe) {
			if probe == nil {
				return
			}
			unsupportedInHTTP(probe.HTTPGet, p.Child(name, "httpGet"), found)
			if probe.GRPC != nil && probe.GRPC.Mode != nil {
				found("GRPCContainerProbeTLS", p.Child(name, "grpc", "mode"), func() { probe.GRPC.Mode = nil })
			}
		}
		probe("livenessProbe", c.LivenessProbe)
		probe("readinessProbe", c.ReadinessProbe)
		probe("startupProbe", c.StartupProbe)
		if c.Lifecycle == nil {
			return
		}
		p = p.Child("lifecycle")
		if c.Lifecycle.StopSignal != nil {
			found("ContainerStopSignals", p.Child("stopSignal"), func() { c.Lifecycle.StopSignal = nil })
		}
		if h := c.Lifecycle.PostStart; h != nil {
			unsupportedInHTTP(h.HTTPGet, p.Child("postStart", "httpGet"), found)
		}
		if h := c.Lifecycle.PreStop; h != nil {
			unsupportedInHTTP(h.HTTPGet, p.Child("preStop", "httpGet"), found)
		}
	})
}

func unsupportedInHTTP(h *corev1.HTTPGetAction, p *field.Path, found func(string, *field.Path, func())) {
	if h != nil && h.Protocol != nil {
		found("H2CContainerProbe", p.Child("protocol"), func() { h.Protocol = nil })
	}
}

func unsupportedInVolume(v *corev1.VolumeSource, path *field.Path, found func(string, *field.Path, func())) {
	user := func(user **int64, p *field.Path) {
		if *user != nil {
			found("AtomicWriteVolumeUserFields", p, func() { *user = nil })
		}
	}
	keys := func(items []corev1.KeyToPath, p *field.Path) {
		for i := range items {
			user(&items[i].User, p.Child("items").Index(i).Child("user"))
		}
	}
	files := func(items []corev1.DownwardAPIVolumeFile, p *field.Path) {
		for i := range items {
			user(&items[i].User, p.Child("items").Index(i).Child("user"))
		}
	}
	if d := v.EmptyDir; d != nil && d.Mode != nil {
		found("EmptyDirVolumeMode", path.Child("emptyDir", "mode"), func() { d.Mode = nil })
	}
	if s := v.Secret; s != nil {
		user(&s.DefaultUser, path.Child("secret", "defaultUser"))
		keys(s.Items, path.Child("secret"))
	}
	if m := v.ConfigMap; m != nil {
		user(&m.DefaultUser, path.Child("configMap", "defaultUser"))
		keys(m.Items, path.Child("configMap"))
	}
	if d := v.DownwardAPI; d != nil {
		user(&d.DefaultUser, path.Child("downwardAPI", "defaultUser"))
		files(d.Items, path.Child("downwardAPI"))
	}
	if e := v.Ephemeral; e != nil && e.VolumeClaimTemplate != nil {
		if ref := e.VolumeClaimTemplate.Spec.DataSourceRef; ref != nil && ref.Namespace != nil {
			found("CrossNamespaceVolumeDataSource", path.Child("ephemeral", "volumeClaimTemplate", "spec", "dataSourceRef", "namespace"), func() { ref.Namespace = nil })
		}
	}
	p := v.Projected
	if p == nil {
		return
	}
	user(&p.DefaultUser, path.Child("projected", "defaultUser"))
	for i := range p.Sources {
		s, sp := &p.Sources[i], path.Child("projected", "sources").Index(i)
		if s.Secret != nil {
			keys(s.Secret.Items, sp.Child("secret"))
		}
		if s.ConfigMap != nil {
			keys(s.ConfigMap.Items, sp.Child("configMap"))
		}
		if s.DownwardAPI != nil {
			files(s.DownwardAPI.Items, sp.Child("downwardAPI"))
		}
		if s.ServiceAccountToken != nil {
			user(&s.ServiceAccountToken.User, sp.Child("serviceAccountToken", "user"))
		}
		if s.ClusterTrustBundle != nil {
			found("ClusterTrustBundleProjection", sp.Child("clusterTrustBundle"), func() { s.ClusterTrustBundle = nil })
		}
		if s.PodCertificate != nil {
			found("PodCertificateProjection", sp.Child("podCertificate"), func() { s.PodCertificate = nil })
		}
	}
}
