package core

import (
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// prepareServiceUpdate makes of what a client sent what it meant: values that were allocated and left out are kept, and values
// that the new type cannot have go, if they are not the client's own.
func prepareServiceUpdate(s, old *corev1.Service) {
	s.Status = old.Status
	normalizeClusterIPs(s, old)
	keepAllocated(s, old)
	dropForType(s, old)
	trimSecondary(s, old)
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
}

// normalizeClusterIPs keeps clusterIP, which old clients write, and clusterIPs in agreement.
func normalizeClusterIPs(s, old *corev1.Service) {
	spec := &s.Spec
	if old == nil {
		if spec.ClusterIP != "" && len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = []string{spec.ClusterIP}
		}
		return
	}
	before := &old.Spec
	sameList := slices.Equal(spec.ClusterIPs, before.ClusterIPs)
	switch {
	case spec.ClusterIP == "" && before.ClusterIP != "" && sameList:
		spec.ClusterIPs = nil
	case spec.ClusterIP != "" && spec.ClusterIP != before.ClusterIP && sameList:
		spec.ClusterIPs = []string{spec.ClusterIP}
	case len(spec.ClusterIPs) == 0 && len(before.ClusterIPs) > 0 && spec.ClusterIP == before.ClusterIP:
		spec.ClusterIP = ""
	}
}

func keepAllocated(s, old *corev1.Service) {
	if needsClusterIP(old) && needsClusterIP(s) {
		if s.Spec.ClusterIP == "" {
			s.Spec.ClusterIP = old.Spec.ClusterIP
		}
		if len(s.Spec.ClusterIPs) == 0 && s.Spec.ClusterIP == old.Spec.ClusterIP {
			s.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
		}
		if s.Spec.IPFamilyPolicy == nil {
			s.Spec.IPFamilyPolicy = old.Spec.IPFamilyPolicy
		}
		if len(s.Spec.IPFamilies) == 0 {
			s.Spec.IPFamilies = slices.Clone(old.Spec.IPFamilies)
		}
	}
	if needsNodePort(old) && needsNodePort(s) {
		keepNodePorts(s, old)
	}
	if needsHealthPort(old) && needsHealthPort(s) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

type protocolPort struct {
	protocol corev1.Protocol
	port     int32
}

func keepNodePorts(s, old *corev1.Service) {
	before := map[protocolPort]int32{}
	for _, port := range old.Spec.Ports {
		before[protocolPort{port.Protocol, port.Port}] = port.NodePort
	}
	used := map[protocolPort]bool{}
	for _, port := range s.Spec.Ports {
		used[protocolPort{port.Protocol, port.NodePort}] = true
	}
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		if port.NodePort != 0 {
			continue
		}
		if kept := before[protocolPort{port.Protocol, port.Port}]; kept != 0 && !used[protocolPort{port.Protocol, kept}] {
			port.NodePort = kept
		}
	}
}

func dropForType(s, old *corev1.Service) {
	now, before := &s.Spec, &old.Spec
	if needsClusterIP(old) && !needsClusterIP(s) {
		if now.ClusterIP == before.ClusterIP && slices.Equal(now.ClusterIPs, before.ClusterIPs) {
			now.ClusterIP, now.ClusterIPs = "", nil
		}
		if slices.Equal(now.IPFamilies, before.IPFamilies) {
			now.IPFamilies = nil
		}
		if reflect.DeepEqual(now.IPFamilyPolicy, before.IPFamilyPolicy) {
			now.IPFamilyPolicy = nil
		}
	}
	if needsNodePort(old) && !needsNodePort(s) {
		ports := func(spec *corev1.ServiceSpec) (out []int32) {
			for _, port := range spec.Ports {
				out = append(out, port.NodePort)
			}
			slices.Sort(out)
			return out
		}
		if slices.Equal(ports(now), ports(before)) {
			for i := range now.Ports {
				now.Ports[i].NodePort = 0
			}
		}
	}
	if needsHealthPort(old) && !needsHealthPort(s) && now.HealthCheckNodePort == before.HealthCheckNodePort {
		now.HealthCheckNodePort = 0
	}
	if before.Type == corev1.ServiceTypeLoadBalancer && now.Type != corev1.ServiceTypeLoadBalancer {
		if reflect.DeepEqual(now.AllocateLoadBalancerNodePorts, before.AllocateLoadBalancerNodePorts) {
			now.AllocateLoadBalancerNodePorts = nil
		}
		if reflect.DeepEqual(now.LoadBalancerClass, before.LoadBalancerClass) {
			now.LoadBalancerClass = nil
		}
	}
	if externallyAccessible(old) && !externallyAccessible(s) && now.ExternalTrafficPolicy == before.ExternalTrafficPolicy {
		now.ExternalTrafficPolicy = ""
	}
	if before.Type != corev1.ServiceTypeExternalName && now.Type == corev1.ServiceTypeExternalName && reflect.DeepEqual(now.InternalTrafficPolicy, before.InternalTrafficPolicy) {
		now.InternalTrafficPolicy = nil
	}
}

// trimSecondary drops the second family of a Service that becomes single-stack.
func trimSecondary(s, old *corev1.Service) {
	if !needsClusterIP(s) || !needsClusterIP(old) {
		return
	}
	single := corev1.IPFamilyPolicySingleStack
	if s.Spec.IPFamilyPolicy == nil || *s.Spec.IPFamilyPolicy != single || old.Spec.IPFamilyPolicy == nil || *old.Spec.IPFamilyPolicy == single {
		return
	}
	if len(s.Spec.ClusterIPs) > 1 && slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) {
		s.Spec.ClusterIPs = s.Spec.ClusterIPs[:1]
	}
	if len(s.Spec.IPFamilies) > 1 && slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies) {
		s.Spec.IPFamilies = s.Spec.IPFamilies[:1]
	}
}
