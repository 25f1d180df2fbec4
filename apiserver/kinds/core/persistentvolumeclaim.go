package core

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func persistentVolumeClaim() *kind.Kind {
	return &kind.Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"),
		Resource:   "persistentvolumeclaims",
		Singular:   "persistentvolumeclaim",
		ShortNames: []string{"pvc"},
		Namespaced: true,

		Default: typed.Default(func(c *corev1.PersistentVolumeClaim) {
			if c.Status.Phase == "" {
				c.Status.Phase = corev1.ClaimPending
			}
			podspec.DefaultClaimSpec(&c.Spec)
			podspec.RoundResources(c.Status.Capacity)
			podspec.RoundResources(c.Status.AllocatedResources)
		}),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, c *corev1.PersistentVolumeClaim) {
			c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
			sameNamespace(ctx, c, nil)
			normalizeSources(&c.Spec)
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(ctx context.Context, c, old *corev1.PersistentVolumeClaim) {
			c.Status = old.Status
			sameNamespace(ctx, c, old)
			normalizeSources(&c.Spec)
		}),
		Validate: typed.Validate(func(c *corev1.PersistentVolumeClaim) field.ErrorList {
			return podspec.ValidateClaimSpec(&c.Spec, field.NewPath("spec"))
		}),
		ValidateUpdate: typed.ValidateUpdate(validateClaimUpdate),
		Warnings: typed.Warnings(func(_ context.Context, c, old *corev1.PersistentVolumeClaim) []string {
			if old != nil {
				return nil
			}
			return claimWarnings(c)
		}),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		Status: &kind.Subresource{
			Validate: typed.ValidateUpdate(func(c, _ *corev1.PersistentVolumeClaim) field.ErrorList {
				e := &validate.Errors{}
				if c.ResourceVersion == "" {
					e.Required(field.NewPath("resourceVersion"), "")
				}
				if len(c.Spec.AccessModes) == 0 {
					e.Required(field.NewPath("Spec", "accessModes"), "")
				}
				for _, list := range []struct {
					name      string
					resources corev1.ResourceList
				}{{"capacity", c.Status.Capacity}, {"allocatedResources", c.Status.AllocatedResources}} {
					for _, name := range sets.List(sets.KeySet(list.resources)) {
						e.NonNegativeQuantity(list.resources[name], field.NewPath("status", list.name).Key(string(name)))
					}
				}
				return e.List
			}),
		},
		Fields: map[string]func(client.Object) string{"name": func(obj client.Object) string { return obj.GetName() }},
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Status", corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()["phase"]),
			table.Text("Volume", corev1.PersistentVolumeClaimSpec{}.SwaggerDoc()["volumeName"]),
			table.Text("Capacity", corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()["capacity"]),
			table.Text("Access Modes", corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()["accessModes"]),
			table.Text("StorageClass", "StorageClass of the pvc"),
			table.Text("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
			table.Age(),
			table.Wide(table.Text("VolumeMode", corev1.PersistentVolumeClaimSpec{}.SwaggerDoc()["volumeMode"])),
		},
		Row: typed.Row(func(c *corev1.PersistentVolumeClaim, now time.Time) []any {
			phase := string(c.Status.Phase)
			if c.DeletionTimestamp != nil {
				phase = "Terminating"
			}
			capacity, modes := "", ""
			if c.Spec.VolumeName != "" {
				modes, capacity = accessModes(c.Status.AccessModes), storageOf(c.Status.Capacity)
			}
			return []any{
				c.Name, phase, c.Spec.VolumeName, capacity, modes, classOf(c, ptr.Deref(c.Spec.StorageClassName, "")),
				ptr.Deref(c.Spec.VolumeAttributesClassName, "<unset>"), table.Since(c.CreationTimestamp, now), volumeMode(c.Spec.VolumeMode),
			}
		}),
	}
}

// sameNamespace drops a reference to another namespace's data, which is an alpha feature, with a warning.
func sameNamespace(ctx context.Context, c, old *corev1.PersistentVolumeClaim) {
	ref := c.Spec.DataSourceRef
	if ref == nil || ref.Namespace == nil {
		return
	}
	if old != nil && old.Spec.DataSourceRef != nil && old.Spec.DataSourceRef.Namespace != nil {
		return
	}
	ref.Namespace = nil
	warning.AddWarning(ctx, "", "spec.dataSourceRef.namespace: dropped, the feature CrossNamespaceVolumeDataSource is not supported")
}

