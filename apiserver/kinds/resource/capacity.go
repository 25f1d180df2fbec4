package resource

import (
	"fmt"
	"math"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxValidValues is how many choices a request may have.
const maxValidValues = 10

// capacity is what a device has of something, and how much of it can be asked for where several share the device.
func (c *check) capacity(have *resourcev1.DeviceCapacity, shared bool, p *field.Path) {
	policy := have.RequestPolicy
	if policy == nil {
		return
	}
	p = p.Child("requestPolicy")
	switch values, bounds := policy.ValidValues, policy.ValidRange; {
	case !shared:
		c.Forbidden(p, "allowMultipleAllocations must be true")
	case len(values) > 0 && bounds != nil:
		c.Forbidden(p, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)
	case len(values) > 0 && policy.Default == nil:
		c.Required(p.Child("default"), "required when validValues is defined")
	case len(values) > 0:
		c.validValues(*policy.Default, have.Value, values, p.Child("validValues"))
	case bounds != nil && policy.Default == nil:
		c.Required(p.Child("default"), "required when validRange is defined")
	case bounds != nil:
		c.validRange(*policy.Default, have.Value, bounds, p.Child("validRange"))
	}
}

func (c *check) validValues(fallback, most resource.Quantity, values []resource.Quantity, p *field.Path) {
	for i := 1; i < len(values); i++ {
		if values[i-1].Cmp(values[i]) > 0 {
			c.Invalid(p.Index(i), values[i].String(), "values must be sorted in ascending order")
		}
	}
	found := false
	if n := len(values); n > maxValidValues {
		c.TooMany(p, n, maxValidValues)
	} else {
		seen := map[string]bool{}
		for i, v := range values {
			if v.Cmp(most) > 0 {
				c.Invalid(p.Index(i), v.String(), "option is larger than capacity value: "+most.String())
			}
			key := v.AsDec().String()
			if seen[key] {
				c.Duplicate(p.Index(i), key)
			}
			seen[key] = true
			found = found || v.Cmp(fallback) == 0
		}
	}
	if !found {
		c.Invalid(p, fallback.String(), "default value is not valid according to the requestPolicy")
	}
}

// bound is one of a range's quantities.
type bound struct {
	name string
	q    *resource.Quantity
}

func (c *check) validRange(fallback, most resource.Quantity, r *resourcev1.CapacityRequestPolicyRange, p *field.Path) {
	if r.Min == nil {
		c.Required(p.Child("min"), "required when validRange is defined")
		return
	}
	over := func(q *resource.Quantity, name, what string) {
		if q.Cmp(most) > 0 {
			c.Invalid(p.Child(name), q.String(), fmt.Sprintf("%s is larger than capacity value: %s", what, most.String()))
		}
	}
	over(r.Min, "min", "min")
	if fallback.Cmp(*r.Min) < 0 {
		c.Invalid(p.Child("default"), fallback.String(), "default is less than min: "+r.Min.String())
	}
	if r.Max != nil {
		if r.Min.Cmp(*r.Max) > 0 {
			c.Invalid(p.Child("max"), r.Min.String(), "min is larger than max: "+r.Max.String())
		}
		over(r.Max, "max", "max")
		if fallback.Cmp(*r.Max) > 0 {
			c.Invalid(p.Child("default"), fallback.String(), "default is more than max: "+r.Max.String())
		}
	}
	bounds := []bound{{"default", &fallback}, {"min", r.Min}}
	for _, b := range []bound{{"max", r.Max}, {"step", r.Step}} {
		if b.q != nil {
			bounds = append(bounds, b)
		}
	}
	// Steps are counted in units, or in thousandths where anything is a fraction.
	unit, safe := (*resource.Quantity).Value, true
	if fractional(bounds) {
		unit = (*resource.Quantity).MilliValue
		for _, b := range bounds {
			if b.q.Cmp(*resource.NewMilliQuantity(b.q.MilliValue(), b.q.Format)) != 0 {
				c.Invalid(p.Child(b.name), b.q.String(), "value cannot be represented as a milli value")
				safe = false
			}
		}
		if !safe {
			return
		}
	}
	if r.Step == nil {
		return
	}
	step := p.Child("step")
	if r.Step.Sign() <= 0 {
		c.Invalid(step, r.Step.String(), "must be greater than zero")
		return
	}
	next := r.Min.DeepCopy()
	if next.Add(*r.Step); next.Cmp(most) > 0 {
		c.Invalid(step, r.Step.String(), fmt.Sprintf("one step %s is larger than capacity value: %s", next.String(), most.String()))
	}
	if !fractional(bounds) {
		for _, b := range bounds {
			switch {
			case b.q.Sign() < 0:
				c.Invalid(p.Child(b.name), b.q.String(), apivalidation.IsNegativeErrorMsg)
				safe = false
			case b.q.CmpInt64(math.MaxInt64) > 0:
				c.Invalid(p.Child(b.name), b.q.String(), "must not be larger than 9223372036854775807")
				safe = false
			}
		}
	}
	if !safe {
		return
	}
	multiple := func(q *resource.Quantity) {
		if (unit(q)-unit(r.Min))%unit(r.Step) != 0 {
			c.Invalid(step, q.String(), fmt.Sprintf("value is not a multiple of a given step (%s) from (%s)", r.Step.String(), r.Min.String()))
		}
	}
	multiple(&fallback)
	if r.Max != nil {
		multiple(r.Max)
	}
}

// fractional reports whether any is no whole number.
func fractional(bounds []bound) bool {
	for _, b := range bounds {
		whole := b.q.DeepCopy()
		whole.RoundUp(0)
		if whole.Cmp(*b.q) != 0 {
			return true
		}
	}
	return false
}
