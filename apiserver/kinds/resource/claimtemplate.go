package resource

import (
	"context"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

func resourceClaimTemplate() *kind.Kind {
	type template = *resourcev1.ResourceClaimTemplate
	spec := field.NewPath("spec")
	return &kind.Kind{
		GVK:                      resourcev1.SchemeGroupVersion.WithKind("ResourceClaimTemplate"),
		Resource:                 "resourceclaimtemplates",
		Singular:                 "resourceclaimtemplate",
		Namespaced:               true,
		AllowUnconditionalUpdate: true,

		Default: typed.Default(func(t template) { defaultClaim(&t.Spec.Spec) }),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, t template) {
			dropper{ctx}.claim(&t.Spec.Spec, spec.Child("spec"))
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(context.Context, template, template) {}),
		Validate: typed.Validate(func(t template) field.ErrorList {
			k := &check{}
			meta := spec.Child("metadata")
			k.Add(apivalidation.ValidateAnnotations(t.Spec.Annotations, meta.Child("annotations")))
			k.Add(metav1validation.ValidateLabels(t.Spec.Labels, meta.Child("labels")))
			k.claimSpec(&t.Spec.Spec, spec.Child("spec"))
			return append(k.List, enforced(resourcev1.Validate_ResourceClaimTemplateSpec(context.Background(), generated(operation.Create), spec, &t.Spec, nil))...)
		}),
		ValidateUpdate: typed.ValidateUpdate(func(t, old template) field.ErrorList { return rules.Immutable(t.Spec, old.Spec, spec) }),
		Begin: func(ctx context.Context, obj, old client.Object, _ bool) (func(bool), error) {
			return nil, mayAdminister(ctx, obj, old)
		},
		Columns: []metav1.TableColumnDefinition{table.Name(), table.Age()},
		Row:     typed.Row(func(t template, now time.Time) []any { return []any{t.Name, table.Since(t.CreationTimestamp, now)} }),
	}
}
