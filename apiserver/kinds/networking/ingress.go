package networking

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/rules"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
)

const ingressClassAnnotation = "kubernetes.io/ingress.class"

func ingress() *kind.Kind {
	return &kind.Kind{
		GVK:         networkingv1.SchemeGroupVersion.WithKind("Ingress"),
		Resource:    "ingresses",
		Singular:    "ingress",
		ShortNames:  []string{"ing"},
		Namespaced:  true,
		StorePrefix: "ingress",

		PrepareForCreate: typed.Prepare(func(_ context.Context, i *networkingv1.Ingress) {
			i.Status = networkingv1.IngressStatus{}
			i.Generation = 1
		}),
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, i, old *networkingv1.Ingress) {
			i.Status = old.Status
			i.Generation = old.Generation
			if !apiequality.Semantic.DeepEqual(i.Spec, old.Spec) {
				i.Generation++
			}
		}),
		Validate:       typed.Validate(validateIngressCreate),
		ValidateUpdate: typed.ValidateUpdate(func(i, _ *networkingv1.Ingress) field.ErrorList { return validateIngress(i) }),
		Warnings: typed.Warnings(func(_ context.Context, i, old *networkingv1.Ingress) []string {
			if _, ok := i.Annotations[ingressClassAnnotation]; ok && old == nil {
				return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", ingressClassAnnotation)}
			}
			return nil
		}),
		AllowUnconditionalUpdate: true,
		Status:                   &kind.Subresource{Validate: typed.ValidateUpdate(validateIngressStatus)},
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Class", "The name of the IngressClass resource that should be used for additional configuration"),
			table.Text("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
			table.Text("Address", "Address is a list containing ingress points for the load-balancer"),
			table.Text("Ports", "Ports of TLS configurations that open"),
			table.Age(),
		},
		Row: typed.Row(func(i *networkingv1.Ingress, now time.Time) []any {
			class, ports := "<none>", "80"
			if i.Spec.IngressClassName != nil {
				class = *i.Spec.IngressClassName
			}
			if len(i.Spec.TLS) > 0 {
				ports = "80, 443"
			}
			return []any{i.Name, class, hostsCell(i.Spec.Rules), addressCell(i.Status.LoadBalancer.Ingress), ports, table.Since(i.CreationTimestamp, now)}
		}),
	}
}

func hostsCell(list []networkingv1.IngressRule) string {
	var hosts []string
	for _, r := range list {
		if r.Host != "" {
			hosts = append(hosts, r.Host)
		}
	}
	return table.Limited(hosts, 3, ",", "*")
}

func addressCell(points []networkingv1.IngressLoadBalancerIngress) string {
	var out []string
	for _, p := range points {
		if p.IP != "" {
			out = append(out, p.IP)
		} else if p.Hostname != "" {
			out = append(out, p.Hostname)
		}
	}
	return strings.Join(out, ",")
}

func validateIngressCreate(i *networkingv1.Ingress) field.ErrorList {
	errs := validateIngress(i)
	if value, ok := i.Annotations[ingressClassAnnotation]; ok && i.Spec.IngressClassName != nil {
		errs = append(errs, field.Invalid(field.NewPath("annotations").Child(ingressClassAnnotation), value, "can not be set when the class field is also set"))
	}
	return errs
}

