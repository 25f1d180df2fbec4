package core

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func podTemplate() *kind.Kind {
	path := field.NewPath("template")
	return &kind.Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("PodTemplate"),
		Resource:   "podtemplates",
		Singular:   "podtemplate",
		Namespaced: true,

		Default: typed.Default(func(t *corev1.PodTemplate) { podspec.DefaultTemplate(&t.Template) }),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, t *corev1.PodTemplate) {
			t.Generation = 1
			podspec.PrepareTemplate(ctx, &t.Template, nil, path)
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(ctx context.Context, t, old *corev1.PodTemplate) {
			podspec.PrepareTemplate(ctx, &t.Template, &old.Template, path)
			t.Generation = nextGeneration(old.Generation, t.Template, old.Template)
		}),
		Validate: typed.Validate(func(t *corev1.PodTemplate) field.ErrorList {
			return podspec.ValidateTemplate(&t.Template, path, podspec.Options{})
		}),
		ValidateUpdate: typed.ValidateUpdate(func(t, old *corev1.PodTemplate) field.ErrorList {
			return podspec.ValidateTemplate(&t.Template, path, podspec.OptionsFor(&t.Template.Spec, &old.Template.Spec))
		}),
		Warnings: typed.Warnings(func(ctx context.Context, t, old *corev1.PodTemplate) []string {
			if old == nil {
				return podspec.TemplateWarnings(ctx, &t.Template, nil, path)
			}
			return podspec.TemplateWarnings(ctx, &t.Template, &old.Template, path)
		}),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Containers", "Names of each container in the template."),
			table.Text("Images", "Images referenced by each container in the template."),
			table.Text("Pod Labels", "The labels for the pod template."),
		},
		Row: typed.Row(func(t *corev1.PodTemplate, now time.Time) []any {
			names, images := table.Containers(t.Template.Spec.Containers)
			return []any{t.Name, names, images, labels.FormatLabels(t.Template.Labels)}
		}),
	}
}
