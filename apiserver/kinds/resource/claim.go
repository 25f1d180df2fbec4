package resource

import (
	"context"
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

type claimed = *resourcev1.ResourceClaim

func resourceClaim(o Options) *kind.Kind {
	spec, status := field.NewPath("spec"), field.NewPath("status")
	return &kind.Kind{
		GVK:                      resourcev1.SchemeGroupVersion.WithKind("ResourceClaim"),
		Resource:                 "resourceclaims",
		Singular:                 "resourceclaim",
		Namespaced:               true,
		AllowUnconditionalUpdate: true,

		Default: typed.Default(func(c claimed) { defaultClaim(&c.Spec) }),
		// Claims have no generation: their spec never changes.
		PrepareForCreate: typed.Prepare(func(ctx context.Context, c claimed) {
			c.Status = resourcev1.ResourceClaimStatus{}
			dropper{ctx}.claim(&c.Spec, spec)
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, c, old claimed) { c.Status = old.Status }),
		Validate: typed.Validate(func(c claimed) field.ErrorList {
			k := &check{}
			k.claimSpec(&c.Spec, spec)
			return append(k.List, enforced(resourcev1.Validate_ResourceClaimSpec(context.Background(), generated(operation.Create), spec, &c.Spec, nil))...)
		}),
		ValidateUpdate: typed.ValidateUpdate(func(c, old claimed) field.ErrorList { return rules.Immutable(c.Spec, old.Spec, spec) }),
		Begin: func(ctx context.Context, obj, old client.Object, _ bool) (func(bool), error) {
			return nil, mayAdminister(ctx, obj, old)
		},
		Status: &kind.Subresource{
			Prepare: typed.PrepareUpdate(func(ctx context.Context, c, old claimed) {
				c.Spec = *old.Spec.DeepCopy()
				metav1.ResetObjectMetaForStatus(&c.ObjectMeta, &old.ObjectMeta)
				c.Generation = old.Generation
				dropper{ctx}.status(&c.Status, status)
				dropDeallocated(c, old)
			}),
			Validate: func(ctx context.Context, obj, was client.Object) field.ErrorList {
				c, old := obj.(claimed), was.(claimed)
				k := &check{}
				o.mayWrite(ctx, k, &c.Status, &old.Status, c.Namespace)
				k.status(c, old, status)
				return append(k.List, enforced(resourcev1.Validate_ResourceClaimStatus(ctx, generated(operation.Update), status, &c.Status, &old.Status))...)
			},
		},
		Columns: []metav1.TableColumnDefinition{
			table.Name(), table.Text("State", "A summary of the current state (allocated, pending, reserved, etc.)."), table.Age(),
		},
		Row: typed.Row(func(c claimed, now time.Time) []any {
			return []any{c.Name, claimState(c), table.Since(c.CreationTimestamp, now)}
		}),
	}
}

func claimState(c claimed) string {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	switch {
	case c.Status.Allocation != nil:
		if states = append(states, "allocated"); len(c.Status.ReservedFor) > 0 {
			states = append(states, "reserved")
		}
	case c.DeletionTimestamp == nil:
		states = append(states, "pending")
	}
	return strings.Join(states, ",")
}
