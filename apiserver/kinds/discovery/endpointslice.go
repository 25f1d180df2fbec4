package discovery

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

// Limits of one EndpointSlice, as in Kubernetes.
const (
	maxEndpoints = 1000
	maxAddresses = 100
	maxPorts     = 20000
	maxTopology  = 16
	maxZoneHints = 8
	maxNodeHints = 8
)

// Options are the choices of the group; the zero value is Kubernetes' behaviour.
type Options struct {
	// AllowLoopback accepts endpoints with loopback addresses. Clusters without privilege give their pods such addresses.
	AllowLoopback bool
}

// Group returns the declarations of API group discovery.k8s.io.
func Group(opts Options) kind.Group {
	return kind.Group{
		Name:        discoveryv1.GroupName,
		AddToScheme: discoveryv1.AddToScheme,
		Versions:    []string{"v1"},
		Kinds:       []*kind.Kind{endpointSlice(opts)},
	}
}

func endpointSlice(opts Options) *kind.Kind {
	return &kind.Kind{
		GVK:        discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
		Resource:   "endpointslices",
		Singular:   "endpointslice",
		Namespaced: true,

		Default: typed.Default(func(s *discoveryv1.EndpointSlice) {
			for i := range s.Ports {
				rules.SetNil(&s.Ports[i].Name, "")
				rules.SetNil(&s.Ports[i].Protocol, corev1.ProtocolTCP)
			}
		}),
		PrepareForCreate: typed.Prepare(func(ctx context.Context, s *discoveryv1.EndpointSlice) {
			s.Generation = 1
			dropTopology(ctx, s)
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(ctx context.Context, s, old *discoveryv1.EndpointSlice) {
			if !usesTopology(old) {
				dropTopology(ctx, s)
			}
			s.Generation = old.Generation
			if !apiequality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) || !apiequality.Semantic.DeepEqual(s.Ports, old.Ports) ||
				!apiequality.Semantic.DeepEqual(s.Labels, old.Labels) || !apiequality.Semantic.DeepEqual(s.Annotations, old.Annotations) {
				s.Generation++
			}
		}),
		Validate: typed.Validate(opts.validate),
		ValidateUpdate: typed.ValidateUpdate(func(s, old *discoveryv1.EndpointSlice) field.ErrorList {
			return append(opts.validate(s), rules.Immutable(s.AddressType, old.AddressType, field.NewPath("addressType"))...)
		}),
		NameValidation:           apivalidation.NameIsDNSSubdomain,
		AllowUnconditionalUpdate: true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("AddressType", discoveryv1.EndpointSlice{}.SwaggerDoc()["addressType"]),
			table.Text("Ports", discoveryv1.EndpointSlice{}.SwaggerDoc()["ports"]),
			table.Text("Endpoints", discoveryv1.EndpointSlice{}.SwaggerDoc()["endpoints"]),
			table.Age(),
		},
		Row: typed.Row(func(s *discoveryv1.EndpointSlice, now time.Time) []any {
			var ports, addresses []string
			for _, p := range s.Ports {
				switch {
				case p.Port != nil:
					ports = append(ports, strconv.Itoa(int(*p.Port)))
				case p.Name != nil:
					ports = append(ports, *p.Name)
				default:
					ports = append(ports, "*")
				}
			}
			for _, e := range s.Endpoints {
				addresses = append(addresses, e.Addresses...)
			}
			return []any{
				s.Name, string(s.AddressType), table.Limited(ports, 3, ",", "<unset>"), table.Limited(addresses, 3, ",", "<unset>"),
				table.Since(s.CreationTimestamp, now),
			}
		}),
	}
}

func usesTopology(s *discoveryv1.EndpointSlice) bool {
	for i := range s.Endpoints {
		if len(s.Endpoints[i].DeprecatedTopology) > 0 {
			return true
		}
	}
	return false
}

// dropTopology clears a field that cannot be written in v1.
func dropTopology(ctx context.Context, s *discoveryv1.EndpointSlice) {
	if !usesTopology(s) {
		return
	}
	for i := range s.Endpoints {
		s.Endpoints[i].DeprecatedTopology = nil
	}
	warning.AddWarning(ctx, "", "endpoints[*].deprecatedTopology: dropped, it cannot be set through the v1 API")
}

func (o Options) validate(s *discoveryv1.EndpointSlice) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("addressType")
	if s.AddressType == "" {
		errs = append(errs, field.Required(path, ""))
	} else {
		errs = append(errs, rules.OneOf(s.AddressType, path, discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)...)
	}
	errs = append(errs, o.validateEndpoints(s.Endpoints, s.AddressType, field.NewPath("endpoints"))...)
	return append(errs, validatePorts(s.Ports, field.NewPath("ports"))...)
}

