package resource

import (
	"fmt"
	"regexp"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// longestKey is how much of an attribute's or a capacity's name paths tell.
const longestKey = resourcev1.DeviceMaxDomainLength + 1 + resourcev1.DeviceMaxIDLength

// device has the rules of one device that aren't generated. Capacity and taints that are as they were are not checked again.
func (c *check) device(d, old *resourcev1.Device, ownNodes bool, p *field.Path) {
	c.label(d.Name, p.Child("name"))
	if n := len(d.Attributes) + len(d.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		c.Invalid(p, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice))
	}
	if n := len(d.Attributes); n > resourcev1.ResourceSliceMaxAttributeValuesPerDevice {
		c.Invalid(p, n, fmt.Sprintf("the total number of attribute values must not exceed %d", resourcev1.ResourceSliceMaxAttributeValuesPerDevice))
	}
	for name, a := range d.Attributes {
		c.qualifiedName(string(name), p.Child("attributes"))
		c.attribute(&a, keyed(p.Child("attributes"), string(name), longestKey))
	}
	if old == nil || !apiequality.Semantic.DeepEqual(old.Capacity, d.Capacity) {
		for name, capacity := range d.Capacity {
			c.qualifiedName(string(name), p.Child("capacity"))
			c.capacity(&capacity, ptr.Deref(d.AllowMultipleAllocations, false), keyed(p.Child("capacity"), string(name), longestKey))
		}
	}
	if old == nil || !apiequality.Semantic.DeepEqual(old.Taints, d.Taints) {
		if n := len(d.Taints); n > resourcev1.DeviceTaintsMaxLength {
			c.TooMany(p.Child("taints"), n, resourcev1.DeviceTaintsMaxLength)
		} else {
			for i := range d.Taints {
				c.taint(&d.Taints[i], p.Child("taints").Index(i))
			}
		}
	}
	if len(d.ConsumesCounters) <= resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice {
		for i, consumed := range d.ConsumesCounters {
			if n := len(consumed.Counters); n > resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption {
				c.TooMany(p.Child("consumesCounters").Index(i).Child("counters"), n, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption)
			}
		}
	}
	c.deviceNodes(d, ownNodes, p)
	c.bindingConditions(d.BindingConditions, d.BindingFailureConditions, p)
}

func (c *check) deviceNodes(d *resourcev1.Device, own bool, p *field.Path) {
	if !own {
		if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
			c.Invalid(p, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec")
		}
		return
	}
	const one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	switch set := c.nodes(where{d.NodeName, d.NodeSelector, d.AllNodes}, "must not be empty", p); len(set) {
	case 0:
		c.Required(p, one)
	case 1:
	default:
		c.Invalid(p, fmt.Sprintf("{%s}", strings.Join(set, ", ")), one)
	}
}

// semantic is a version as semver.org 2.0.0 has it.
var semantic = func() *regexp.Regexp {
	const number, build = `(0|[1-9]\d*)`, `[0-9a-zA-Z-]+`
	const before = `(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)`
	return regexp.MustCompile(`^` + number + `\.` + number + `\.` + number + `(-` + before + `(\.` + before + `)*)?(\+` + build + `(\.` + build + `)*)?$`)
}()

// attribute has exactly one value, as the generated rules say.
func (c *check) attribute(a *resourcev1.DeviceAttribute, p *field.Path) {
	if v := a.StringValue; v != nil && len(*v) > resourcev1.DeviceAttributeMaxValueLength {
		c.TooLong(p.Child("string"), "", resourcev1.DeviceAttributeMaxValueLength)
	}
	if v := a.VersionValue; v != nil {
		if !semantic.MatchString(*v) {
			c.Invalid(p.Child("version"), *v, "must be a string compatible with semver.org spec 2.0.0")
		}
		if len(*v) > resourcev1.DeviceAttributeMaxValueLength {
			c.TooLong(p.Child("version"), "", resourcev1.DeviceAttributeMaxValueLength)
		}
	}
}
