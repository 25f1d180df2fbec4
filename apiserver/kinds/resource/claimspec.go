package resource

import (
	"fmt"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func defaultClaim(s *resourcev1.ResourceClaimSpec) {
	mode := func(mode *resourcev1.DeviceAllocationMode, count *int64) {
		if *mode == "" {
			*mode = resourcev1.DeviceAllocationModeExactCount
		}
		if *mode == resourcev1.DeviceAllocationModeExactCount && *count == 0 {
			*count = 1
		}
	}
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if e := r.Exactly; e != nil {
			mode(&e.AllocationMode, &e.Count)
		}
		for k := range r.FirstAvailable {
			mode(&r.FirstAvailable[k].AllocationMode, &r.FirstAvailable[k].Count)
		}
	}
}

// requestNames are those of a claim's requests and their alternatives.
type requestNames map[string]map[string]bool

func namesOf(d *resourcev1.DeviceClaim) requestNames {
	names := requestNames{}
	for i := range d.Requests {
		r := &d.Requests[i]
		names[r.Name] = map[string]bool{}
		for k := range r.FirstAvailable {
			names[r.Name][r.FirstAvailable[k].Name] = true
		}
	}
	return names
}

func (n requestNames) has(name string) bool {
	request, alternative, both := strings.Cut(name, "/")
	alternatives, found := n[request]
	return found && (!both || alternatives[alternative])
}

func (c *check) reference(name string, names requestNames, p *field.Path) {
	const what = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
	parts := strings.Split(name, "/")
	if len(parts) > 2 {
		c.Invalid(p, name, what)
		return
	}
	for _, part := range parts {
		c.label(part, p)
	}
	if !names.has(name) {
		c.Invalid(p, name, what)
	}
}

func (c *check) references(list []string, names requestNames, p *field.Path) {
	if len(list) > resourcev1.DeviceRequestsMaxSize {
		return // the generated rules say so
	}
	for i, name := range list {
		c.reference(name, names, p.Index(i))
	}
}

// claimSpec has the rules that aren't generated.
func (c *check) claimSpec(s *resourcev1.ResourceClaimSpec, p *field.Path) {
	d, p := &s.Devices, p.Child("devices")
	if len(d.Requests) <= resourcev1.DeviceRequestsMaxSize {
		for i := range d.Requests {
			c.request(&d.Requests[i], p.Child("requests").Index(i))
		}
	}
	names := namesOf(d)
	if len(d.Constraints) <= resourcev1.DeviceConstraintsMaxSize {
		for i := range d.Constraints {
			at := p.Child("constraints").Index(i)
			c.references(d.Constraints[i].Requests, names, at.Child("requests"))
			if d.Constraints[i].MatchAttribute == nil && d.Constraints[i].DistinctAttribute == nil {
				c.Required(at, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`)
			}
		}
	}
	if len(d.Config) <= resourcev1.DeviceConfigMaxSize {
		for i := range d.Config {
			at := p.Child("config").Index(i)
			c.references(d.Config[i].Requests, names, at.Child("requests"))
			c.opaque(d.Config[i].Opaque, false, at)
		}
	}
}

func (c *check) request(r *resourcev1.DeviceRequest, p *field.Path) {
	c.label(r.Name, p.Child("name"))
	switch e := r.Exactly; {
	case e == nil && len(r.FirstAvailable) == 0:
		c.Required(p, "exactly one of `exactly` or `firstAvailable` is required")
	case e != nil && len(r.FirstAvailable) > 0:
		c.Invalid(p, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set")
	case e != nil:
		at := p.Child("exactly")
		if class := at.Child("deviceClassName"); e.DeviceClassName == "" {
			c.Required(class, "")
		} else {
			c.subdomain(e.DeviceClassName, class)
		}
		c.selectors(e.Selectors, false, at.Child("selectors"))
		c.count(e.AllocationMode, e.Count, at.Child("count"))
		c.tolerations(e.Tolerations, at.Child("tolerations"))
	case len(r.FirstAvailable) <= resourcev1.FirstAvailableDeviceRequestMaxSize:
		for i := range r.FirstAvailable {
			s, at := &r.FirstAvailable[i], p.Child("firstAvailable").Index(i)
			c.label(s.Name, at.Child("name"))
			c.selectors(s.Selectors, false, at.Child("selectors"))
			c.count(s.AllocationMode, s.Count, at.Child("count"))
			c.tolerations(s.Tolerations, at.Child("tolerations"))
		}
	}
}

func (c *check) count(mode resourcev1.DeviceAllocationMode, count int64, p *field.Path) {
	switch {
	case mode == resourcev1.DeviceAllocationModeAll && count != 0:
		c.Invalid(p, count, fmt.Sprintf("must not be specified when allocationMode is '%s'", mode))
	case mode == resourcev1.DeviceAllocationModeExactCount && count <= 0:
		c.Invalid(p, count, "must be greater than zero")
	}
}
