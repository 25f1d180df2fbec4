package resource

import (
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

// deviceID names a device, or a share of one.
type deviceID struct{ Driver, Pool, Device, Share string }

func (d deviceID) String() string {
	id := d.Driver + "/" + d.Pool + "/" + d.Device
	if d.Share != "" {
		id += "/" + d.Share
	}
	return id
}

func allocated(a *resourcev1.AllocationResult) map[deviceID]bool {
	out := map[deviceID]bool{}
	if a == nil {
		return out
	}
	for _, r := range a.Devices.Results {
		out[deviceID{r.Driver, r.Pool, r.Device, string(ptr.Deref(r.ShareID, types.UID("")))}] = true
	}
	return out
}

func idOf(d *resourcev1.AllocatedDeviceStatus) deviceID {
	return deviceID{d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, "")}
}

// dropDeallocated removes what is said of devices that are allocated no more: who takes them back may know nothing of that.
func dropDeallocated(c, old claimed) {
	before, now := allocated(old.Status.Allocation), allocated(c.Status.Allocation)
	c.Status.Devices = slices.DeleteFunc(c.Status.Devices, func(d resourcev1.AllocatedDeviceStatus) bool {
		id := idOf(&d)
		return before[id] && !now[id]
	})
	if len(c.Status.Devices) == 0 {
		c.Status.Devices = nil
	}
}

// status has the rules of a status that aren't generated.
func (c *check) status(now, old claimed, p *field.Path) {
	s, was := &now.Status, &old.Status
	at := p.Child("reservedFor")
	if len(s.ReservedFor) <= resourcev1.ResourceClaimReservedForMaxSize {
		for i, r := range s.ReservedFor {
			c.RequireText(r.Resource, at.Index(i).Child("resource"))
			c.RequireText(r.Name, at.Index(i).Child("name"))
			c.RequireText(string(r.UID), at.Index(i).Child("uid"))
		}
	}
	devices := allocated(s.Allocation)
	for i := range s.Devices {
		c.deviceStatus(&s.Devices[i], devices, p.Child("devices").Index(i))
	}
	switch {
	case len(s.ReservedFor) == 0:
	case s.Allocation == nil:
		c.Forbidden(at, "may not be specified when `allocated` is not set")
	case now.DeletionTimestamp != nil && slices.ContainsFunc(s.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool {
		return !slices.Contains(was.ReservedFor, r)
	}):
		c.Forbidden(at, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set")
	}
	if s.Allocation != nil && was.Allocation == nil { // else it must not change, as the generated rules say
		c.allocation(s.Allocation, namesOf(&now.Spec.Devices), p.Child("allocation"))
	}
}

func (c *check) allocation(a *resourcev1.AllocationResult, names requestNames, p *field.Path) {
	if a.NodeSelector != nil {
		c.Add(podspec.ValidateNodeSelector(a.NodeSelector, p.Child("nodeSelector")))
	}
	p = p.Child("devices")
	if len(a.Devices.Results) <= resourcev1.AllocationResultsMaxSize {
		for i := range a.Devices.Results {
			r, at := &a.Devices.Results[i], p.Child("results").Index(i)
			c.reference(r.Request, names, at.Child("request"))
			c.label(r.Device, at.Child("device"))
			c.bindingConditions(r.BindingConditions, r.BindingFailureConditions, at)
			c.tolerations(r.Tolerations, at.Child("tolerations"))
		}
	}
	if len(a.Devices.Config) <= 2*resourcev1.DeviceConfigMaxSize { // a class's and the claim's
		for i := range a.Devices.Config {
			f, at := &a.Devices.Config[i], p.Child("config").Index(i)
			c.references(f.Requests, names, at.Child("requests"))
			c.opaque(f.Opaque, false, at)
		}
	}
}

func (c *check) deviceStatus(d *resourcev1.AllocatedDeviceStatus, devices map[deviceID]bool, p *field.Path) {
	c.driver(d.Driver, p.Child("driver"))
	c.pool(d.Pool, p.Child("pool"))
	c.label(d.Device, p.Child("device"))
	if id := idOf(d); !devices[id] {
		c.Invalid(p, id.String(), "must be an allocated device in the claim")
	}
	if at := p.Child("conditions"); len(d.Conditions) > resourcev1.AllocatedDeviceStatusMaxConditions {
		c.TooMany(at, len(d.Conditions), resourcev1.AllocatedDeviceStatusMaxConditions)
	}
	c.Add(metav1validation.ValidateConditions(d.Conditions, p.Child("conditions")))
	if d.Data != nil && len(d.Data.Raw) > 0 {
		c.object(*d.Data, resourcev1.AllocatedDeviceStatusDataMaxLength, p.Child("data"))
	}
	if n := d.NetworkData; n != nil && len(n.IPs) <= resourcev1.NetworkDeviceDataMaxIPs {
		for i, ip := range n.IPs {
			c.Add(validation.IsValidInterfaceAddress(p.Child("networkData", "ips").Index(i), ip))
		}
	}
}
