package core

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

const enforceMountable = "kubernetes.io/enforce-mountable-secrets"

func serviceAccount() *kind.Kind {
	return &kind.Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
		Resource:   "serviceaccounts",
		Singular:   "serviceaccount",
		ShortNames: []string{"sa"},
		Namespaced: true,

		NameValidation:   apivalidation.ValidateServiceAccountName,
		PrepareForCreate: asGiven,
		PrepareForUpdate: asGivenUpdate,
		Warnings: typed.Warnings(func(_ context.Context, sa, old *corev1.ServiceAccount) []string {
			if _, set := sa.Annotations[enforceMountable]; !set {
				return nil
			}
			if old != nil {
				if _, had := old.Annotations[enforceMountable]; had {
					return nil
				}
			}
			return []string{"metadata.annotations[" + enforceMountable + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
		}),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(), {Name: "Secrets", Type: "string", Description: corev1.ServiceAccount{}.SwaggerDoc()["secrets"]}, table.Age(),
		},
		Row: typed.Row(func(sa *corev1.ServiceAccount, now time.Time) []any {
			return []any{sa.Name, int64(len(sa.Secrets)), table.Since(sa.CreationTimestamp, now)}
		}),
	}
}
