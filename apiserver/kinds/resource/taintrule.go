package resource

import (
	"context"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/clock"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

func deviceTaintRule(now clock.PassiveClock) *kind.Kind {
	type rule = *resourcev1.DeviceTaintRule
	doc := resourcev1.DeviceTaint{}.SwaggerDoc()
	return &kind.Kind{
		GVK:      resourcev1.SchemeGroupVersion.WithKind("DeviceTaintRule"),
		Resource: "devicetaintrules",
		// As in Kubernetes 1.37, so that earlier releases can read them.
		StoredVersion: "v1beta2",
		Singular:      "devicetaintrule",

		Default:        typed.Default(func(r rule) { defaultTaint(&r.Spec.Taint, now) }),
		Validate:       typed.Validate(func(r rule) field.ErrorList { return validateTaintRule(r, nil) }),
		ValidateUpdate: typed.ValidateUpdate(func(r, old rule) field.ErrorList { return validateTaintRule(r, old) }),
		Status: &kind.Subresource{
			Validate: typed.ValidateUpdate(func(r, old rule) field.ErrorList {
				p := field.NewPath("status")
				errs := rules.Conditions(r.Status.Conditions, p.Child("conditions"))
				if n := len(r.Status.Conditions); n > resourcev1.DeviceTaintRuleStatusMaxConditions {
					errs = append(errs, field.TooMany(p.Child("conditions"), n, resourcev1.DeviceTaintRuleStatusMaxConditions))
				}
				return append(errs, enforced(resourcev1.Validate_DeviceTaintRuleStatus(context.Background(), generated(operation.Update), p, &r.Status, &old.Status))...)
			}),
		},
		Columns: []metav1.TableColumnDefinition{
			table.Name(), table.Text("Key", doc["key"]), table.Text("Value", doc["value"]), table.Text("Effect", doc["effect"]), table.Text("TimeAdded", doc["timeAdded"]), table.Age(),
		},
		Row: typed.Row(func(r rule, now time.Time) []any {
			t, added := &r.Spec.Taint, ""
			if t.TimeAdded != nil {
				added = table.Since(*t.TimeAdded, now)
			}
			return []any{r.Name, t.Key, t.Value, string(t.Effect), added, table.Since(r.CreationTimestamp, now)}
		}),
	}
}

func defaultTaint(t *resourcev1.DeviceTaint, now clock.PassiveClock) {
	rules.SetNil(&t.TimeAdded, metav1.NewTime(now.Now().Truncate(time.Second)))
}

func validateTaintRule(r, old *resourcev1.DeviceTaintRule) field.ErrorList {
	c, p := &check{}, field.NewPath("spec")
	if s := r.Spec.DeviceSelector; s != nil {
		at := p.Child("deviceSelector")
		if s.Driver != nil {
			c.driver(*s.Driver, at.Child("driver"))
		}
		if s.Pool != nil {
			c.pool(*s.Pool, at.Child("pool"))
		}
		if s.Device != nil {
			c.label(*s.Device, at.Child("device"))
		}
	}
	c.taint(&r.Spec.Taint, p.Child("taint"))
	op, was := operation.Create, (*resourcev1.DeviceTaintRuleSpec)(nil)
	if old != nil {
		op, was = operation.Update, &old.Spec
	}
	return append(c.List, enforced(resourcev1.Validate_DeviceTaintRuleSpec(context.Background(), generated(op), p, &r.Spec, was))...)
}
