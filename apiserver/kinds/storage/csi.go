package storage

import (
	"context"
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

const (
	maxDriverName = 63
	maxNodeID     = 256
	minTokenTTL   = 10 * 60
	minPeriod     = 10
)

func driverName(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > maxDriverName {
		errs = append(errs, field.TooLong(path, name, maxDriverName))
	}
	return append(errs, rules.Messages(validation.IsDNS1123Subdomain(strings.ToLower(name)), name, path)...)
}

func csiDriver() *kind.Kind {
	doc := storagev1.CSIDriverSpec{}.SwaggerDoc()
	return &kind.Kind{
		GVK:      storagev1.SchemeGroupVersion.WithKind("CSIDriver"),
		Resource: "csidrivers",
		Singular: "csidriver",

		Default: typed.Default(func(d *storagev1.CSIDriver) {
			s := &d.Spec
			rules.SetNil(&s.AttachRequired, true)
			rules.SetNil(&s.PodInfoOnMount, false)
			rules.SetNil(&s.StorageCapacity, false)
			rules.SetNil(&s.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
			rules.SetNil(&s.RequiresRepublish, false)
			rules.SetNil(&s.SELinuxMount, false)
			rules.SetNil(&s.PreventPodSchedulingIfMissing, false)
			if len(s.VolumeLifecycleModes) == 0 {
				s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
			}
		}),
		Validate: typed.Validate(func(d *storagev1.CSIDriver) field.ErrorList {
			return validateDriver(&d.Spec, field.NewPath("spec"))
		}),
		ValidateUpdate: typed.ValidateUpdate(func(d, old *storagev1.CSIDriver) field.ErrorList {
			path := field.NewPath("spec")
			errs := validateDriver(&d.Spec, path)
			errs = append(errs, rules.Immutable(d.Spec.AttachRequired, old.Spec.AttachRequired, path.Child("attachRequired"))...)
			return append(errs, rules.Immutable(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, path.Child("volumeLifecycleModes"))...)
		}),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Bool("AttachRequired", doc["attachRequired"]),
			table.Bool("PodInfoOnMount", doc["podInfoOnMount"]),
			table.Bool("StorageCapacity", doc["storageCapacity"]),
			table.Text("TokenRequests", doc["tokenRequests"]),
			table.Bool("RequiresRepublish", doc["requiresRepublish"]),
			table.Text("Modes", doc["volumeLifecycleModes"]),
			table.Age(),
		},
		Row: typed.Row(func(d *storagev1.CSIDriver, now time.Time) []any {
			is := func(b *bool, fallback bool) bool {
				if b == nil {
					return fallback
				}
				return *b
			}
			tokens, modes := "<unset>", "<none>"
			if len(d.Spec.TokenRequests) > 0 {
				var audiences []string
				for _, t := range d.Spec.TokenRequests {
					audiences = append(audiences, t.Audience)
				}
				tokens = strings.Join(audiences, ",")
			}
			if len(d.Spec.VolumeLifecycleModes) > 0 {
				var list []string
				for _, m := range d.Spec.VolumeLifecycleModes {
					list = append(list, string(m))
				}
				modes = strings.Join(list, ",")
			}
			return []any{
				d.Name, is(d.Spec.AttachRequired, true), is(d.Spec.PodInfoOnMount, false), is(d.Spec.StorageCapacity, false), tokens,
				is(d.Spec.RequiresRepublish, false), modes, table.Since(d.CreationTimestamp, now),
			}
		}),
	}
}

func validateDriver(s *storagev1.CSIDriverSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	required := func(b *bool, name string) {
		if b == nil {
			errs = append(errs, field.Required(path.Child(name), ""))
		}
	}
	required(s.AttachRequired, "attachRequired")
	required(s.PodInfoOnMount, "podInfoOnMount")
	required(s.StorageCapacity, "storageCapacity")
	if s.FSGroupPolicy == nil {
		errs = append(errs, field.Required(path.Child("fsGroupPolicy"), ""))
	} else {
		errs = append(errs, rules.OneOf(*s.FSGroupPolicy, path.Child("fsGroupPolicy"), storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	}
	required(s.SELinuxMount, "seLinuxMount")
	audiences := map[string]bool{}
	for i, t := range s.TokenRequests {
		at := path.Child("tokenRequests").Index(i)
		if audiences[t.Audience] {
			errs = append(errs, field.Duplicate(at.Child("audience"), t.Audience))
		}
		audiences[t.Audience] = true
		if t.ExpirationSeconds != nil && *t.ExpirationSeconds < minTokenTTL {
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *t.ExpirationSeconds, "may not specify a duration less than 10 minutes"))
		}
		if t.ExpirationSeconds != nil && *t.ExpirationSeconds > 1<<32 {
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *t.ExpirationSeconds, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	for i, m := range s.VolumeLifecycleModes {
		errs = append(errs, rules.OneOf(m, path.Child("volumeLifecycleModes").Index(i), storagev1.VolumeLifecycleEphemeral, storagev1.VolumeLifecyclePersistent)...)
	}
	if p := s.NodeAllocatableUpdatePeriodSeconds; p != nil && *p < minPeriod {
		errs = append(errs, field.Invalid(path.Child("nodeAllocatableUpdatePeriodSeconds"), *p, "must be greater than or equal to 10 seconds"))
	}
	return errs
}

func csiNode() *kind.Kind {
	return &kind.Kind{
		GVK:      storagev1.SchemeGroupVersion.WithKind("CSINode"),
		Resource: "csinodes",
		Singular: "csinode",

		Validate: typed.Validate(func(n *storagev1.CSINode) field.ErrorList { return validateNodeDrivers(n.Spec.Drivers) }),
		ValidateUpdate: typed.ValidateUpdate(func(n, old *storagev1.CSINode) field.ErrorList {
			errs := validateNodeDrivers(n.Spec.Drivers)
			for i := range n.Spec.Drivers {
				for k := range old.Spec.Drivers {
					d, before := &n.Spec.Drivers[i], &old.Spec.Drivers[k]
					if d.Name != before.Name {
						continue
					}
					without := *d
					without.Allocatable = before.Allocatable
					if !apiequality.Semantic.DeepEqual(without, *before) {
						errs = append(errs, field.Invalid(field.NewPath("spec", "drivers").Index(i), *d, "field is immutable"))
					}
				}
			}
			return errs
		}),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Number("Drivers", "Drivers indicates the number of CSI drivers registered on the node"),
			table.Age(),
		},
		Row: typed.Row(func(n *storagev1.CSINode, now time.Time) []any {
			return []any{n.Name, int64(len(n.Spec.Drivers)), table.Since(n.CreationTimestamp, now)}
		}),
	}
}

func validateNodeDrivers(drivers []storagev1.CSINodeDriver) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i := range drivers {
		d, at := &drivers[i], field.NewPath("spec", "drivers").Index(i)
		errs = append(errs, driverName(d.Name, at.Child("name"))...)
		if d.NodeID == "" {
			errs = append(errs, field.Required(at.Child("nodeID"), ""))
		} else if len(d.NodeID) > maxNodeID {
			errs = append(errs, field.Invalid(at.Child("nodeID"), d.NodeID, "must be 256 characters or less"))
		}
		if d.Allocatable != nil {
			errs = append(errs, rules.NonNegativePointer(d.Allocatable.Count, at.Child("allocatable", "count"))...)
		}
		if names[d.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		names[d.Name] = true
		keys := map[string]bool{}
		for k, key := range d.TopologyKeys {
			where := at.Child("topologyKeys").Index(k)
			if key == "" {
				errs = append(errs, field.Required(where, ""))
				continue
			}
			if keys[key] {
				errs = append(errs, field.Duplicate(where, key))
			}
			keys[key] = true
			errs = append(errs, rules.Messages(validation.IsQualifiedName(key), key, where)...)
		}
	}
	return errs
}

func csiStorageCapacity() *kind.Kind {
	doc := storagev1.CSIStorageCapacity{}.SwaggerDoc()
	return &kind.Kind{
		GVK:        storagev1.SchemeGroupVersion.WithKind("CSIStorageCapacity"),
		Resource:   "csistoragecapacities",
		Singular:   "csistoragecapacity",
		Namespaced: true,

		Validate: typed.Validate(validateCapacity),
		ValidateUpdate: typed.ValidateUpdate(func(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
			errs := validateCapacity(c)
			errs = append(errs, rules.Immutable(c.NodeTopology, old.NodeTopology, field.NewPath("nodeTopology"))...)
			return append(errs, rules.Immutable(c.StorageClassName, old.StorageClassName, field.NewPath("storageClassName"))...)
		}),
		Columns: []metav1.TableColumnDefinition{
			table.Name(), table.Text("StorageClassName", doc["storageClassName"]), table.Text("Capacity", doc["capacity"]),
		},
		Row: typed.Row(func(c *storagev1.CSIStorageCapacity, now time.Time) []any {
			capacity := "<unset>"
			if c.Capacity != nil {
				capacity = c.Capacity.String()
			}
			return []any{c.Name, c.StorageClassName, capacity}
		}),
	}
}

func validateCapacity(c *storagev1.CSIStorageCapacity) field.ErrorList {
	errs := metav1validation.ValidateLabelSelector(c.NodeTopology, metav1validation.LabelSelectorValidationOptions{}, field.NewPath("nodeTopology"))
	errs = append(errs, rules.Messages(apivalidation.NameIsDNSSubdomain(c.StorageClassName, false), c.StorageClassName, field.NewPath("storageClassName"))...)
	if c.Capacity != nil && c.Capacity.Sign() < 0 {
		errs = append(errs, field.Invalid(field.NewPath("capacity"), c.Capacity.String(), "must be greater than or equal to 0"))
	}
	if c.MaximumVolumeSize != nil && c.MaximumVolumeSize.Sign() < 0 {
		errs = append(errs, field.Invalid(field.NewPath("maximumVolumeSize"), c.MaximumVolumeSize.String(), "must be greater than or equal to 0"))
	}
	return errs
}

func volumeAttachment() *kind.Kind {
	return &kind.Kind{
		GVK:      storagev1.SchemeGroupVersion.WithKind("VolumeAttachment"),
		Resource: "volumeattachments",
		Singular: "volumeattachment",

		// Attachments have no generation.
		PrepareForCreate: typed.Prepare(func(_ context.Context, a *storagev1.VolumeAttachment) { a.Status = storagev1.VolumeAttachmentStatus{} }),
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, a, old *storagev1.VolumeAttachment) { a.Status = old.Status }),
		Validate:         typed.Validate(validateAttachment),
		ValidateUpdate: typed.ValidateUpdate(func(a, old *storagev1.VolumeAttachment) field.ErrorList {
			return append(validateAttachment(a), rules.Immutable(a.Spec, old.Spec, field.NewPath("spec"))...)
		}),
		Status: &kind.Subresource{},
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Attacher", storagev1.VolumeAttachmentSpec{}.SwaggerDoc()["attacher"]),
			table.Text("PV", storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"]),
			table.Text("Node", storagev1.VolumeAttachmentSpec{}.SwaggerDoc()["nodeName"]),
			table.Bool("Attached", storagev1.VolumeAttachmentStatus{}.SwaggerDoc()["attached"]),
			table.Age(),
		},
		Row: typed.Row(func(a *storagev1.VolumeAttachment, now time.Time) []any {
			volume := ""
			if a.Spec.Source.PersistentVolumeName != nil {
				volume = *a.Spec.Source.PersistentVolumeName
			}
			return []any{a.Name, a.Spec.Attacher, volume, a.Spec.NodeName, a.Status.Attached, table.Since(a.CreationTimestamp, now)}
		}),
	}
}

func validateAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	path := field.NewPath("spec")
	errs := driverName(a.Spec.Attacher, path.Child("attacher"))
	inline, volume := a.Spec.Source.InlineVolumeSpec, a.Spec.Source.PersistentVolumeName
	switch {
	case inline == nil && volume == nil:
		errs = append(errs, field.Required(path.Child("source"), "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case inline != nil && volume != nil:
		errs = append(errs, field.Forbidden(path.Child("source"), "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case volume != nil && *volume == "":
		errs = append(errs, field.Required(path.Child("source", "persistentVolumeName"), "must specify non empty persistentVolumeName"))
	}
	return append(errs, rules.Messages(apivalidation.NameIsDNSSubdomain(a.Spec.NodeName, false), a.Spec.NodeName, path.Child("nodeName"))...)
}
