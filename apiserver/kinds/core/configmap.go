package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

const immutableIsSet = "field is immutable when `immutable` is set"

func configMap() *kind.Kind {
	return &kind.Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		Resource:   "configmaps",
		Singular:   "configmap",
		ShortNames: []string{"cm"},
		Namespaced: true,

		PrepareForCreate: asGiven,
		PrepareForUpdate: asGivenUpdate,
		Validate:         typed.Validate(validateConfigMap),
		ValidateUpdate: typed.ValidateUpdate(func(m, old *corev1.ConfigMap) field.ErrorList {
			e := &validate.Errors{}
			if old.Immutable != nil && *old.Immutable {
				if m.Immutable == nil || !*m.Immutable {
					e.Forbidden(field.NewPath("immutable"), immutableIsSet)
				}
				if !equality.Semantic.DeepEqual(m.Data, old.Data) {
					e.Forbidden(field.NewPath("data"), immutableIsSet)
				}
				if !equality.Semantic.DeepEqual(m.BinaryData, old.BinaryData) {
					e.Forbidden(field.NewPath("binaryData"), immutableIsSet)
				}
			}
			e.Add(validateConfigMap(m))
			return e.List
		}),
		AllowUnconditionalUpdate: true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(), {Name: "Data", Type: "string", Description: corev1.ConfigMap{}.SwaggerDoc()["data"]}, table.Age(),
		},
		Row: typed.Row(func(m *corev1.ConfigMap, now time.Time) []any {
			return []any{m.Name, int64(len(m.Data) + len(m.BinaryData)), table.Since(m.CreationTimestamp, now)}
		}),
	}
}

func validateConfigMap(m *corev1.ConfigMap) field.ErrorList {
	e := &validate.Errors{}
	size := 0
	for _, key := range sets.List(sets.KeySet(m.Data)) {
		p := field.NewPath("data").Key(key)
		e.InvalidEach(p, key, validation.IsConfigMapKey(key))
		if _, both := m.BinaryData[key]; both {
			e.Invalid(p, key, "duplicate of key present in binaryData")
		}
		size += len(m.Data[key])
	}
	for _, key := range sets.List(sets.KeySet(m.BinaryData)) {
		e.InvalidEach(field.NewPath("binaryData").Key(key), key, validation.IsConfigMapKey(key))
		size += len(m.BinaryData[key])
	}
	if size > corev1.MaxSecretSize {
		e.TooLong(field.NewPath(""), "", corev1.MaxSecretSize)
	}
	return e.List
}
