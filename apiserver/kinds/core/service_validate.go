package core

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

const (
	kubeletPort        = 10250
	onlyLoadBalancer   = "may only be used when `type` is 'LoadBalancer'"
	maxAffinitySeconds = int64(24 * 3600)
)

// validateService checks a Service whole; old is nil on create, and else lets addresses pass that it has already.
func validateService(s, old *corev1.Service, loopback bool) field.ErrorList {
	e := &validate.Errors{}
	p, spec := field.NewPath("spec"), &s.Spec
	if len(spec.Ports) == 0 && !isHeadless(s) && spec.Type != corev1.ServiceTypeExternalName {
		e.Required(p.Child("ports"), "")
	}
	serviceType(e, s, p)
	servicePorts(e, s, p.Child("ports"))
	e.Add(metav1validation.ValidateLabels(spec.Selector, p.Child("selector")))
	affinity(e, spec, p)
	clusterIPs(e, s, old, p)
	ips := p.Child("externalIPs")
	var known []string
	if old != nil {
		known = old.Spec.ExternalIPs
	}
	for i, ip := range spec.ExternalIPs {
		if errs := validation.IsValidIPForLegacyField(ips.Index(i), ip, true, known); len(errs) > 0 {
			e.Add(errs)
		} else {
			validate.OrdinaryIP(e, ip, loopback, ips.Index(i))
		}
	}
	validate.OneOf(e, p.Child("type"), spec.Type,
		corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)
	portConflicts(e, s, p.Child("ports"))
	loadBalancer(e, s, old, p)
	trafficPolicies(e, s, p)
	return e.List
}

func serviceType(e *validate.Errors, s *corev1.Service, p *field.Path) {
	spec := &s.Spec
	switch spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		for i, port := range spec.Ports {
			if port.Port == kubeletPort {
				e.Invalid(p.Child("ports").Index(i), port.Port, fmt.Sprintf("may not expose port %v externally since it is used by kubelet", kubeletPort))
			}
		}
		if isHeadless(s) {
			e.Invalid(p.Child("clusterIPs").Index(0), spec.ClusterIPs, "may not be set to 'None' for LoadBalancer services")
		}
	case corev1.ServiceTypeNodePort:
		if isHeadless(s) {
			e.Invalid(p.Child("clusterIPs").Index(0), spec.ClusterIPs, "may not be set to 'None' for NodePort services")
		}
	case corev1.ServiceTypeExternalName:
		const text = "may not be set for ExternalName services"
		if len(spec.ClusterIPs) > 0 {
			e.Forbidden(p.Child("clusterIPs"), text)
		}
		if len(spec.IPFamilies) > 0 {
			e.Forbidden(p.Child("ipFamilies"), text)
		}
		if spec.IPFamilyPolicy != nil {
			e.Forbidden(p.Child("ipFamilyPolicy"), text)
		}
		if name := strings.TrimSuffix(spec.ExternalName, "."); name != "" {
			e.DNSSubdomain(name, p.Child("externalName"))
		} else {
			e.Required(p.Child("externalName"), "")
		}
	}
}

