package resource

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/keelson/keelson/apiserver/kinds/internal/kindtest"
)

func exactly(name string) resourcev1.DeviceRequest {
	return resourcev1.DeviceRequest{Name: name, Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}}
}

func expression(text string) []resourcev1.DeviceSelector {
	return []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: text}}}
}

func claim() *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{
			Requests: []resourcev1.DeviceRequest{
				exactly("one"),
				{Name: "any", FirstAvailable: []resourcev1.DeviceSubRequest{{Name: "big", DeviceClassName: "gpu"}, {Name: "small", DeviceClassName: "gpu", Selectors: expression(`device.driver == "x"`)}}},
			},
			Constraints: []resourcev1.DeviceConstraint{{Requests: []string{"one", "any/big"}, MatchAttribute: ptr.To(resourcev1.FullyQualifiedName("x.y/model"))}},
			Config: []resourcev1.DeviceClaimConfiguration{{DeviceConfiguration: resourcev1.DeviceConfiguration{
				Opaque: &resourcev1.OpaqueDeviceConfiguration{Driver: "x.y", Parameters: runtime.RawExtension{Raw: []byte(`{"a":1}`)}},
			}}},
		}},
	}
}

func TestResourceClaim(t *testing.T) {
	k := kindtest.Find(t, Group(Options{}), "ResourceClaim")
	type c = kindtest.Change[*resourcev1.ResourceClaim]
	exact := func(f func(*resourcev1.ExactDeviceRequest)) func(*resourcev1.ResourceClaim) {
		return func(c *resourcev1.ResourceClaim) { f(c.Spec.Devices.Requests[0].Exactly) }
	}
	kindtest.CreateTable(t, k, claim(), []c{
		{Name: "names", Change: func(c *resourcev1.ResourceClaim) { c.Spec.Devices.Requests[0].Name = "One" }, Want: `spec.devices.requests[0].name: Invalid value: "One": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
spec.devices.constraints[0].requests[0]: Invalid value: "one": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'`},
		{Name: "twice", Change: func(c *resourcev1.ResourceClaim) {
			c.Spec.Devices.Requests[1] = exactly("one")
			c.Spec.Devices.Constraints = nil
		}, Want: `spec.devices.requests[1]: Duplicate value: {"name":"one","exactly":{"deviceClassName":"gpu","allocationMode":"ExactCount","count":1}}`},
		{Name: "neither", Change: func(c *resourcev1.ResourceClaim) { c.Spec.Devices.Requests[0].Exactly = nil }, Want: "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"},
		{Name: "no class", Change: exact(func(e *resourcev1.ExactDeviceRequest) { e.DeviceClassName = "" }), Want: "spec.devices.requests[0].exactly.deviceClassName: Required value"},
		{Name: "mode", Change: exact(func(e *resourcev1.ExactDeviceRequest) { e.AllocationMode = "Some" }), Want: `spec.devices.requests[0].exactly.allocationMode: Unsupported value: "Some": supported values: "All", "ExactCount"`},
		{Name: "count", Change: exact(func(e *resourcev1.ExactDeviceRequest) { e.Count = -1 }), Want: "spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero"},
		{Name: "all", Change: exact(func(e *resourcev1.ExactDeviceRequest) { e.AllocationMode, e.Count = "All", 2 }), Want: "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"},
		{Name: "no expression", Change: exact(func(e *resourcev1.ExactDeviceRequest) { e.Selectors = []resourcev1.DeviceSelector{{}} }), Want: "spec.devices.requests[0].exactly.selectors[0].cel: Required value"},
		{Name: "type", Change: exact(func(e *resourcev1.ExactDeviceRequest) { e.Selectors = expression("device.driver") }), Want: `spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: "device.driver": must evaluate to bool or the unknown type, not string`},
		{Name: "toleration", Change: exact(func(e *resourcev1.ExactDeviceRequest) {
			e.Tolerations = []resourcev1.DeviceToleration{{Key: "a", Operator: resourcev1.DeviceTolerationOpExists, Value: "b"}}
		}), Want: "spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"b\": must be empty for operator `Exists`"},
		{Name: "reference", Change: func(c *resourcev1.ResourceClaim) { c.Spec.Devices.Constraints[0].Requests = []string{"any/huge"} }, Want: `spec.devices.constraints[0].requests[0]: Invalid value: "any/huge": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'`},
		{Name: "no attribute", Change: func(c *resourcev1.ResourceClaim) { c.Spec.Devices.Constraints[0].MatchAttribute = nil }, Want: `spec.devices.constraints[0]: Required value: exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`},
		{Name: "attribute", Change: func(c *resourcev1.ResourceClaim) { *c.Spec.Devices.Constraints[0].MatchAttribute = "model" }, Want: `spec.devices.constraints[0].matchAttribute: Invalid value: "model": a fully qualified name must be a domain and a name separated by a slash`},
		{Name: "opaque", Change: func(c *resourcev1.ResourceClaim) { c.Spec.Devices.Config[0].Opaque.Parameters.Raw = []byte(`[1]`) }, Want: `spec.devices.config[0].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object`},
		{Name: "driver", Change: func(c *resourcev1.ResourceClaim) { c.Spec.Devices.Config[0].Opaque.Driver = "" }, Want: "spec.devices.config[0].opaque.driver: Required value"},
		{Name: "too many", Change: func(c *resourcev1.ResourceClaim) {
			c.Spec.Devices.Config = make([]resourcev1.DeviceClaimConfiguration, 33)
		}, Want: "spec.devices.config: Too many: 33: must have at most 32 items"},
	})
	kindtest.UpdateTable(t, k, claim(), []c{
		{Name: "label", Change: func(c *resourcev1.ResourceClaim) { c.Labels = map[string]string{"a": "b"} }},
		{Name: "status", Change: func(c *resourcev1.ResourceClaim) {
			c.Status.ReservedFor = make([]resourcev1.ResourceClaimConsumerReference, 1)
		}},
	})
	old := claim()
	kindtest.Create(k, old)
	changed := old.DeepCopy()
	changed.Spec.Devices.Requests[0].Exactly.Count = 2
	if got := kindtest.Update(k, changed, old); !strings.HasPrefix(got, "spec: Invalid value") || !strings.HasSuffix(got, "field is immutable") {
		t.Error(got)
	}
	old.Spec.Devices.Requests[0].Exactly.DerivedAttributes = []resourcev1.DeviceDerivedAttribute{{Name: "a.b/c", Expression: "1"}}
	if got := kindtest.Create(k, old); got != "" || old.Spec.Devices.Requests[0].Exactly.DerivedAttributes != nil {
		t.Errorf("derived attributes: %q, %v", got, old.Spec.Devices.Requests[0].Exactly.DerivedAttributes)
	}
}

