package core

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// maxShownEndpoints bounds the addresses in the table.
const maxShownEndpoints = 3

func endpoints(opts Options) *kind.Kind {
	return &kind.Kind{
		GVK:         corev1.SchemeGroupVersion.WithKind("Endpoints"),
		Resource:    "endpoints",
		Singular:    "endpoints",
		ShortNames:  []string{"ep"},
		StorePrefix: "services/endpoints",
		Namespaced:  true,

		Default: typed.Default(func(e *corev1.Endpoints) {
			for i := range e.Subsets {
				for j := range e.Subsets[i].Ports {
					if e.Subsets[i].Ports[j].Protocol == "" {
						e.Subsets[i].Ports[j].Protocol = corev1.ProtocolTCP
					}
				}
			}
		}),
		PrepareForCreate: asGiven,
		PrepareForUpdate: asGivenUpdate,
		Validate: typed.Validate(func(e *corev1.Endpoints) field.ErrorList {
			return validateEndpoints(e, nil, opts.AllowLoopback)
		}),
		ValidateUpdate: typed.ValidateUpdate(func(e, old *corev1.Endpoints) field.ErrorList {
			return validateEndpoints(e, old, opts.AllowLoopback)
		}),
		Deprecated: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",

		AllowUnconditionalUpdate: true,
		Columns: []metav1.TableColumnDefinition{
			table.Name(), table.Text("Endpoints", corev1.Endpoints{}.SwaggerDoc()["subsets"]), table.Age(),
		},
		Row: typed.Row(func(e *corev1.Endpoints, now time.Time) []any {
			return []any{e.Name, formatEndpoints(e), table.Since(e.CreationTimestamp, now)}
		}),
	}
}

func validateEndpoints(ep, old *corev1.Endpoints, loopback bool) field.ErrorList {
	e := &validate.Errors{}
	known := []string{}
	if old != nil {
		for _, subset := range old.Subsets {
			for _, list := range [][]corev1.EndpointAddress{subset.Addresses, subset.NotReadyAddresses} {
				for _, address := range list {
					known = append(known, address.IP)
				}
			}
		}
	}
	for i := range ep.Subsets {
		subset, p := &ep.Subsets[i], field.NewPath("subsets").Index(i)
		if len(subset.Addresses) == 0 && len(subset.NotReadyAddresses) == 0 {
			e.Required(p, "must specify `addresses` or `notReadyAddresses`")
		}
		addresses := func(list []corev1.EndpointAddress, path *field.Path) {
			for j := range list {
				endpointAddress(e, &list[j], known, loopback, path.Index(j))
			}
		}
		addresses(subset.Addresses, p.Child("addresses"))
		addresses(subset.NotReadyAddresses, p.Child("notReadyAddresses"))
		endpointPorts(e, subset.Ports, p.Child("ports"))
	}
	return e.List
}

func endpointAddress(e *validate.Errors, address *corev1.EndpointAddress, known []string, loopback bool, p *field.Path) {
	e.Add(validation.IsValidIPForLegacyField(p.Child("ip"), address.IP, false, known))
	if address.Hostname != "" {
		e.DNSLabel(address.Hostname, p.Child("hostname"))
	}
	if address.NodeName != nil {
		e.DNSSubdomain(*address.NodeName, p.Child("nodeName"))
	}
	validate.OrdinaryIP(e, address.IP, loopback, p.Child("ip"))
}

func endpointPorts(e *validate.Errors, ports []corev1.EndpointPort, path *field.Path) {
	names := sets.New[string]()
	for i, port := range ports {
		p := path.Index(i)
		if len(ports) > 1 && port.Name == "" {
			e.Required(p.Child("name"), "")
		} else if port.Name != "" {
			e.DNSLabel(port.Name, p.Child("name"))
		}
		if names.Has(port.Name) && port.Name != "" {
			e.Duplicate(p.Child("name"), port.Name)
		}
		names.Insert(port.Name)
		e.PortNumber(port.Port, p.Child("port"))
		validate.OneOf(e, p.Child("protocol"), port.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
		if port.AppProtocol != nil {
			e.QualifiedName(*port.AppProtocol, p.Child("appProtocol"))
		}
	}
}

func formatEndpoints(ep *corev1.Endpoints) string {
	if len(ep.Subsets) == 0 {
		return "<none>"
	}
	var shown []string
	count := 0
	for _, subset := range ep.Subsets {
		if len(subset.Ports) == 0 {
			for _, address := range subset.Addresses {
				if count++; len(shown) < maxShownEndpoints {
					shown = append(shown, address.IP)
				}
			}
			continue
		}
		for _, port := range subset.Ports {
			for _, address := range subset.Addresses {
				if count++; len(shown) < maxShownEndpoints {
					shown = append(shown, hostPort(address.IP, port.Port))
				}
			}
		}
	}
	out := strings.Join(shown, ",")
	if count > len(shown) {
		out += " + " + strconv.Itoa(count-len(shown)) + " more..."
	}
	return out
}

func hostPort(ip string, port int32) string {
	if addr, err := netip.ParseAddr(ip); err == nil && addr.Is6() {
		return "[" + ip + "]:" + strconv.Itoa(int(port))
	}
	return ip + ":" + strconv.Itoa(int(port))
}
