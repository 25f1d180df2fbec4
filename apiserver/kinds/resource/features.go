package resource

import (
	"context"
	"fmt"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"
)

// Features that Kubernetes has off by default.
const (
	derivedAttributes   = "DRADerivedAttributes"
	compatibilityGroups = "DRADeviceCompatibilityGroups"
	listAttributes      = "DRAListTypeAttributes"
	nodeAllocatable     = "DRANodeAllocatableResources"
	partitionType       = "DRAPartitionableDevicesType"
	optionalOperations  = "DRAOptionalNodeOperations"
)

// generated is the operation that generated rules are asked about.
func generated(t operation.Type) operation.Operation {
	return operation.Operation{Type: t, Options: map[string]bool{partitionType: false}}
}

// enforced leaves out what is not yet a rule: Kubernetes only counts violations of alpha markers.
func enforced(errs field.ErrorList) field.ErrorList {
	out := errs[:0]
	for _, e := range errs {
		if !e.IsAlpha() {
			out = append(out, e)
		}
	}
	return out
}

// dropper clears fields of features that are off, unless the stored object has them.
type dropper struct{ ctx context.Context }

func (d dropper) drop(used bool, feature string, path *field.Path, clear func()) {
	if !used {
		return
	}
	clear()
	warning.AddWarning(d.ctx, "", fmt.Sprintf("%s: dropped, the feature %s is not supported", path, feature))
}

func (d dropper) claim(c *resourcev1.ResourceClaimSpec, path *field.Path) {
	for i := range c.Devices.Requests {
		r, at := &c.Devices.Requests[i], path.Child("devices", "requests").Index(i)
		if e := r.Exactly; e != nil {
			d.drop(len(e.DerivedAttributes) > 0, derivedAttributes, at.Child("exactly", "derivedAttributes"), func() { e.DerivedAttributes = nil })
		}
		for k := range r.FirstAvailable {
			s := &r.FirstAvailable[k]
			d.drop(len(s.DerivedAttributes) > 0, derivedAttributes, at.Child("firstAvailable").Index(k).Child("derivedAttributes"), func() { s.DerivedAttributes = nil })
		}
	}
}

func (d dropper) status(s *resourcev1.ResourceClaimStatus, path *field.Path) {
	if s.Allocation == nil {
		return
	}
	for i := range s.Allocation.Devices.Results {
		r, at := &s.Allocation.Devices.Results[i], path.Child("allocation", "devices", "results").Index(i)
		d.drop(len(r.SkipNodeOperations) > 0, optionalOperations, at.Child("skipNodeOperations"), func() { r.SkipNodeOperations = nil })
	}
}

func (d dropper) slice(s *resourcev1.ResourceSliceSpec, path *field.Path) {
	d.drop(s.PartitionTypeAttribute != nil, partitionType, path.Child("partitionTypeAttribute"), func() { s.PartitionTypeAttribute = nil })
	d.drop(len(s.SkipNodeOperations) > 0, optionalOperations, path.Child("skipNodeOperations"), func() { s.SkipNodeOperations = nil })
	for i := range s.Devices {
		dev, at := &s.Devices[i], path.Child("devices").Index(i)
		d.drop(len(dev.NodeAllocatableResources) > 0, nodeAllocatable, at.Child("nodeAllocatableResources"), func() { dev.NodeAllocatableResources = nil })
		for k := range dev.ConsumesCounters {
			c := &dev.ConsumesCounters[k]
			d.drop(len(c.CompatibilityGroups) > 0, compatibilityGroups, at.Child("consumesCounters").Index(k).Child("compatibilityGroups"), func() { c.CompatibilityGroups = nil })
		}
		for name, a := range dev.Attributes {
			lists := a.BoolValues != nil || a.IntValues != nil || a.StringValues != nil || a.VersionValues != nil
			d.drop(lists, listAttributes, at.Child("attributes").Key(string(name)), func() {
				a.BoolValues, a.IntValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
				dev.Attributes[name] = a
			})
		}
	}
}