func TestResourceClaimStatus(t *testing.T) {
	k := kindtest.Find(t, Group(Options{}), "ResourceClaim")
	pending := claim()
	kindtest.Create(k, pending)
	allocated := pending.DeepCopy()
	allocated.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
		Results: []resourcev1.DeviceRequestAllocationResult{{Request: "one", Driver: "x.y", Pool: "p/q", Device: "d"}},
	}}
	allocated.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "u"}}
	allocated.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: "x.y", Pool: "p/q", Device: "d", NetworkData: &resourcev1.NetworkDeviceData{IPs: []string{"10.0.0.1/24"}}}}
	for _, c := range []struct {
		name   string
		old    *resourcev1.ResourceClaim
		change func(*resourcev1.ResourceClaim)
		want   string
	}{
		{"allocated", pending, func(*resourcev1.ResourceClaim) {}, ""},
		{"reserved alone", pending, func(c *resourcev1.ResourceClaim) { c.Status.Allocation, c.Status.Devices = nil, nil }, "status.reservedFor: Forbidden: may not be specified when `allocated` is not set"},
		{"request", pending, func(c *resourcev1.ResourceClaim) { c.Status.Allocation.Devices.Results[0].Request = "two" }, `status.allocation.devices.results[0].request: Invalid value: "two": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'`},
		{"no pool", pending, func(c *resourcev1.ResourceClaim) {
			c.Status.Allocation.Devices.Results[0].Pool, c.Status.Devices = "", nil
		}, "status.allocation.devices.results[0].pool: Required value"},
		{"selector", pending, func(c *resourcev1.ResourceClaim) { c.Status.Allocation.NodeSelector = &corev1.NodeSelector{} }, "status.allocation.nodeSelector.nodeSelectorTerms: Required value: must have at least one node selector term"},
		{"conditions", pending, func(c *resourcev1.ResourceClaim) {
			c.Status.Allocation.Devices.Results[0].BindingConditions = []string{"a"}
		}, `status.allocation.devices.results[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions`},
		{"share", pending, func(c *resourcev1.ResourceClaim) {
			c.Status.Allocation.Devices.Results[0].ShareID = ptr.To(types.UID("x"))
			c.Status.Devices = nil
		}, `status.allocation.devices.results[0].shareID: Invalid value: "x": must be a lowercase UUID in 8-4-4-4-12 format`},
		{"consumer", pending, func(c *resourcev1.ResourceClaim) { c.Status.ReservedFor[0].Resource = "" }, "status.reservedFor[0].resource: Required value"},
		{"device", pending, func(c *resourcev1.ResourceClaim) { c.Status.Devices[0].Device = "e" }, `status.devices[0]: Invalid value: "x.y/p/q/e": must be an allocated device in the claim`},
		{"changed", allocated, func(c *resourcev1.ResourceClaim) {
			c.Status.Allocation.Devices.Results[0].Device = "e"
			c.Status.Devices = nil
		}, "field cannot be modified once set"},
		{"reserved more", allocated, func(c *resourcev1.ResourceClaim) {
			c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: "q", UID: "v"})
		}, ""},
		{"deallocated", allocated, func(c *resourcev1.ResourceClaim) { c.Status.Allocation, c.Status.ReservedFor = nil, nil }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, old := allocated.DeepCopy(), c.old.DeepCopy()
			c.change(now)
			k.Status.Prepare(t.Context(), now, old)
			got := kindtest.Errors(k.Status.Validate(t.Context(), now, old))
			if got != c.want && (c.want == "" || !strings.HasSuffix(got, c.want)) {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if now.Status.Allocation == nil && now.Status.Devices != nil {
				t.Error("devices that are not allocated have a status")
			}
		})
	}
	deleted := allocated.DeepCopy()
	deleted.DeletionTimestamp = &metav1.Time{}
	for want, obj := range map[string]*resourcev1.ResourceClaim{"pending": pending, "allocated,reserved": allocated, "deleted,allocated,reserved": deleted} {
		if got := claimState(obj); got != want {
			t.Errorf("state %q, want %q", got, want)
		}
	}
}

