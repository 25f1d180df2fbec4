package scheduling

import (
	"context"
	"fmt"
	"time"

	"k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/operation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

// Features that Kubernetes has off, and whose fields are dropped with a warning.
const (
	topologyAware    = "TopologyAwareWorkloadScheduling"
	sharedClaims     = "DRAWorkloadResourceClaims"
	preemptionPolicy = "PodGroupPreemptionPolicy"
	composite        = "CompositePodGroup"
)

// wire is the form in which a type of one version becomes that of another: v1beta1 and v1alpha3 have the same.
type wire interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// ruled turns an object into the version that has the generated rules of validation.
func ruled(from, to wire) error {
	b, err := from.Marshal()
	if err != nil {
		return err
	}
	return to.Unmarshal(b)
}

func ruledOperation(t operation.Type) operation.Operation {
	return operation.Operation{Type: t, Options: map[string]bool{topologyAware: false, sharedClaims: false, preemptionPolicy: false, composite: false}}
}

// dropper clears fields of features that are off.
type dropper struct{ ctx context.Context }

func (d dropper) drop(used bool, feature, path string, clear func()) {
	if !used {
		return
	}
	clear()
	warning.AddWarning(d.ctx, "", fmt.Sprintf("%s: dropped, the feature %s is not supported", path, feature))
}

func (d dropper) podGroup(s *schedulingv1beta1.PodGroupSpec) {
	d.drop(s.SchedulingConstraints != nil, topologyAware, "spec.schedulingConstraints", func() { s.SchedulingConstraints = nil })
	d.drop(len(s.ResourceClaims) > 0, sharedClaims, "spec.resourceClaims", func() { s.ResourceClaims = nil })
	d.drop(s.PreemptionPolicy != nil, preemptionPolicy, "spec.preemptionPolicy", func() { s.PreemptionPolicy = nil })
	d.drop(s.ParentCompositePodGroupName != nil, composite, "spec.parentCompositePodGroupName", func() { s.ParentCompositePodGroupName = nil })
}

func podGroup() *kind.Kind {
	type group = *schedulingv1beta1.PodGroup
	return &kind.Kind{
		GVK:        schedulingv1beta1.SchemeGroupVersion.WithKind("PodGroup"),
		Resource:   "podgroups",
		Singular:   "podgroup",
		Namespaced: true,

		Default: typed.Default(func(g group) {
			rules.SetNil(&g.Spec.DisruptionMode, schedulingv1beta1.DisruptionMode{Single: &schedulingv1beta1.SingleDisruptionMode{}})
		}),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, g group) {
			g.Status, g.Generation = schedulingv1beta1.PodGroupStatus{}, 1
			dropper{ctx}.podGroup(&g.Spec)
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(ctx context.Context, g, old group) {
			g.Status, g.Generation = old.Status, old.Generation
			dropper{ctx}.podGroup(&g.Spec)
			if minCount(g) != minCount(old) { // all else is immutable
				g.Generation++
			}
		}),
		Validate:       typed.Validate(func(g group) field.ErrorList { return validatePodGroup(operation.Create, g, nil) }),
		ValidateUpdate: typed.ValidateUpdate(func(g, old group) field.ErrorList { return validatePodGroup(operation.Update, g, old) }),
		Status: &kind.Subresource{
			Validate: typed.ValidateUpdate(func(g, _ group) field.ErrorList {
				return rules.Conditions(g.Status.Conditions, field.NewPath("status", "conditions"))
			}),
		},
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Policy", schedulingv1beta1.PodGroupSpec{}.SwaggerDoc()["schedulingPolicy"]),
			table.Text("Workload", "Name of the referenced Workload object"),
			table.Text("Status", "Status of the PodGroup"),
			table.Age(),
		},
		Row: typed.Row(func(g group, now time.Time) []any {
			policy, workload := "Basic", "<none>"
			if g.Spec.SchedulingPolicy.Gang != nil {
				policy = "Gang"
			}
			if ref := g.Spec.WorkloadRef; ref != nil {
				workload = ref.WorkloadName
			}
			return []any{g.Name, policy, workload, groupStatus(g), table.Since(g.CreationTimestamp, now)}
		}),
	}
}

func minCount(g *schedulingv1beta1.PodGroup) int32 {
	if g.Spec.SchedulingPolicy.Gang == nil {
		return 0
	}
	return g.Spec.SchedulingPolicy.Gang.MinCount
}

func groupStatus(g *schedulingv1beta1.PodGroup) string {
	if c := meta.FindStatusCondition(g.Status.Conditions, schedulingv1beta1.DisruptionTarget); c != nil {
		return c.Reason
	}
	switch c := meta.FindStatusCondition(g.Status.Conditions, schedulingv1beta1.PodGroupInitiallyScheduled); {
	case c == nil:
		return "Pending"
	case c.Status == metav1.ConditionTrue:
		return "Scheduled"
	}
	return "Unschedulable"
}

func validatePodGroup(t operation.Type, g, old *schedulingv1beta1.PodGroup) field.ErrorList {
	now, was := &v1alpha3.PodGroup{}, (*v1alpha3.PodGroup)(nil)
	err := ruled(g, now)
	if err == nil && old != nil {
		was = &v1alpha3.PodGroup{}
		err = ruled(old, was)
	}
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	var oldSpec *v1alpha3.PodGroupSpec
	if was != nil {
		oldSpec = &was.Spec
	}
	return v1alpha3.Validate_PodGroupSpec(context.Background(), ruledOperation(t), field.NewPath("spec"), &now.Spec, oldSpec)
}
