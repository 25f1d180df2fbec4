package core

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

var serviceGVK = corev1.SchemeGroupVersion.WithKind("Service")

// serviceAllocator gives Services their addresses and node ports and takes them back.
//
// What it holds is a view of the stored Services and of the requests under way. It is read from the store when first
// needed, again after a commit failed, and before an answer that something is taken or used up, for another server may have
// changed it.
type serviceAllocator struct {
	ranges map[corev1.IPFamily]AddressAllocator
	// families in order of preference; empty without ranges.
	families []corev1.IPFamily
	ports    PortAllocator

	// fill is held while the view is read from the store, mu while it is changed.
	fill sync.Mutex
	mu   sync.Mutex
	view view
}

type view struct {
	fresh bool
	// held are what requests under way have taken; recent what changed for good while the store was being read.
	held    map[string]int
	reading bool
	recent  map[string]bool
}

func newServiceAllocator(opts Options) *serviceAllocator {
	a := &serviceAllocator{ranges: map[corev1.IPFamily]AddressAllocator{}, ports: opts.NodePorts, view: view{held: map[string]int{}}}
	for _, r := range opts.ServiceIPs {
		family := corev1.IPv4Protocol
		if r.Prefix().Addr().Is6() {
			family = corev1.IPv6Protocol
		}
		if _, twice := a.ranges[family]; !twice {
			a.ranges[family] = r
			a.families = append(a.families, family)
		}
	}
	return a
}

// claims names what a Service has for itself in the whole cluster.
func claims(s *corev1.Service) []string {
	var out []string
	if needsClusterIP(s) {
		for _, ip := range s.Spec.ClusterIPs {
			if addr, err := netip.ParseAddr(ip); err == nil {
				out = append(out, ipClaim(addr))
			}
		}
	}
	if needsNodePort(s) {
		for _, port := range s.Spec.Ports {
			if claim := portClaim(port.NodePort); port.NodePort != 0 && !slices.Contains(out, claim) {
				out = append(out, claim)
			}
		}
	}
	if claim := portClaim(s.Spec.HealthCheckNodePort); s.Spec.HealthCheckNodePort != 0 && !slices.Contains(out, claim) {
		out = append(out, claim)
	}
	return out
}

func ipClaim(ip netip.Addr) string { return "serviceips/" + ip.Unmap().String() }

func portClaim(port int32) string { return fmt.Sprintf("servicenodeports/%d", port) }

// allocation is what one request takes, and what it will free.
type allocation struct {
	a      *serviceAllocator
	access kind.Access
	ctx    context.Context
	// ips and ports are newly taken.
	ips   []netip.Addr
	ports []int32
}

// begin is Kind.Begin of Services.
func (a *serviceAllocator) begin(ctx context.Context, obj, old client.Object, dryRun bool) (func(bool), error) {
	s, _ := obj.(*corev1.Service)
	before, _ := old.(*corev1.Service)
	if s == nil {
		return func(committed bool) {
			if committed && before != nil {
				a.free(before, nil)
			}
		}, nil
	}
	access := kind.AccessFrom(ctx)
	if err := a.refresh(ctx, access, false); err != nil {
		return nil, err
	}
	al := &allocation{a: a, access: access, ctx: ctx}
	given := s.Spec.DeepCopy()
	if err := al.allocate(s, before); err != nil {
		al.giveBack()
		return nil, err
	}
	return func(committed bool) {
		if !committed {
			al.giveBack()
			if !dryRun {
				// The request may be tried again, with other values.
				s.Spec = *given
				a.outdated()
			}
			return
		}
		al.settle()
		if before != nil {
			a.free(before, s)
		}
	}, nil
}

func (al *allocation) allocate(s, before *corev1.Service) error {
	invalid := func(errs ...*field.Error) error {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, s.Name, errs)
	}
	if needsClusterIP(s) {
		if err := al.a.chooseFamilies(s, before); err != nil {
			return invalid(err)
		}
		if !isHeadless(s) {
			if err := al.addresses(s, before, invalid); err != nil {
				return err
			}
		} else if len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = []string{corev1.ClusterIPNone}
		}
	}
	if needsNodePort(s) {
		if err := al.nodePorts(s, before, invalid); err != nil {
			return err
		}
	}
	if needsHealthPort(s) {
		return al.healthPort(s, before, invalid)
	}
	return nil
}

