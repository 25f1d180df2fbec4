package storage

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

// Annotations that make a StorageClass the default one.
const (
	IsDefaultAnnotation     = "storageclass.kubernetes.io/is-default-class"
	betaIsDefaultAnnotation = "storageclass.beta.kubernetes.io/is-default-class"
)

const (
	maxParameters     = 512
	maxParametersSize = 256 * 1024
)

// IsDefault tells whether a class is marked as the one for claims that name none.
func IsDefault(c *storagev1.StorageClass) bool {
	return c.Annotations[IsDefaultAnnotation] == "true" || c.Annotations[betaIsDefaultAnnotation] == "true"
}

// Group returns the declarations of API group storage.k8s.io.
func Group() kind.Group {
	return kind.Group{
		Name:        storagev1.GroupName,
		AddToScheme: storagev1.AddToScheme,
		Versions:    []string{"v1"},
		Kinds:       []*kind.Kind{csiDriver(), csiNode(), csiStorageCapacity(), storageClass(), volumeAttachment()},
	}
}

// immutable is what kube-apiserver says of a change to a field that is declared so; it doesn't name the value.
const immutable = "field is immutable"

func storageClass() *kind.Kind {
	doc := storagev1.StorageClass{}.SwaggerDoc()
	return &kind.Kind{
		GVK:        storagev1.SchemeGroupVersion.WithKind("StorageClass"),
		Resource:   "storageclasses",
		Singular:   "storageclass",
		ShortNames: []string{"sc"},

		Default: typed.Default(func(c *storagev1.StorageClass) {
			rules.SetNil(&c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
			rules.SetNil(&c.VolumeBindingMode, storagev1.VolumeBindingImmediate)
		}),
		Validate: typed.Validate(validateStorageClass),
		ValidateUpdate: typed.ValidateUpdate(func(c, old *storagev1.StorageClass) field.ErrorList {
			var errs field.ErrorList
			if !apiequality.Semantic.DeepEqual(c.Parameters, old.Parameters) {
				errs = append(errs, field.Invalid(field.NewPath("parameters"), nil, immutable))
			}
			if c.Provisioner != old.Provisioner {
				errs = append(errs, field.Invalid(field.NewPath("provisioner"), nil, immutable))
			}
			if !apiequality.Semantic.DeepEqual(c.ReclaimPolicy, old.ReclaimPolicy) {
				errs = append(errs, field.Invalid(field.NewPath("reclaimPolicy"), nil, immutable))
			}
			if !apiequality.Semantic.DeepEqual(c.VolumeBindingMode, old.VolumeBindingMode) {
				errs = append(errs, field.Invalid(field.NewPath("volumeBindingMode"), nil, immutable))
			}
			return errs
		}),
		AllowUnconditionalUpdate: true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Provisioner", doc["provisioner"]),
			table.Text("ReclaimPolicy", doc["reclaimPolicy"]),
			table.Text("VolumeBindingMode", doc["volumeBindingMode"]),
			table.Text("AllowVolumeExpansion", doc["allowVolumeExpansion"]),
			table.Age(),
		},
		Row: typed.Row(func(c *storagev1.StorageClass, now time.Time) []any {
			name, reclaim, binding := c.Name, string(corev1.PersistentVolumeReclaimDelete), string(storagev1.VolumeBindingImmediate)
			if IsDefault(c) {
				name += " (default)"
			}
			if c.ReclaimPolicy != nil {
				reclaim = string(*c.ReclaimPolicy)
			}
			if c.VolumeBindingMode != nil {
				binding = string(*c.VolumeBindingMode)
			}
			return []any{name, c.Provisioner, reclaim, binding, c.AllowVolumeExpansion != nil && *c.AllowVolumeExpansion, table.Since(c.CreationTimestamp, now)}
		}),
	}
}

func validateStorageClass(c *storagev1.StorageClass) field.ErrorList {
	var errs field.ErrorList
	if c.Provisioner == "" {
		errs = append(errs, field.Required(field.NewPath("provisioner"), ""))
	} else {
		errs = append(errs, rules.Messages(validation.IsQualifiedName(strings.ToLower(c.Provisioner)), c.Provisioner, field.NewPath("provisioner"))...)
	}
	errs = append(errs, validateParameters(c.Parameters, field.NewPath("parameters"))...)
	if c.ReclaimPolicy != nil {
		errs = append(errs, rules.OneOf(*c.ReclaimPolicy, field.NewPath("reclaimPolicy"), corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	if c.VolumeBindingMode == nil {
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	} else {
		errs = append(errs, rules.OneOf(*c.VolumeBindingMode, field.NewPath("volumeBindingMode"), storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	for i := range c.AllowedTopologies {
		errs = append(errs, validateTopology(&c.AllowedTopologies[i], field.NewPath("allowedTopologies").Index(i))...)
	}
	return errs
}

func validateParameters(parameters map[string]string, path *field.Path) field.ErrorList {
	if len(parameters) > maxParameters {
		return field.ErrorList{field.TooLong(path, "Provisioner Parameters exceeded max allowed", maxParameters)}
	}
	var errs field.ErrorList
	size := 0
	for k, v := range parameters {
		if k == "" {
			errs = append(errs, field.Invalid(path, k, "field can not be empty."))
		}
		size += len(k) + len(v)
	}
	if size > maxParametersSize {
		errs = append(errs, field.TooLong(path, "", maxParametersSize))
	}
	return errs
}

func validateTopology(t *corev1.TopologySelectorTerm, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	keys := map[string]bool{}
	for i, e := range t.MatchLabelExpressions {
		at := path.Child("matchLabelExpressions").Index(i)
		errs = append(errs, rules.Messages(validation.IsQualifiedName(e.Key), e.Key, at.Child("key"))...)
		if len(e.Values) == 0 {
			errs = append(errs, field.Required(at.Child("values"), ""))
		}
		values := map[string]bool{}
		for k, v := range e.Values {
			if values[v] {
				errs = append(errs, field.Duplicate(at.Child("values").Index(k), v))
			}
			values[v] = true
		}
		if keys[e.Key] {
			errs = append(errs, field.Duplicate(at.Child("key"), e.Key))
		}
		keys[e.Key] = true
	}
	return errs
}
