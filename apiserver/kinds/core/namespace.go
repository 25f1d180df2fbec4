package core

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

func namespace() *kind.Kind {
	return &kind.Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("Namespace"),
		Resource:   "namespaces",
		Singular:   "namespace",
		ShortNames: []string{"ns"},
		Verbs:      []string{"create", "delete", "get", "list", "patch", "update", "watch"},

		NameValidation: apivalidation.ValidateNamespaceName,
		Default: typed.Default(func(ns *corev1.Namespace) {
			labelWithName(ns)
			if ns.Status.Phase == "" {
				ns.Status.Phase = corev1.NamespaceActive
			}
		}),
		PrepareForCreate: typed.Prepare(func(_ context.Context, ns *corev1.Namespace) {
			// A generated name is known only now.
			labelWithName(ns)
			ns.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
			if !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
				ns.Spec.Finalizers = append(ns.Spec.Finalizers, corev1.FinalizerKubernetes)
			}
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, ns, old *corev1.Namespace) {
			ns.Spec.Finalizers = old.Spec.Finalizers
			ns.Status = old.Status
		}),

		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		PrepareForDelete: typed.Prepare(func(_ context.Context, ns *corev1.Namespace) {
			ns.Status.Phase = corev1.NamespaceTerminating
		}),
		HoldsRemoval: func(obj client.Object) bool {
			ns, ok := obj.(*corev1.Namespace)
			return ok && len(ns.Spec.Finalizers) > 0
		},
		Status: &kind.Subresource{
			Prepare: typed.PrepareUpdate(func(_ context.Context, ns, old *corev1.Namespace) {
				ns.Spec = old.Spec
				ns.Labels, ns.Finalizers, ns.OwnerReferences = old.Labels, old.Finalizers, old.OwnerReferences
			}),
			Validate: typed.ValidateUpdate(validateNamespaceStatus),
		},
		Subresources: map[string]*kind.Subresource{"finalize": {
			Verbs: []string{"update"},
			Prepare: typed.PrepareUpdate(func(_ context.Context, ns, old *corev1.Namespace) {
				ns.Status = old.Status
			}),
			Validate: typed.ValidateUpdate(func(ns, _ *corev1.Namespace) field.ErrorList {
				e := &validate.Errors{}
				names := make([]string, len(ns.Spec.Finalizers))
				for i, finalizer := range ns.Spec.Finalizers {
					names[i] = string(finalizer)
					e.Add(apivalidation.ValidateFinalizerName(names[i], field.NewPath("spec", "finalizers").Index(i)))
				}
				e.Add(kind.ValidateFinalizers(names, field.NewPath("spec", "finalizers")))
				return e.List
			}),
		}},
		Fields: map[string]func(client.Object) string{
			"status.phase": typed.Field(func(ns *corev1.Namespace) string { return string(ns.Status.Phase) }),
			// Old clients spell the selector for the name so.
			"name": typed.Field(func(ns *corev1.Namespace) string { return ns.Name }),
		},
		Columns: []metav1.TableColumnDefinition{
			table.Name(), table.Text("Status", "The status of the namespace"), table.Age(),
		},
		Row: typed.Row(func(ns *corev1.Namespace, now time.Time) []any {
			return []any{ns.Name, string(ns.Status.Phase), table.Since(ns.CreationTimestamp, now)}
		}),
	}
}

// labelWithName keeps the label by which selectors find a namespace by its name.
func labelWithName(ns *corev1.Namespace) {
	if ns.Name == "" || ns.Labels[corev1.LabelMetadataName] == ns.Name {
		return
	}
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
}

func validateNamespaceStatus(ns, _ *corev1.Namespace) field.ErrorList {
	e := &validate.Errors{}
	p := field.NewPath("status", "Phase")
	if ns.DeletionTimestamp.IsZero() {
		if ns.Status.Phase != corev1.NamespaceActive {
			e.Invalid(p, ns.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")
		}
	} else if ns.Status.Phase != corev1.NamespaceTerminating {
		e.Invalid(p, ns.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")
	}
	return e.List
}
