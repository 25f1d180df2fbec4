package podspec

import (
	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// AccessModes checks the access modes of a volume or a claim.
func AccessModes(e *validate.Errors, modes []corev1.PersistentVolumeAccessMode, p *field.Path) {
	exclusive, others := false, false
	for _, mode := range modes {
		validate.OneOfOrEmptyRefused(e, p, mode,
			corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
		if mode == corev1.ReadWriteOncePod {
			exclusive = true
		} else {
			others = true
		}
	}
	if exclusive && others {
		e.Forbidden(p, "may not use ReadWriteOncePod with other access modes")
	}
}

// VolumeMode checks whether a volume is a file system or a block device.
func VolumeMode(e *validate.Errors, mode *corev1.PersistentVolumeMode, p *field.Path) {
	if mode != nil {
		validate.OneOfOrEmptyRefused(e, p, *mode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	}
}

// ValidateClaimSpec returns every mistake of the spec of a PersistentVolumeClaim or of a claim template.
func ValidateClaimSpec(spec *corev1.PersistentVolumeClaimSpec, p *field.Path) field.ErrorList {
	e := &validate.Errors{}
	if len(spec.AccessModes) == 0 {
		e.Required(p.Child("accessModes"), "at least 1 access mode is required")
	}
	if spec.Selector != nil {
		e.Add(metav1validation.ValidateLabelSelector(spec.Selector, metav1validation.LabelSelectorValidationOptions{}, p.Child("selector")))
	}
	AccessModes(e, spec.AccessModes, p.Child("accessModes"))
	if storage, set := spec.Resources.Requests[corev1.ResourceStorage]; !set {
		e.Required(p.Child("resources").Key(string(corev1.ResourceStorage)), "")
	} else {
		e.ResourceQuantity(corev1.ResourceStorage, storage, p.Child("resources").Key(string(corev1.ResourceStorage)))
		e.PositiveQuantity(storage, p.Child("resources").Key(string(corev1.ResourceStorage)))
	}
	if spec.StorageClassName != nil && *spec.StorageClassName != "" {
		e.DNSSubdomain(*spec.StorageClassName, p.Child("storageClassName"))
	}
	if spec.VolumeAttributesClassName != nil && *spec.VolumeAttributesClassName != "" {
		e.DNSSubdomain(*spec.VolumeAttributesClassName, p.Child("volumeAttributesClassName"))
	}
	VolumeMode(e, spec.VolumeMode, p.Child("volumeMode"))
	dataSource(e, spec.DataSource, nil, p.Child("dataSource"))
	if ref := spec.DataSourceRef; ref != nil {
		dataSource(e, &corev1.TypedLocalObjectReference{APIGroup: ref.APIGroup, Kind: ref.Kind, Name: ref.Name}, ref.Namespace, p.Child("dataSourceRef"))
	}
	if spec.DataSource != nil && spec.DataSourceRef != nil && (spec.DataSourceRef.Namespace == nil || *spec.DataSourceRef.Namespace == "") {
		a, b := spec.DataSource, spec.DataSourceRef
		if a.Kind != b.Kind || a.Name != b.Name || groupOf(a.APIGroup) != groupOf(b.APIGroup) {
			e.Invalid(p, p.Child("dataSource"), "must match dataSourceRef")
		}
	}
	return e.List
}

func groupOf(group *string) string {
	if group == nil {
		return ""
	}
	return *group
}

func dataSource(e *validate.Errors, ref *corev1.TypedLocalObjectReference, namespace *string, p *field.Path) {
	if ref == nil {
		return
	}
	e.RequireText(ref.Name, p.Child("name"))
	e.RequireText(ref.Kind, p.Child("kind"))
	group := groupOf(ref.APIGroup)
	if group == "" && ref.Kind != "PersistentVolumeClaim" {
		e.Invalid(p, ref.Kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
	}
	if group != "" {
		e.DNSSubdomain(group, p.Child("apiGroup"))
	}
	if namespace != nil && *namespace != "" {
		e.DNSLabel(*namespace, p.Child("namespace"))
	}
}
