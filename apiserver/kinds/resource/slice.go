package resource

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

type sliced = *resourcev1.ResourceSlice

func resourceSlice(now clock.PassiveClock) *kind.Kind {
	spec := field.NewPath("spec")
	doc := resourcev1.ResourceSliceSpec{}.SwaggerDoc()
	return &kind.Kind{
		GVK:                      resourcev1.SchemeGroupVersion.WithKind("ResourceSlice"),
		Resource:                 "resourceslices",
		Singular:                 "resourceslice",
		AllowUnconditionalUpdate: true,

		Default: typed.Default(func(s sliced) {
			for i := range s.Spec.Devices {
				for k := range s.Spec.Devices[i].Taints {
					defaultTaint(&s.Spec.Devices[i].Taints[k], now)
				}
			}
		}),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, s sliced) {
			s.Generation = 1
			dropper{ctx}.slice(&s.Spec, spec)
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(ctx context.Context, s, old sliced) {
			dropper{ctx}.slice(&s.Spec, spec)
			if s.Generation = old.Generation; !sameSpec(s, old) {
				s.Generation++
			}
		}),
		Validate:       typed.Validate(func(s sliced) field.ErrorList { return validateSlice(&s.Spec, nil, spec) }),
		ValidateUpdate: typed.ValidateUpdate(func(s, old sliced) field.ErrorList { return validateSlice(&s.Spec, &old.Spec, spec) }),
		Warnings: typed.Warnings(func(_ context.Context, s, _ sliced) []string {
			if s.Spec.Driver == strings.ToLower(s.Spec.Driver) {
				return nil
			}
			return []string{fmt.Sprintf("spec.driver: driver names should be lowercase; %q contains uppercase characters", s.Spec.Driver)}
		}),
		Fields: map[string]func(client.Object) string{
			resourcev1.ResourceSliceSelectorNodeName: typed.Field(func(s sliced) string { return ptr.Deref(s.Spec.NodeName, "") }),
			resourcev1.ResourceSliceSelectorDriver:   typed.Field(func(s sliced) string { return s.Spec.Driver }),
			resourcev1.ResourceSliceSelectorPoolName: typed.Field(func(s sliced) string { return s.Spec.Pool.Name }),
		},
		IndexFields: []string{resourcev1.ResourceSliceSelectorNodeName},
		Columns: []metav1.TableColumnDefinition{
			table.Name(), table.Text("Node", doc["nodeName"]), table.Text("Driver", doc["driver"]), table.Text("Pool", resourcev1.ResourcePool{}.SwaggerDoc()["name"]), table.Age(),
		},
		Row: typed.Row(func(s sliced, now time.Time) []any {
			return []any{s.Name, ptr.Deref(s.Spec.NodeName, ""), s.Spec.Driver, s.Spec.Pool.Name, table.Since(s.CreationTimestamp, now)}
		}),
	}
}

func sameSpec(s, old sliced) bool { return apiequality.Semantic.DeepEqual(s.Spec, old.Spec) }

// where are the fields that say which nodes reach devices.
type where struct {
	nodeName *string
	selector *corev1.NodeSelector
	all      *bool
}

// nodes checks them and returns those that are set.
func (c *check) nodes(w where, empty string, p *field.Path) (set []string) {
	if w.nodeName != nil {
		if at := p.Child("nodeName"); *w.nodeName == "" {
			c.Invalid(at, "", empty)
		} else {
			set = append(set, "`nodeName`")
			c.subdomain(*w.nodeName, at)
		}
	}
	if w.selector != nil {
		set = append(set, "`nodeSelector`")
		c.Add(podspec.ValidateNodeSelector(w.selector, p.Child("nodeSelector")))
	}
	return c.flag(w.all, "allNodes", p, set)
}

func (c *check) flag(b *bool, name string, p *field.Path, set []string) []string {
	switch {
	case b == nil:
	case *b:
		set = append(set, "`"+name+"`")
	default:
		c.Invalid(p.Child(name), false, "must be either unset or set to true")
	}
	return set
}

func validateSlice(s, old *resourcev1.ResourceSliceSpec, p *field.Path) field.ErrorList {
	c, op := &check{}, operation.Create
	c.driver(s.Driver, p.Child("driver"))
	pool := p.Child("pool")
	c.pool(s.Pool.Name, pool.Child("name"))
	if s.Pool.ResourceSliceCount <= 0 {
		c.Invalid(pool.Child("resourceSliceCount"), s.Pool.ResourceSliceCount, "must be greater than zero")
	}
	if s.Pool.Generation < 0 {
		c.Invalid(pool.Child("generation"), s.Pool.Generation, "must be greater than or equal to zero")
	}
	if old != nil {
		op = operation.Update
		c.Immutable(s.Pool.Name, old.Pool.Name, pool.Child("name"))
		c.Immutable(s.Driver, old.Driver, p.Child("driver"))
		c.Immutable(s.NodeName, old.NodeName, p.Child("nodeName"))
	}
	set := c.nodes(where{s.NodeName, s.NodeSelector, s.AllNodes}, "must be either unset or set to a non-empty string", p)
	if s.NodeSelector != nil && len(s.NodeSelector.NodeSelectorTerms) != 1 {
		c.Invalid(p.Child("nodeSelector", "nodeSelectorTerms"), s.NodeSelector.NodeSelectorTerms, "must have exactly one node selector term")
	}
	set = c.flag(s.PerDeviceNodeSelection, "perDeviceNodeSelection", p, set)
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	switch len(set) {
	case 0:
		c.Required(p, one)
	case 1:
	default:
		c.Invalid(p, fmt.Sprintf("{%s}", strings.Join(set, ", ")), one+", but multiple fields are set")
	}
	if s.SharedCounters != nil && s.Devices != nil {
		c.Invalid(p, "", "only one of `sharedCounters` or `devices` is allowed")
	}
	c.devices(s, old, p.Child("devices"))
	for i, set := range s.SharedCounters {
		if n := len(set.Counters); n > resourcev1.ResourceSliceMaxCountersPerCounterSet && len(s.SharedCounters) <= resourcev1.ResourceSliceMaxCounterSets {
			c.TooMany(p.Child("sharedCounters").Index(i).Child("counters"), n, resourcev1.ResourceSliceMaxCountersPerCounterSet)
		}
	}
	return append(c.List, enforced(resourcev1.Validate_ResourceSliceSpec(context.Background(), generated(op), p, s, old))...)
}

func (c *check) devices(s, old *resourcev1.ResourceSliceSpec, p *field.Path) {
	most := resourcev1.ResourceSliceMaxDevices
	for i := range s.Devices {
		if d := &s.Devices[i]; len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 {
			most = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	if len(s.Devices) > most {
		c.TooMany(p, len(s.Devices), most)
		return
	}
	before := map[string]*resourcev1.Device{}
	if old != nil {
		for i := range old.Devices {
			before[old.Devices[i].Name] = &old.Devices[i]
		}
	}
	seen := map[string]bool{}
	for i := range s.Devices {
		d := &s.Devices[i]
		c.device(d, before[d.Name], ptr.Deref(s.PerDeviceNodeSelection, false), p.Index(i))
		if seen[d.Name] {
			c.Duplicate(p.Index(i), d.Name)
		}
		seen[d.Name] = true
	}
}
