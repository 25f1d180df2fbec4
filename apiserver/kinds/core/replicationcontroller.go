package core

import (
	"context"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

// nextGeneration is old, or one more if what a client asks for changed.
func nextGeneration(generation int64, now, before any) int64 {
	if equality.Semantic.DeepEqual(now, before) {
		return generation
	}
	return generation + 1
}

func replicationController() *kind.Kind {
	template := field.NewPath("spec", "template")
	return &kind.Kind{
		GVK:         corev1.SchemeGroupVersion.WithKind("ReplicationController"),
		Resource:    "replicationcontrollers",
		Singular:    "replicationcontroller",
		ShortNames:  []string{"rc"},
		Categories:  []string{"all"},
		StorePrefix: "controllers",
		Namespaced:  true,

		Default: typed.Default(func(rc *corev1.ReplicationController) {
			if rc.Spec.Template != nil {
				podspec.DefaultTemplate(rc.Spec.Template)
				if given := rc.Spec.Template.Labels; given != nil {
					if len(rc.Spec.Selector) == 0 {
						rc.Spec.Selector = copyMap(given)
					}
					if len(rc.Labels) == 0 {
						rc.Labels = copyMap(given)
					}
				}
			}
			if rc.Spec.Replicas == nil {
				rc.Spec.Replicas = ptr.To[int32](1)
			}
		}),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, rc *corev1.ReplicationController) {
			rc.Status = corev1.ReplicationControllerStatus{}
			rc.Generation = 1
			if rc.Spec.Template != nil {
				podspec.PrepareTemplate(ctx, rc.Spec.Template, nil, template)
			}
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(ctx context.Context, rc, old *corev1.ReplicationController) {
			rc.Status = old.Status
			if rc.Spec.Template != nil {
				podspec.PrepareTemplate(ctx, rc.Spec.Template, old.Spec.Template, template)
			}
			rc.Generation = nextGeneration(old.Generation, rc.Spec, old.Spec)
		}),
		Validate: typed.Validate(func(rc *corev1.ReplicationController) field.ErrorList {
			return validateReplicationController(rc, podspec.Options{})
		}),
		ValidateUpdate: typed.ValidateUpdate(func(rc, old *corev1.ReplicationController) field.ErrorList {
			opts := podspec.Options{}
			if rc.Spec.Template != nil && old.Spec.Template != nil {
				opts = podspec.OptionsFor(&rc.Spec.Template.Spec, &old.Spec.Template.Spec)
			}
			return validateReplicationController(rc, opts)
		}),
		Warnings: typed.Warnings(func(ctx context.Context, rc, old *corev1.ReplicationController) []string {
			if rc.Spec.Template == nil || old != nil && old.Generation == rc.Generation {
				return nil
			}
			if old == nil {
				return podspec.TemplateWarnings(ctx, rc.Spec.Template, nil, template)
			}
			return podspec.TemplateWarnings(ctx, rc.Spec.Template, old.Spec.Template, template)
		}),
		AllowUnconditionalUpdate: true,
		DefaultPropagation:       metav1.DeletePropagationOrphan,
		Status: &kind.Subresource{Validate: typed.ValidateUpdate(func(rc, _ *corev1.ReplicationController) field.ErrorList {
			e := &validate.Errors{}
			p, s := field.NewPath("status"), rc.Status
			e.NonNegative(int64(s.Replicas), p.Child("replicas"))
			e.NonNegative(int64(s.FullyLabeledReplicas), p.Child("fullyLabeledReplicas"))
			e.NonNegative(int64(s.ReadyReplicas), p.Child("readyReplicas"))
			e.NonNegative(int64(s.AvailableReplicas), p.Child("availableReplicas"))
			e.NonNegative(s.ObservedGeneration, p.Child("observedGeneration"))
			for _, bound := range []struct {
				name  string
				value int32
			}{{"fullyLabeledReplicas", s.FullyLabeledReplicas}, {"readyReplicas", s.ReadyReplicas}, {"availableReplicas", s.AvailableReplicas}} {
				if bound.value > s.Replicas {
					e.Invalid(p.Child(bound.name), bound.value, "cannot be greater than status.replicas")
				}
			}
			if s.AvailableReplicas > s.ReadyReplicas {
				e.Invalid(p.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas")
			}
			return e.List
		})},
		Scale: &kind.Scale{
			Get: typed.ScaleGet(func(rc *corev1.ReplicationController) (int32, int32, string) {
				return ptr.Deref(rc.Spec.Replicas, 0), rc.Status.Replicas, labels.Set(rc.Spec.Selector).AsSelector().String()
			}),
			Set: typed.ScaleSet(func(rc *corev1.ReplicationController, n int32) { rc.Spec.Replicas = &n }),
		},
		Fields: map[string]func(client.Object) string{
			"status.replicas": typed.Field(func(rc *corev1.ReplicationController) string { return strconv.Itoa(int(rc.Status.Replicas)) }),
		},
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Number("Desired", corev1.ReplicationControllerSpec{}.SwaggerDoc()["replicas"]),
			table.Number("Current", corev1.ReplicationControllerStatus{}.SwaggerDoc()["replicas"]),
			table.Number("Ready", corev1.ReplicationControllerStatus{}.SwaggerDoc()["readyReplicas"]),
			table.Age(),
		}, table.TemplateColumns()...),
		Row: typed.Row(func(rc *corev1.ReplicationController, now time.Time) []any {
			var names, images string
			if rc.Spec.Template != nil {
				names, images = table.Containers(rc.Spec.Template.Spec.Containers)
			}
			return []any{
				rc.Name, int64(ptr.Deref(rc.Spec.Replicas, 0)), int64(rc.Status.Replicas), int64(rc.Status.ReadyReplicas),
				table.Since(rc.CreationTimestamp, now), names, images, labels.FormatLabels(rc.Spec.Selector),
			}
		}),
	}
}

func copyMap(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

func validateReplicationController(rc *corev1.ReplicationController, opts podspec.Options) field.ErrorList {
	e := &validate.Errors{}
	p := field.NewPath("spec")
	e.NonNegative(int64(rc.Spec.MinReadySeconds), p.Child("minReadySeconds"))
	if len(rc.Spec.Selector) == 0 {
		e.Required(p.Child("selector"), "")
	}
	if rc.Spec.Replicas == nil {
		e.Required(p.Child("replicas"), "")
	} else {
		e.NonNegative(int64(*rc.Spec.Replicas), p.Child("replicas"))
	}
	if rc.Spec.Template == nil {
		e.Required(p.Child("template"), "")
		return e.List
	}
	e.Add(podspec.ValidateReplicatedTemplate(rc.Spec.Template, labels.Set(rc.Spec.Selector).AsSelector(), "ReplicationController", p.Child("template"), opts))
	return e.List
}
