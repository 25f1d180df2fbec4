package resource

import (
	"context"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

func deviceClass() *kind.Kind {
	type class = *resourcev1.DeviceClass
	return &kind.Kind{
		GVK:                      resourcev1.SchemeGroupVersion.WithKind("DeviceClass"),
		Resource:                 "deviceclasses",
		Singular:                 "deviceclass",
		AllowUnconditionalUpdate: true,

		Validate:       typed.Validate(func(c class) field.ErrorList { return validateClass(&c.Spec, nil) }),
		ValidateUpdate: typed.ValidateUpdate(func(c, old class) field.ErrorList { return validateClass(&c.Spec, &old.Spec) }),
		Columns:        []metav1.TableColumnDefinition{table.Name(), table.Age()},
		Row:            typed.Row(func(c class, now time.Time) []any { return []any{c.Name, table.Since(c.CreationTimestamp, now)} }),
	}
}

func validateClass(s, old *resourcev1.DeviceClassSpec) field.ErrorList {
	c, p := &check{}, field.NewPath("spec")
	op := operation.Create
	if old != nil {
		op = operation.Update
	}
	c.selectors(s.Selectors, old != nil && apiequality.Semantic.DeepEqual(s.Selectors, old.Selectors), p.Child("selectors"))
	if len(s.Config) <= resourcev1.DeviceConfigMaxSize {
		stored := old != nil && apiequality.Semantic.DeepEqual(s.Config, old.Config)
		for i := range s.Config {
			c.opaque(s.Config[i].Opaque, stored, p.Child("config").Index(i))
		}
	}
	return append(c.List, enforced(resourcev1.Validate_DeviceClassSpec(context.Background(), generated(op), p, s, old))...)
}