// chooseFamilies fills ipFamilyPolicy and ipFamilies by the rules of dual-stack Services.
func (a *serviceAllocator) chooseFamilies(s, before *corev1.Service) *field.Error {
	spec := &s.Spec
	if before != nil && needsClusterIP(before) && spec.IPFamilyPolicy != nil && len(spec.IPFamilies) > 0 &&
		before.Spec.IPFamilyPolicy != nil && *before.Spec.IPFamilyPolicy == *spec.IPFamilyPolicy && slices.Equal(before.Spec.IPFamilies, spec.IPFamilies) {
		return nil
	}
	for i, ip := range spec.ClusterIPs {
		if ip != corev1.ClusterIPNone && i >= len(spec.IPFamilies) {
			spec.IPFamilies = append(spec.IPFamilies, familyOf(ip))
		}
	}
	if spec.IPFamilyPolicy == nil && len(spec.IPFamilies) == 2 {
		policy := corev1.IPFamilyPolicyRequireDualStack
		spec.IPFamilyPolicy = &policy
	}
	free := isHeadless(s) && len(spec.Selector) == 0
	if spec.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		if free {
			// Endpoints of such a Service are made by hand; they may be of any family.
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		spec.IPFamilyPolicy = &policy
	}
	dual := *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack
	p := field.NewPath("spec")
	if !free {
		for i, family := range spec.IPFamilies {
			if _, configured := a.ranges[family]; !configured {
				return field.Invalid(p.Child("ipFamilies").Index(i), family, "not configured on this cluster")
			}
		}
		if *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(a.families) < 2 {
			return field.Invalid(p.Child("ipFamilyPolicy"), spec.IPFamilyPolicy, "this cluster is not configured for dual-stack services")
		}
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
		if len(a.families) > 0 {
			spec.IPFamilies[0] = a.families[0]
		}
	}
	if dual && len(spec.IPFamilies) == 1 && (len(a.families) == 2 || free) {
		other := corev1.IPv6Protocol
		if spec.IPFamilies[0] == corev1.IPv6Protocol {
			other = corev1.IPv4Protocol
		}
		spec.IPFamilies = append(spec.IPFamilies, other)
	}
	return nil
}

func (al *allocation) addresses(s, before *corev1.Service, invalid func(...*field.Error) error) error {
	has := map[string]bool{}
	if before != nil && needsClusterIP(before) {
		for _, ip := range before.Spec.ClusterIPs {
			has[ip] = true
		}
	}
	for i, family := range s.Spec.IPFamilies {
		r := al.a.ranges[family]
		if i < len(s.Spec.ClusterIPs) {
			text := s.Spec.ClusterIPs[i]
			if has[text] {
				continue
			}
			ip, err := netip.ParseAddr(text)
			if err == nil {
				err = al.takeAddress(r, ip)
			}
			if err != nil {
				return invalid(field.Invalid(field.NewPath("spec", "clusterIPs"), s.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %v: %v", text, err)))
			}
			continue
		}
		if r == nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: no range of family %s is configured", family))
		}
		ip, err := al.nextAddress(r)
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: %w", err))
		}
		s.Spec.ClusterIPs = append(slices.Clone(s.Spec.ClusterIPs), ip.String())
	}
	if len(s.Spec.ClusterIPs) > 0 {
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	}
	return nil
}

func (al *allocation) nodePorts(s, before *corev1.Service, invalid func(...*field.Error) error) error {
	has := map[int32]bool{}
	if before != nil && needsNodePort(before) {
		for _, port := range before.Spec.Ports {
			has[port.NodePort] = true
		}
	}
	auto := s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts
	// What is asked for by number is taken first, so that no other port of the Service gets it.
	for i, port := range s.Spec.Ports {
		if port.NodePort == 0 || has[port.NodePort] {
			continue
		}
		if err := al.takePort(port.NodePort); err != nil {
			return invalid(field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), port.NodePort, err.Error()))
		}
		has[port.NodePort] = true
	}
	if !auto {
		return nil
	}
	// One port number served by two protocols gets one node port.
	shared := map[int32]map[corev1.Protocol]int32{}
	note := func(port *corev1.ServicePort) {
		if shared[port.Port] == nil {
			shared[port.Port] = map[corev1.Protocol]int32{}
		}
		shared[port.Port][port.Protocol] = port.NodePort
	}
	for i := range s.Spec.Ports {
		if s.Spec.Ports[i].NodePort != 0 {
			note(&s.Spec.Ports[i])
		}
	}
	taken := func(protocol corev1.Protocol, number int32) bool {
		return slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Protocol == protocol && p.NodePort == number })
	}
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		if port.NodePort != 0 {
			continue
		}
		for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
			if number := shared[port.Port][protocol]; number != 0 && !taken(port.Protocol, number) {
				port.NodePort = number
				break
			}
		}
		if port.NodePort == 0 {
			number, err := al.nextPort()
			if err != nil {
				return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
			}
			port.NodePort = number
		}
		note(port)
	}
	return nil
}

func (al *allocation) healthPort(s, before *corev1.Service, invalid func(...*field.Error) error) error {
	if port := s.Spec.HealthCheckNodePort; port != 0 {
		if before != nil && before.Spec.HealthCheckNodePort == port {
			return nil
		}
		if err := al.takePort(port); err != nil {
			return invalid(field.Invalid(field.NewPath("spec", "healthCheckNodePort"), port, fmt.Sprintf("failed to allocate requested HealthCheck NodePort: %v", err)))
		}
		return nil
	}
	port, err := al.nextPort()
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a HealthCheck NodePort: %w", err))
	}
	s.Spec.HealthCheckNodePort = port
	return nil
}