func slice() *resourcev1.ResourceSlice {
	return &resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "s"},
		Spec: resourcev1.ResourceSliceSpec{
			Driver: "x.y", NodeName: ptr.To("n"), Pool: resourcev1.ResourcePool{Name: "p", ResourceSliceCount: 1},
			Devices: []resourcev1.Device{{
				Name: "d", AllowMultipleAllocations: ptr.To(true),
				Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"a.b/model": {StringValue: ptr.To("m")}, "version": {VersionValue: ptr.To("1.2.3-rc.1+x")}},
				Capacity: map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{"mem": {Value: resource.MustParse("10"), RequestPolicy: &resourcev1.CapacityRequestPolicy{
					Default: ptr.To(resource.MustParse("1")), ValidRange: &resourcev1.CapacityRequestPolicyRange{Min: ptr.To(resource.MustParse("1")), Step: ptr.To(resource.MustParse("2"))},
				}}},
				Taints: []resourcev1.DeviceTaint{{Key: "k", Effect: resourcev1.DeviceTaintEffectNoSchedule}},
			}},
		},
	}
}

func TestResourceSlice(t *testing.T) {
	k := kindtest.Find(t, Group(Options{}), "ResourceSlice")
	type c = kindtest.Change[*resourcev1.ResourceSlice]
	device := func(f func(*resourcev1.Device)) func(*resourcev1.ResourceSlice) {
		return func(s *resourcev1.ResourceSlice) { f(&s.Spec.Devices[0]) }
	}
	policy := func(f func(*resourcev1.CapacityRequestPolicy)) func(*resourcev1.ResourceSlice) {
		return device(func(d *resourcev1.Device) { f(d.Capacity["mem"].RequestPolicy) })
	}
	const mem = "spec.devices[0].capacity[mem].requestPolicy"
	quantity := func(s string) *resource.Quantity { return ptr.To(resource.MustParse(s)) }
	kindtest.CreateTable(t, k, slice(), []c{
		{Name: "driver", Change: func(s *resourcev1.ResourceSlice) { s.Spec.Driver = "" }, Want: "spec.driver: Required value"},
		{Name: "pool", Change: func(s *resourcev1.ResourceSlice) { s.Spec.Pool = resourcev1.ResourcePool{Generation: -1} }, Want: "spec.pool.name: Required value\nspec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero\nspec.pool.generation: Invalid value: -1: must be greater than or equal to zero"},
		{Name: "nowhere", Change: func(s *resourcev1.ResourceSlice) { s.Spec.NodeName = nil }, Want: "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"},
		{Name: "two places", Change: func(s *resourcev1.ResourceSlice) { s.Spec.AllNodes = ptr.To(true) }, Want: "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"},
		{Name: "not all", Change: func(s *resourcev1.ResourceSlice) { s.Spec.AllNodes = ptr.To(false) }, Want: "spec.allNodes: Invalid value: false: must be either unset or set to true"},
		{Name: "own nodes", Change: device(func(d *resourcev1.Device) { d.NodeName = ptr.To("n") }), Want: "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"},
		{Name: "twice", Change: func(s *resourcev1.ResourceSlice) {
			s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{Name: "d"})
		}, Want: `spec.devices[1]: Duplicate value: "d"`},
		{Name: "many with taints", Change: func(s *resourcev1.ResourceSlice) {
			s.Spec.Devices = append(s.Spec.Devices, make([]resourcev1.Device, 64)...)
		}, Want: "spec.devices: Too many: 65: must have at most 64 items"},
		{Name: "no value", Change: device(func(d *resourcev1.Device) { d.Attributes["version"] = resourcev1.DeviceAttribute{} }), Want: `spec.devices[0].attributes[version]: Invalid value: "": must specify one of: ` + "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`"},
		{Name: "version", Change: device(func(d *resourcev1.Device) {
			d.Attributes["version"] = resourcev1.DeviceAttribute{VersionValue: ptr.To("1.2")}
		}), Want: `spec.devices[0].attributes[version].version: Invalid value: "1.2": must be a string compatible with semver.org spec 2.0.0`},
		{Name: "taint", Change: device(func(d *resourcev1.Device) { d.Taints[0].Effect = "" }), Want: "spec.devices[0].taints[0].effect: Required value"},
		{Name: "policy alone", Change: device(func(d *resourcev1.Device) { d.AllowMultipleAllocations = nil }), Want: mem + ": Forbidden: allowMultipleAllocations must be true"},
		{Name: "no default", Change: policy(func(p *resourcev1.CapacityRequestPolicy) { p.Default = nil }), Want: mem + ".default: Required value: required when validRange is defined"},
		{Name: "default below", Change: policy(func(p *resourcev1.CapacityRequestPolicy) { p.Default = quantity("-1") }), Want: mem + `.validRange.default: Invalid value: "-1": default is less than min: 1
` + mem + `.validRange.default: Invalid value: "-1": must be greater than or equal to 0`},
		{Name: "step", Change: policy(func(p *resourcev1.CapacityRequestPolicy) { p.Default = quantity("2") }), Want: mem + `.validRange.step: Invalid value: "2": value is not a multiple of a given step (2) from (1)`},
		{Name: "fraction", Change: policy(func(p *resourcev1.CapacityRequestPolicy) { p.ValidRange.Step = quantity("500m") })},
		{Name: "too fine", Change: policy(func(p *resourcev1.CapacityRequestPolicy) { p.ValidRange.Step = quantity("1u") }), Want: mem + `.validRange.step: Invalid value: "1u": value cannot be represented as a milli value`},
		{Name: "values", Change: policy(func(p *resourcev1.CapacityRequestPolicy) {
			p.ValidRange, p.ValidValues = nil, []resource.Quantity{resource.MustParse("4"), resource.MustParse("2"), resource.MustParse("11")}
		}), Want: mem + `.validValues[1]: Invalid value: "2": values must be sorted in ascending order
` + mem + `.validValues[2]: Invalid value: "11": option is larger than capacity value: 10
` + mem + `.validValues: Invalid value: "1": default value is not valid according to the requestPolicy`},
		{Name: "counters", Change: func(s *resourcev1.ResourceSlice) {
			s.Spec.Devices, s.Spec.SharedCounters = nil, []resourcev1.CounterSet{{Name: "a"}}
		}, Want: "spec.sharedCounters[0].counters: Required value"},
	})
	kindtest.UpdateTable(t, k, slice(), []c{
		{Name: "node", Change: func(s *resourcev1.ResourceSlice) { s.Spec.NodeName = ptr.To("m") }, Want: `spec.nodeName: Invalid value: "m": field is immutable`},
		{Name: "devices", Change: func(s *resourcev1.ResourceSlice) { s.Spec.Devices = nil }},
	})
	old := slice()
	kindtest.Create(k, old)
	if old.Generation != 1 || old.Spec.Devices[0].Taints[0].TimeAdded == nil {
		t.Errorf("generation %d, taint %+v", old.Generation, old.Spec.Devices[0].Taints[0])
	}
	now := old.DeepCopy()
	now.Spec.Pool.Generation++
	if kindtest.Update(k, now, old); now.Generation != 2 {
		t.Errorf("generation %d, want 2", now.Generation)
	}
	lists := slice()
	lists.Spec.Devices[0].Attributes["version"] = resourcev1.DeviceAttribute{VersionValue: ptr.To("1.2.3"), IntValues: []int64{1}}
	if got := kindtest.Create(k, lists); got != "" || lists.Spec.Devices[0].Attributes["version"].IntValues != nil {
		t.Errorf("lists: %q, %+v", got, lists.Spec.Devices[0].Attributes)
	}
}

