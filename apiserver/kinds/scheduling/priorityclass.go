package scheduling

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

const (
	// HighestUserPriority is the highest value of a class that is not the system's.
	HighestUserPriority = int32(1_000_000_000)

	systemPrefix = "system-"
)

// SystemClasses returns the classes that every cluster has. Each call makes new objects.
func SystemClasses() []*schedulingv1.PriorityClass {
	policy := corev1.PreemptLowerPriority
	class := func(name string, value int32, description string) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, Description: description, PreemptionPolicy: &policy}
	}
	return []*schedulingv1.PriorityClass{
		class("system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
		class("system-cluster-critical", 2_000_000_000, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
	}
}

func priorityClass() *kind.Kind {
	return &kind.Kind{
		GVK:        schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"),
		Resource:   "priorityclasses",
		Singular:   "priorityclass",
		ShortNames: []string{"pc"},

		Default: typed.Default(func(p *schedulingv1.PriorityClass) {
			rules.SetNil(&p.PreemptionPolicy, corev1.PreemptLowerPriority)
		}),
		PrepareForCreate: typed.Prepare(func(_ context.Context, p *schedulingv1.PriorityClass) { p.Generation = 1 }),
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, p, old *schedulingv1.PriorityClass) { p.Generation = old.Generation }),
		Validate:         typed.Validate(validatePriorityClass),
		ValidateUpdate: typed.ValidateUpdate(func(p, old *schedulingv1.PriorityClass) field.ErrorList {
			var errs field.ErrorList
			if p.Value != old.Value {
				errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
			}
			return append(errs, rules.Immutable(p.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
		}),
		AllowUnconditionalUpdate: true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Number("Value", schedulingv1.PriorityClass{}.SwaggerDoc()["value"]),
			table.Bool("Global-Default", schedulingv1.PriorityClass{}.SwaggerDoc()["globalDefault"]),
			table.Age(),
			table.Text("PreemptionPolicy", schedulingv1.PriorityClass{}.SwaggerDoc()["preemptionPolicy"]),
		},
		Row: typed.Row(func(p *schedulingv1.PriorityClass, now time.Time) []any {
			policy := string(corev1.PreemptLowerPriority)
			if p.PreemptionPolicy != nil {
				policy = string(*p.PreemptionPolicy)
			}
			return []any{p.Name, int64(p.Value), p.GlobalDefault, table.Since(p.CreationTimestamp, now), policy}
		}),
	}
}

func validatePriorityClass(p *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(p.Name, systemPrefix) {
		if err := checkSystemClass(p); err != nil {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"), "priority class names with '"+systemPrefix+"' prefix are reserved for system use only. error: "+err.Error()))
		}
	} else if p.Value > HighestUserPriority {
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", HighestUserPriority)))
	}
	if p.PreemptionPolicy != nil {
		errs = append(errs, rules.OneOf(*p.PreemptionPolicy, field.NewPath("preemptionPolicy"), corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	return errs
}

func checkSystemClass(p *schedulingv1.PriorityClass) error {
	for _, s := range SystemClasses() {
		if s.Name != p.Name {
			continue
		}
		if s.Value != p.Value {
			return fmt.Errorf("value of %v PriorityClass must be %v", s.Name, s.Value)
		}
		if s.GlobalDefault != p.GlobalDefault {
			return fmt.Errorf("globalDefault of %v PriorityClass must be %v", s.Name, s.GlobalDefault)
		}
		return nil
	}
	return fmt.Errorf("%v is not a known system priority class", p.Name)
}