func servicePorts(e *validate.Errors, s *corev1.Service, path *field.Path) {
	names := sets.New[string]()
	for i, port := range s.Spec.Ports {
		p := path.Index(i)
		if len(s.Spec.Ports) > 1 && port.Name == "" {
			e.Required(p.Child("name"), "")
		} else if port.Name != "" {
			e.DNSLabel(port.Name, p.Child("name"))
			if names.Has(port.Name) {
				e.Duplicate(p.Child("name"), port.Name)
			}
			names.Insert(port.Name)
		}
		e.PortNumber(port.Port, p.Child("port"))
		validate.OneOf(e, p.Child("protocol"), port.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
		e.PortNumberOrName(port.TargetPort, p.Child("targetPort"))
		if port.AppProtocol != nil {
			e.QualifiedName(*port.AppProtocol, p.Child("appProtocol"))
		}
	}
}

func affinity(e *validate.Errors, spec *corev1.ServiceSpec, p *field.Path) {
	validate.OneOf(e, p.Child("sessionAffinity"), spec.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	config := p.Child("sessionAffinityConfig")
	switch c := spec.SessionAffinityConfig; spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if c != nil {
			e.Forbidden(config, fmt.Sprintf("must not be set when session affinity is %s", corev1.ServiceAffinityNone))
		}
	case corev1.ServiceAffinityClientIP:
		switch {
		case c == nil:
			e.Required(config, fmt.Sprintf("when session affinity type is %s", corev1.ServiceAffinityClientIP))
		case c.ClientIP == nil:
			e.Required(config.Child("clientIP"), fmt.Sprintf("when session affinity type is %s", corev1.ServiceAffinityClientIP))
		case c.ClientIP.TimeoutSeconds == nil:
			e.Required(config.Child("clientIP", "timeoutSeconds"), fmt.Sprintf("when session affinity type is %s", corev1.ServiceAffinityClientIP))
		case *c.ClientIP.TimeoutSeconds <= 0 || int64(*c.ClientIP.TimeoutSeconds) > maxAffinitySeconds:
			e.Invalid(config.Child("clientIP", "timeoutSeconds"), c.ClientIP.TimeoutSeconds,
				fmt.Sprintf("must be greater than 0 and less than %d", maxAffinitySeconds))
		}
	}
}

// clusterIPs checks clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy and that they agree.
func clusterIPs(e *validate.Errors, s, old *corev1.Service, p *field.Path) {
	spec := &s.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	ips, families := p.Child("clusterIPs"), p.Child("ipFamilies")
	switch {
	case len(spec.ClusterIPs) > 0 && spec.ClusterIP == "":
		e.Invalid(ips, spec.ClusterIPs, "must be empty when `clusterIP` is not specified")
	case len(spec.ClusterIPs) > 0 && spec.ClusterIPs[0] != spec.ClusterIP:
		e.Invalid(ips, spec.ClusterIPs, "first value must match `clusterIP`")
	case len(spec.ClusterIPs) == 0 && spec.ClusterIP != "":
		e.Required(ips, "must be set when `clusterIP` is specified")
	}
	seen := sets.New[corev1.IPFamily]()
	for i, family := range spec.IPFamilies {
		validate.OneOf(e, families.Index(i), family, corev1.IPv4Protocol, corev1.IPv6Protocol)
		if seen.Has(family) {
			e.Duplicate(families.Index(i), family)
		}
		seen.Insert(family)
	}
	if len(spec.IPFamilies) > 2 {
		e.Invalid(families, spec.IPFamilies, "may only hold up to 2 values")
	}
	if policy := spec.IPFamilyPolicy; policy != nil {
		validate.OneOf(e, p.Child("ipFamilyPolicy"), *policy,
			corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)
		if *policy == corev1.IPFamilyPolicySingleStack {
			if len(spec.ClusterIPs) == 2 {
				e.Invalid(p.Child("ipFamilyPolicy"), policy, "must be RequireDualStack or PreferDualStack when multiple `clusterIPs` are specified")
			}
			if len(spec.IPFamilies) == 2 {
				e.Invalid(p.Child("ipFamilyPolicy"), policy, "must be RequireDualStack or PreferDualStack when multiple `ipFamilies` are specified")
			}
		}
	}
	if len(spec.ClusterIPs) > 2 {
		e.Invalid(ips, spec.ClusterIPs, "may only hold up to 2 values")
	}
	var known []string
	if old != nil {
		known = old.Spec.ClusterIPs
	}
	before := len(e.List)
	for i, ip := range spec.ClusterIPs {
		if ip == corev1.ClusterIPNone {
			if i > 0 || len(spec.ClusterIPs) > 1 {
				e.Invalid(ips.Index(i), spec.ClusterIPs, "'None' must be the first and only value")
			}
			return
		}
		e.Add(validation.IsValidIPForLegacyField(ips.Index(i), ip, true, known))
	}
	if len(e.List) > before {
		return
	}
	if len(spec.ClusterIPs) == 2 && netutils.IsIPv6String(spec.ClusterIPs[0]) == netutils.IsIPv6String(spec.ClusterIPs[1]) {
		e.Invalid(ips, spec.ClusterIPs, "may specify no more than one IP for each IP family")
	}
	for i, ip := range spec.ClusterIPs {
		if i >= len(spec.IPFamilies) {
			break
		}
		if want := spec.IPFamilies[i]; want != familyOf(ip) {
			e.Invalid(ips.Index(i), ip, fmt.Sprintf("expected an %v value as indicated by `ipFamilies[%v]`", want, i))
		}
	}
}

func familyOf(ip string) corev1.IPFamily {
	if netutils.IsIPv6String(ip) {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// portConflicts checks node ports, and that no two ports are the same.
func portConflicts(e *validate.Errors, s *corev1.Service, path *field.Path) {
	ports, nodePorts := sets.New[protocolPort](), sets.New[protocolPort]()
	for i, port := range s.Spec.Ports {
		p := path.Index(i)
		if s.Spec.Type == corev1.ServiceTypeClusterIP && port.NodePort != 0 {
			e.Forbidden(p.Child("nodePort"), "may not be used when `type` is 'ClusterIP'")
		}
		if port.NodePort != 0 {
			k := protocolPort{port.Protocol, port.NodePort}
			if nodePorts.Has(k) {
				e.Duplicate(p.Child("nodePort"), port.NodePort)
			}
			nodePorts.Insert(k)
		}
		k := protocolPort{port.Protocol, port.Port}
		if ports.Has(k) {
			e.Duplicate(p, corev1.ServicePort{Protocol: port.Protocol, Port: port.Port})
		}
		ports.Insert(k)
	}
}

func loadBalancer(e *validate.Errors, s, old *corev1.Service, p *field.Path) {
	spec := &s.Spec
	isBalancer := spec.Type == corev1.ServiceTypeLoadBalancer
	if isBalancer && spec.AllocateLoadBalancerNodePorts == nil {
		e.Required(p.Child("allocateLoadBalancerNodePorts"), "")
	}
	if !isBalancer && spec.AllocateLoadBalancerNodePorts != nil {
		e.Forbidden(p.Child("allocateLoadBalancerNodePorts"), onlyLoadBalancer)
	}
	if class := spec.LoadBalancerClass; class != nil {
		if !isBalancer {
			e.Forbidden(p.Child("loadBalancerClass"), onlyLoadBalancer)
		} else {
			e.QualifiedName(*class, p.Child("loadBalancerClass"))
		}
	}
	ranges := p.Child("loadBalancerSourceRanges")
	if len(spec.LoadBalancerSourceRanges) > 0 {
		if !isBalancer {
			e.Forbidden(ranges, onlyLoadBalancer)
		}
		var known []string
		if old != nil {
			known = old.Spec.LoadBalancerSourceRanges
		}
		for i, value := range spec.LoadBalancerSourceRanges {
			// Blanks around a range have always been let pass.
			e.Add(validation.IsValidCIDRForLegacyField(p.Child("LoadBalancerSourceRanges").Index(i), strings.TrimSpace(value), false, known))
		}
		return
	}
	const annotation = corev1.AnnotationLoadBalancerSourceRangesKey
	value, set := s.Annotations[annotation]
	if !set {
		return
	}
	at := field.NewPath("metadata", "annotations").Key(annotation)
	if !isBalancer {
		e.Forbidden(at, onlyLoadBalancer)
	}
	if value = strings.TrimSpace(value); value == "" {
		return
	}
	for _, cidr := range strings.Split(value, ",") {
		if _, _, err := netutils.ParseCIDRSloppy(strings.TrimSpace(cidr)); err != nil {
			e.Invalid(at, value, "must be a comma separated list of CIDRs e.g. 10.9.8.0/24,192.0.2.0/24")
			return
		}
	}
}

func trafficPolicies(e *validate.Errors, s *corev1.Service, p *field.Path) {
	spec := &s.Spec
	external := p.Child("externalTrafficPolicy")
	switch accessible := externallyAccessible(s); {
	case !accessible && spec.ExternalTrafficPolicy != "":
		e.Invalid(external, spec.ExternalTrafficPolicy, "may only be set for externally-accessible services")
	case accessible && spec.ExternalTrafficPolicy == "":
		e.Required(external, "")
	case accessible:
		validate.OneOf(e, external, spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)
	}
	health := p.Child("healthCheckNodePort")
	if !needsHealthPort(s) {
		if spec.HealthCheckNodePort != 0 {
			e.Invalid(health, spec.HealthCheckNodePort, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")
		}
	} else if spec.HealthCheckNodePort != 0 {
		e.PortNumber(spec.HealthCheckNodePort, health)
	}
	internal := p.Child("internalTrafficPolicy")
	if policy := spec.InternalTrafficPolicy; policy != nil {
		validate.OneOf(e, internal, *policy, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)
	} else if needsClusterIP(s) {
		e.Required(internal, "")
	}
	if distribution := spec.TrafficDistribution; distribution != nil {
		validate.OneOf(e, p.Child("trafficDistribution"), *distribution,
			corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)
	}
}

// validateServiceChanges refuses changes of what a Service keeps for its life, or while it is of its type.
func validateServiceChanges(e *validate.Errors, s, old *corev1.Service) {
	p := field.NewPath("spec")
	const once = "may not change once set"
	if old.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		now, before := s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass
		if (now == nil) != (before == nil) || now != nil && *now != *before {
			e.Invalid(p.Child("loadBalancerClass"), now, once)
		}
	}
	if !needsClusterIP(s) || !needsClusterIP(old) {
		return
	}
	single := s.Spec.IPFamilyPolicy != nil && *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	keep(e, s.Spec.ClusterIPs, old.Spec.ClusterIPs, s.Spec.ClusterIPs, single, p.Child("clusterIPs"), p, s, "must be set to 'SingleStack' when releasing the secondary clusterIP")
	keep(e, s.Spec.IPFamilies, old.Spec.IPFamilies, s.Spec.IPFamilies, single, p.Child("ipFamilies"), p, s, "must be set to 'SingleStack' when releasing the secondary ipFamily")
}

func keep[T ~string](e *validate.Errors, now, before []T, value any, single bool, at, spec *field.Path, s *corev1.Service, text string) {
	if len(before) == 0 {
		return
	}
	if len(now) == 0 {
		e.Invalid(at.Index(0), value, "primary "+strings.TrimSuffix(at.String()[strings.LastIndex(at.String(), ".")+1:], "s")+" can not be unset")
		return
	}
	if now[0] != before[0] {
		e.Invalid(at.Index(0), value, "may not change once set")
	}
	if len(before) < 2 {
		return
	}
	switch {
	case len(now) >= 2 && now[1] != before[1]:
		e.Invalid(at.Index(1), value, "may not change once set")
	case len(now) < 2 && !single:
		e.Invalid(spec.Child("ipFamilyPolicy"), s.Spec.IPFamilyPolicy, text)
	}
}

func validateServiceStatus(s, _ *corev1.Service) field.ErrorList {
	e := &validate.Errors{}
	p := field.NewPath("status", "loadBalancer", "ingress")
	for i, ingress := range s.Status.LoadBalancer.Ingress {
		p := p.Index(i)
		if ingress.IP != "" {
			e.Add(validation.IsValidIPForLegacyField(p.Child("ip"), ingress.IP, false, nil))
		}
		switch {
		case ingress.IP != "" && ingress.IPMode == nil:
			e.Required(p.Child("ipMode"), "must be specified when `ip` is set")
		case ingress.IP == "" && ingress.IPMode != nil:
			e.Forbidden(p.Child("ipMode"), "may not be specified when `ip` is not set")
		case ingress.IPMode != nil:
			validate.OneOf(e, p.Child("ipMode"), *ingress.IPMode, corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)
		}
		if ingress.Hostname != "" {
			e.DNSSubdomain(ingress.Hostname, p.Child("hostname"))
			if netutils.ParseIPSloppy(ingress.Hostname) != nil {
				e.Invalid(p.Child("hostname"), ingress.Hostname, "must be a DNS name, not an IP address")
			}
		}
	}
	return e.List
}

func serviceWarnings(s, old *corev1.Service) []string {
	if old != nil && s.Generation == old.Generation && slices.Equal(s.Spec.ExternalIPs, old.Spec.ExternalIPs) && slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) && s.Spec.LoadBalancerIP == old.Spec.LoadBalancerIP &&
		slices.Equal(s.Spec.LoadBalancerSourceRanges, old.Spec.LoadBalancerSourceRanges) {
		return nil
	}
	var out []string
	p := field.NewPath("spec")
	if isHeadless(s) {
		if s.Spec.LoadBalancerIP != "" {
			out = append(out, "spec.loadBalancerIP is ignored when the type of service is headless")
		}
		if len(s.Spec.ExternalIPs) > 0 {
			out = append(out, "spec.externalIPs is ignored when spec.clusterIP is \"None\"")
		}
		if s.Spec.SessionAffinity != corev1.ServiceAffinityNone {
			out = append(out, "spec.SessionAffinity is ignored for headless services")
		}
	} else {
		for i, ip := range s.Spec.ClusterIPs {
			out = append(out, validate.IPWarnings(p.Child("clusterIPs").Index(i), ip)...)
		}
	}
	for i, ip := range s.Spec.ExternalIPs {
		out = append(out, validate.IPWarnings(p.Child("externalIPs").Index(i), ip)...)
	}
	if s.Spec.LoadBalancerIP != "" {
		out = append(out, validate.IPWarnings(p.Child("loadBalancerIP"), s.Spec.LoadBalancerIP)...)
	}
	for i, cidr := range s.Spec.LoadBalancerSourceRanges {
		out = append(out, validate.CIDRWarnings(p.Child("loadBalancerSourceRanges").Index(i), cidr)...)
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName && len(s.Spec.ExternalIPs) > 0 {
		out = append(out, fmt.Sprintf("spec.externalIPs is ignored when spec.type is %q", s.Spec.Type))
	}
	if s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ExternalName != "" {
		out = append(out, fmt.Sprintf("spec.externalName is ignored when spec.type is not %q", corev1.ServiceTypeExternalName))
	}
	if d := s.Spec.TrafficDistribution; d != nil && *d == corev1.ServiceTrafficDistributionPreferClose && (old == nil || old.Spec.TrafficDistribution == nil || *old.Spec.TrafficDistribution != *d) {
		out = append(out, "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"")
	}
	return out
}