func TestDeviceClassAndTaintRule(t *testing.T) {
	k := kindtest.Find(t, Group(Options{}), "DeviceClass")
	class := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: resourcev1.DeviceClassSpec{Selectors: expression("true")}}
	kindtest.CreateTable(t, k, class, []kindtest.Change[*resourcev1.DeviceClass]{
		{Name: "resource", Change: func(c *resourcev1.DeviceClass) { c.Spec.ExtendedResourceName = ptr.To("x.y/gpu") }},
		{Name: "config", Change: func(c *resourcev1.DeviceClass) { c.Spec.Config = make([]resourcev1.DeviceClassConfiguration, 1) }, Want: "spec.config[0].opaque: Required value"},
		{Name: "long", Change: func(c *resourcev1.DeviceClass) { c.Spec.Selectors = expression(strings.Repeat("x", 10*1024+1)) }, Want: "spec.selectors[0].cel.expression: Too long: may not be more than 10240 bytes"},
	})
	stored := class.DeepCopy()
	stored.Spec.Selectors = expression("of an older version")
	if got := kindtest.Update(k, stored.DeepCopy(), stored); got != "" {
		t.Errorf("what is stored is checked again: %s", got)
	}
	r := kindtest.Find(t, Group(Options{}), "DeviceTaintRule")
	rule := &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: resourcev1.DeviceTaintRuleSpec{Taint: resourcev1.DeviceTaint{Key: "k", Effect: "NoExecute"}}}
	kindtest.CreateTable(t, r, rule, []kindtest.Change[*resourcev1.DeviceTaintRule]{
		{Name: "selector", Change: func(r *resourcev1.DeviceTaintRule) {
			r.Spec.DeviceSelector = &resourcev1.DeviceTaintSelector{Driver: ptr.To(""), Pool: ptr.To("")}
		}, Want: "spec.deviceSelector.driver: Required value\nspec.deviceSelector.pool: Required value"},
		{Name: "effect", Change: func(r *resourcev1.DeviceTaintRule) { r.Spec.Taint.Effect = "No" }, Want: `spec.taint.effect: Unsupported value: "No": supported values: "NoExecute", "NoSchedule", "None"`},
	})
}