func (o Options) validateEndpoints(endpoints []discoveryv1.Endpoint, kind discoveryv1.AddressType, path *field.Path) field.ErrorList {
	if len(endpoints) > maxEndpoints {
		return field.ErrorList{field.TooMany(path, len(endpoints), maxEndpoints)}
	}
	var errs field.ErrorList
	for i := range endpoints {
		e, at := &endpoints[i], path.Index(i)
		switch n := len(e.Addresses); {
		case n == 0:
			errs = append(errs, field.Required(at.Child("addresses"), "must contain at least 1 address"))
		case n > maxAddresses:
			errs = append(errs, field.TooMany(at.Child("addresses"), n, maxAddresses))
		}
		for k, address := range e.Addresses {
			where := at.Child("addresses").Index(k)
			switch kind {
			case discoveryv1.AddressTypeIPv4:
				errs = append(errs, o.validateIP(address, true, where)...)
			case discoveryv1.AddressTypeIPv6:
				errs = append(errs, o.validateIP(address, false, where)...)
			case discoveryv1.AddressTypeFQDN:
				errs = append(errs, validation.IsFullyQualifiedDomainName(where, address)...)
			}
		}
		if e.NodeName != nil {
			errs = append(errs, rules.Messages(apivalidation.NameIsDNSSubdomain(*e.NodeName, false), *e.NodeName, at.Child("nodeName"))...)
		}
		if len(e.DeprecatedTopology) > 0 {
			if n := len(e.DeprecatedTopology); n > maxTopology {
				errs = append(errs, field.TooMany(at.Child("deprecatedTopology"), n, maxTopology))
			}
			errs = append(errs, metav1validation.ValidateLabels(e.DeprecatedTopology, at.Child("deprecatedTopology"))...)
			if _, ok := e.DeprecatedTopology[corev1.LabelTopologyZone]; ok {
				errs = append(errs, field.Invalid(at.Child("deprecatedTopology").Key(corev1.LabelTopologyZone), e.DeprecatedTopology[corev1.LabelTopologyZone], "cannot be set in deprecatedTopology; use the zone field"))
			}
		}
		if e.Hostname != nil {
			errs = append(errs, rules.Messages(validation.IsDNS1123Label(*e.Hostname), *e.Hostname, at.Child("hostname"))...)
		}
		if e.Hints != nil {
			errs = append(errs, validateHints(e.Hints, at.Child("hints"))...)
		}
	}
	return errs
}

func validateHints(hints *discoveryv1.EndpointHints, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(hints.ForZones); n > maxZoneHints {
		errs = append(errs, field.TooMany(path.Child("forZones"), n, maxZoneHints))
	} else {
		seen := map[string]bool{}
		for i, zone := range hints.ForZones {
			at := path.Child("forZones").Index(i).Child("name")
			if seen[zone.Name] {
				errs = append(errs, field.Duplicate(at, zone.Name))
			}
			seen[zone.Name] = true
			errs = append(errs, rules.Messages(validation.IsValidLabelValue(zone.Name), zone.Name, at)...)
		}
	}
	if n := len(hints.ForNodes); n > maxNodeHints {
		errs = append(errs, field.TooMany(path.Child("forNodes"), n, maxNodeHints))
	} else {
		seen := map[string]bool{}
		for i, node := range hints.ForNodes {
			at := path.Child("forNodes").Index(i).Child("name")
			if seen[node.Name] {
				errs = append(errs, field.Duplicate(at, node.Name))
			}
			seen[node.Name] = true
			errs = append(errs, rules.Messages(apivalidation.NameIsDNSSubdomain(node.Name, false), node.Name, at)...)
		}
	}
	return errs
}

// validateIP refuses what is no address of the family, and addresses that would reach something on the node itself.
func (o Options) validateIP(address string, v4 bool, path *field.Path) field.ErrorList {
	errs := validation.IsValidIPForLegacyField(path, address, true, nil)
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return errs
	}
	if ip = ip.Unmap(); ip.Is4() != v4 {
		family := "IPv6"
		if v4 {
			family = "IPv4"
		}
		errs = append(errs, field.Invalid(path, address, "must be an "+family+" address"))
	}
	if ip.IsUnspecified() {
		errs = append(errs, field.Invalid(path, address, fmt.Sprintf("may not be unspecified (%v)", address)))
	}
	if ip.IsLoopback() && !o.AllowLoopback {
		errs = append(errs, field.Invalid(path, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
	}
	if ip.IsLinkLocalUnicast() {
		errs = append(errs, field.Invalid(path, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
	}
	if ip.IsLinkLocalMulticast() {
		errs = append(errs, field.Invalid(path, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))
	}
	return errs
}

func validatePorts(ports []discoveryv1.EndpointPort, path *field.Path) field.ErrorList {
	if len(ports) > maxPorts {
		return field.ErrorList{field.TooMany(path, len(ports), maxPorts)}
	}
	var errs field.ErrorList
	names := map[string]bool{}
	for i := range ports {
		p, at := &ports[i], path.Index(i)
		if p.Name != nil {
			if *p.Name != "" {
				errs = append(errs, rules.Messages(validation.IsDNS1123Label(*p.Name), *p.Name, at.Child("name"))...)
			}
			if names[*p.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), *p.Name))
			}
			names[*p.Name] = true
		}
		if p.Protocol == nil {
			errs = append(errs, field.Required(at.Child("protocol"), ""))
		} else {
			errs = append(errs, rules.OneOf(*p.Protocol, at.Child("protocol"), corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		}
		if p.AppProtocol != nil {
			errs = append(errs, rules.Messages(validation.IsQualifiedName(*p.AppProtocol), *p.AppProtocol, at.Child("appProtocol"))...)
		}
	}
	return errs
}
