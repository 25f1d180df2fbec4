package coordination

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

// Group returns the declarations of API group coordination.k8s.io.
func Group() kind.Group {
	return kind.Group{
		Name:        coordinationv1.GroupName,
		AddToScheme: coordinationv1.AddToScheme,
		Versions:    []string{"v1"},
		Kinds:       []*kind.Kind{lease()},
	}
}

func lease() *kind.Kind {
	return &kind.Kind{
		GVK:        coordinationv1.SchemeGroupVersion.WithKind("Lease"),
		Resource:   "leases",
		Singular:   "lease",
		Namespaced: true,

		PrepareForCreate: typed.Prepare(func(ctx context.Context, l *coordinationv1.Lease) { dropCoordinated(ctx, l, nil) }),
		PrepareForUpdate: typed.PrepareUpdate(dropCoordinated),
		Validate:         typed.Validate(func(l *coordinationv1.Lease) field.ErrorList { return validate(&l.Spec) }),
		ValidateUpdate:   typed.ValidateUpdate(func(l, _ *coordinationv1.Lease) field.ErrorList { return validate(&l.Spec) }),

		AllowCreateOnUpdate: true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Holder", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]),
			table.Age(),
		},
		Row: typed.Row(func(l *coordinationv1.Lease, now time.Time) []any {
			holder := ""
			if l.Spec.HolderIdentity != nil {
				holder = *l.Spec.HolderIdentity
			}
			return []any{l.Name, holder, table.Since(l.CreationTimestamp, now)}
		}),
	}
}

// dropCoordinated clears the fields of coordinated leader election, which Kubernetes has off by default.
func dropCoordinated(ctx context.Context, l, old *coordinationv1.Lease) {
	if old != nil && (old.Spec.Strategy != nil || old.Spec.PreferredHolder != nil) {
		return
	}
	if l.Spec.Strategy != nil {
		l.Spec.Strategy = nil
		warning.AddWarning(ctx, "", "spec.strategy: dropped, coordinated leader election is not supported")
	}
	if l.Spec.PreferredHolder != nil {
		l.Spec.PreferredHolder = nil
		warning.AddWarning(ctx, "", "spec.preferredHolder: dropped, coordinated leader election is not supported")
	}
}

func validate(spec *coordinationv1.LeaseSpec) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if d := spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	return append(errs, rules.NonNegativePointer(spec.LeaseTransitions, path.Child("leaseTransitions"))...)
}