func validateIngress(i *networkingv1.Ingress) field.ErrorList {
	spec, path := &i.Spec, field.NewPath("spec")
	var errs field.ErrorList
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		errs = append(errs, field.Invalid(path, spec.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if spec.DefaultBackend != nil {
		errs = append(errs, validateBackend(spec.DefaultBackend, path.Child("defaultBackend"))...)
	}
	for k := range spec.Rules {
		errs = append(errs, validateIngressRule(&spec.Rules[k], path.Child("rules").Index(k))...)
	}
	for k := range spec.TLS {
		errs = append(errs, validateTLS(&spec.TLS[k], path.Child("tls").Index(k))...)
	}
	if name := spec.IngressClassName; name != nil {
		errs = append(errs, rules.Messages(apivalidation.NameIsDNSSubdomain(*name, false), *name, path.Child("ingressClassName"))...)
	}
	return errs
}

func validateTLS(t *networkingv1.IngressTLS, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, host := range t.Hosts {
		errs = append(errs, validateHostName(host, path.Child("hosts").Index(i))...)
	}
	if t.SecretName != "" {
		errs = append(errs, rules.Messages(apivalidation.NameIsDNSSubdomain(t.SecretName, false), t.SecretName, path.Child("secretName"))...)
	}
	return errs
}

func validateHostName(host string, path *field.Path) field.ErrorList {
	if strings.Contains(host, "*") {
		return rules.Messages(validation.IsWildcardDNS1123Subdomain(host), host, path)
	}
	return rules.Messages(validation.IsDNS1123Subdomain(host), host, path)
}

func isIP(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

func validateIngressRule(r *networkingv1.IngressRule, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if r.Host != "" {
		if isIP(r.Host) {
			errs = append(errs, field.Invalid(path.Child("host"), r.Host, "must be a DNS name, not an IP address"))
		}
		errs = append(errs, validateHostName(r.Host, path.Child("host"))...)
	}
	if r.HTTP == nil {
		return errs
	}
	path = path.Child("http")
	if len(r.HTTP.Paths) == 0 {
		errs = append(errs, field.Required(path.Child("paths"), ""))
	}
	for i := range r.HTTP.Paths {
		errs = append(errs, validateHTTPPath(&r.HTTP.Paths[i], path.Child("paths").Index(i))...)
	}
	return errs
}

func validateHTTPPath(p *networkingv1.HTTPIngressPath, path *field.Path) field.ErrorList {
	if p.PathType == nil {
		return field.ErrorList{field.Required(path.Child("pathType"), "pathType must be specified")}
	}
	var errs field.ErrorList
	switch *p.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !strings.HasPrefix(p.Path, "/") {
			errs = append(errs, field.Invalid(path.Child("path"), p.Path, "must be an absolute path"))
		}
		if p.Path != "" {
			for _, s := range []string{"//", "/./", "/../", "%2f", "%2F"} {
				if strings.Contains(p.Path, s) {
					errs = append(errs, field.Invalid(path.Child("path"), p.Path, fmt.Sprintf("must not contain '%s'", s)))
				}
			}
			for _, s := range []string{"/..", "/."} {
				if strings.HasSuffix(p.Path, s) {
					errs = append(errs, field.Invalid(path.Child("path"), p.Path, fmt.Sprintf("cannot end with '%s'", s)))
				}
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if p.Path != "" && !strings.HasPrefix(p.Path, "/") {
			errs = append(errs, field.Invalid(path.Child("path"), p.Path, "must be an absolute path"))
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("pathType"), *p.PathType,
			[]networkingv1.PathType{networkingv1.PathTypeExact, networkingv1.PathTypePrefix, networkingv1.PathTypeImplementationSpecific}))
	}
	return append(errs, validateBackend(&p.Backend, path.Child("backend"))...)
}

func validateBackend(b *networkingv1.IngressBackend, path *field.Path) field.ErrorList {
	switch {
	case b.Resource != nil && b.Service != nil:
		return field.ErrorList{field.Invalid(path, "", "cannot set both resource and service backends")}
	case b.Resource != nil:
		return validateReference(b.Resource.APIGroup, b.Resource.Kind, b.Resource.Name, path.Child("resource"))
	case b.Service == nil:
		return field.ErrorList{field.Invalid(path, "", "resource or service backend is required")}
	}
	var errs field.ErrorList
	path = path.Child("service")
	if b.Service.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	} else {
		errs = append(errs, rules.Messages(apivalidation.NameIsDNSLabel(b.Service.Name, false), b.Service.Name, path.Child("name"))...)
	}
	port := &b.Service.Port
	switch {
	case port.Name != "" && port.Number != 0:
		errs = append(errs, field.Invalid(path, "", "cannot set both port name & port number"))
	case port.Name != "":
		errs = append(errs, rules.Messages(validation.IsValidPortName(port.Name), port.Name, path.Child("port", "name"))...)
	case port.Number != 0:
		errs = append(errs, rules.Messages(validation.IsValidPortNum(int(port.Number)), port.Number, path.Child("port", "number"))...)
	default:
		errs = append(errs, field.Required(path, "port name or number is required"))
	}
	return errs
}

func validateIngressStatus(i, _ *networkingv1.Ingress) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status", "loadBalancer", "ingress")
	for k, p := range i.Status.LoadBalancer.Ingress {
		if p.IP != "" {
			errs = append(errs, validation.IsValidIP(path.Index(k).Child("ip"), p.IP)...)
		}
		if p.Hostname != "" {
			errs = append(errs, rules.Messages(validation.IsDNS1123Subdomain(p.Hostname), p.Hostname, path.Index(k).Child("hostname"))...)
			if isIP(p.Hostname) {
				errs = append(errs, field.Invalid(path.Index(k).Child("hostname"), p.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}