// normalizeSources gives dataSource and dataSourceRef the same content if only one is set.
func normalizeSources(s *corev1.PersistentVolumeClaimSpec) {
	switch {
	case s.DataSource != nil && s.DataSourceRef == nil:
		s.DataSourceRef = &corev1.TypedObjectReference{APIGroup: s.DataSource.APIGroup, Kind: s.DataSource.Kind, Name: s.DataSource.Name}
	case s.DataSource == nil && s.DataSourceRef != nil && (s.DataSourceRef.Namespace == nil || *s.DataSourceRef.Namespace == ""):
		s.DataSource = &corev1.TypedLocalObjectReference{APIGroup: s.DataSourceRef.APIGroup, Kind: s.DataSourceRef.Kind, Name: s.DataSourceRef.Name}
	}
}

func validateClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	e := &validate.Errors{}
	e.Add(podspec.ValidateClaimSpec(&c.Spec, field.NewPath("spec")))
	spec := field.NewPath("spec")
	rest := c.Spec.DeepCopy()
	bound := old.Status.Phase == corev1.ClaimBound
	// The controller binds by setting the volume's name, once.
	if old.Spec.VolumeName == "" {
		rest.VolumeName = ""
	}
	if old.Spec.StorageClassName == nil && rest.StorageClassName != nil && !bound {
		// A claim without a class may get the cluster's default one later.
		if _, annotated := old.Annotations[corev1.BetaStorageClassAnnotation]; !annotated {
			rest.StorageClassName = nil
		}
	}
	size, oldSize := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if bound && rest.Resources.Requests != nil && old.Spec.Resources.Requests != nil {
		rest.Resources.Requests[corev1.ResourceStorage] = oldSize
		if size.Cmp(oldSize) < 0 {
			if actual := old.Status.Capacity[corev1.ResourceStorage]; size.Cmp(actual) <= 0 {
				e.Forbidden(spec.Child("resources", "requests", "storage"), "field can not be less than status.capacity")
			}
		}
	}
	rest.VolumeAttributesClassName = old.Spec.VolumeAttributesClassName
	if !equality.Semantic.DeepEqual(rest, &old.Spec) {
		e.Forbidden(spec, fmt.Sprintf("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n%v", diff.Diff(*rest, old.Spec)))
	}
	now, before := c.Spec.VolumeAttributesClassName, old.Spec.VolumeAttributesClassName
	if bound && before != nil && *before != "" && (now == nil || *now == "") && old.Status.CurrentVolumeAttributesClassName != nil {
		e.Forbidden(spec.Child("volumeAttributesClassName"), "update to nil or empty string is not allowed")
	}
	e.Immutable(c.Spec.VolumeMode, old.Spec.VolumeMode, spec.Child("volumeMode"))
	key := corev1.BetaStorageClassAnnotation
	if c.Annotations[key] != old.Annotations[key] {
		e.Add(field.ErrorList{field.Invalid(field.NewPath("metadata", "annotations").Key(key), c.Annotations[key], validate.ImmutableText)})
	}
	return e.List
}

func claimWarnings(c *corev1.PersistentVolumeClaim) []string {
	var out []string
	if _, set := c.Annotations[corev1.BetaStorageClassAnnotation]; set {
		out = append(out, fmt.Sprintf("metadata.annotations[%s]: deprecated since v1.8; use \"storageClassName\" attribute instead", corev1.BetaStorageClassAnnotation))
	}
	for _, list := range []struct {
		name      string
		resources corev1.ResourceList
	}{{"limits", c.Spec.Resources.Limits}, {"requests", c.Spec.Resources.Requests}} {
		if quantity, set := list.resources[corev1.ResourceStorage]; set && quantity.MilliValue()%1000 != 0 {
			out = append(out, fmt.Sprintf("%s: fractional byte value %q is invalid, must be an integer",
				field.NewPath("spec", "resources", list.name).Key(string(corev1.ResourceStorage)), quantity.String()))
		}
	}
	return out
}
