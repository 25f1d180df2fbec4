package endpoints

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	lib "k8s.io/endpointslice"
	"k8s.io/endpointslice/util"
	"k8s.io/utils/net"
)

// subset is deprecated for those who read Endpoints, not for who keeps them.
type subset = corev1.EndpointSubset //nolint:staticcheck // see above

// maxAddresses is the most addresses in one Endpoints.
const maxAddresses = 1000

// subsetsOf makes the canonical subsets of a service's pods: addresses with the
// same ports share a subset, and everything is ordered.
func subsetsOf(svc *corev1.Service, pods []*corev1.Pod) []subset {
	type entry struct {
		address corev1.EndpointAddress
		ready   bool
		ports   []corev1.EndpointPort
	}
	var entries []entry
	for _, p := range pods {
		if !util.ShouldPodBeInEndpoints(p, svc.Spec.PublishNotReadyAddresses) {
			continue
		}
		ip, ok := podIP(svc, p)
		if !ok {
			continue
		}
		address := corev1.EndpointAddress{IP: ip, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}}
		if p.Spec.NodeName != "" {
			node := p.Spec.NodeName
			address.NodeName = &node
		}
		if util.ShouldSetHostname(p, svc) {
			address.Hostname = p.Spec.Hostname
		}
		var ports []corev1.EndpointPort
		for i := range svc.Spec.Ports {
			sp := &svc.Spec.Ports[i]
			n, err := lib.FindPort(p, sp)
			if err != nil {
				continue
			}
			ports = append(ports, corev1.EndpointPort{Name: sp.Name, Port: int32(n), Protocol: sp.Protocol, AppProtocol: sp.AppProtocol})
		}
		if len(ports) == 0 && len(svc.Spec.Ports) > 0 {
			continue
		}
		slices.SortFunc(ports, comparePorts)
		entries = append(entries, entry{address, svc.Spec.PublishNotReadyAddresses || util.IsPodReady(p), ports})
	}
	slices.SortFunc(entries, func(a, b entry) int {
		if n := strings.Compare(a.address.IP, b.address.IP); n != 0 {
			return n
		}
		return cmp.Compare(a.address.TargetRef.UID, b.address.TargetRef.UID)
	})
	index := map[string]int{}
	var out []subset
	for _, e := range entries {
		key := portsKey(e.ports)
		i, ok := index[key]
		if !ok {
			i = len(out)
			index[key] = i
			out = append(out, subset{Ports: e.ports})
		}
		if e.ready {
			out[i].Addresses = append(out[i].Addresses, e.address)
		} else {
			out[i].NotReadyAddresses = append(out[i].NotReadyAddresses, e.address)
		}
	}
	slices.SortFunc(out, func(a, b subset) int { return strings.Compare(portsKey(a.Ports), portsKey(b.Ports)) })
	return out
}

func comparePorts(a, b corev1.EndpointPort) int {
	if n := strings.Compare(a.Name, b.Name); n != 0 {
		return n
	}
	if n := cmp.Compare(a.Port, b.Port); n != 0 {
		return n
	}
	return cmp.Compare(a.Protocol, b.Protocol)
}

func portsKey(ports []corev1.EndpointPort) string {
	var b strings.Builder
	for _, p := range ports {
		app := ""
		if p.AppProtocol != nil {
			app = *p.AppProtocol
		}
		fmt.Fprintf(&b, "%s|%d|%s|%s;", p.Name, p.Port, p.Protocol, app)
	}
	return b.String()
}

// podIP is the pod's address of the service's first family.
func podIP(svc *corev1.Service, p *corev1.Pod) (string, bool) {
	var want corev1.IPFamily
	switch {
	case len(svc.Spec.IPFamilies) > 0:
		want = svc.Spec.IPFamilies[0]
	case svc.Spec.ClusterIP != "" && svc.Spec.ClusterIP != corev1.ClusterIPNone:
		want = familyOf(svc.Spec.ClusterIP)
	default:
		want = familyOf(p.Status.PodIP)
	}
	ips := p.Status.PodIPs
	if len(ips) == 0 {
		ips = []corev1.PodIP{{IP: p.Status.PodIP}}
	}
	for _, ip := range ips {
		if ip.IP != "" && familyOf(ip.IP) == want {
			return ip.IP, true
		}
	}
	return "", false
}

func familyOf(ip string) corev1.IPFamily {
	if net.IsIPv6String(ip) {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// truncate cuts subsets to the most addresses there may be, ready ones first,
// each subset in proportion. It says whether it cut anything.
func truncate(subsets []subset) bool {
	ready, notReady := 0, 0
	for _, s := range subsets {
		ready += len(s.Addresses)
		notReady += len(s.NotReadyAddresses)
	}
	if ready+notReady <= maxAddresses {
		return false
	}
	onlyReady := ready > maxAddresses
	room, total := maxAddresses-ready, notReady
	if onlyReady {
		room, total = maxAddresses, ready
	}
	left := room
	for i := range subsets {
		s := &subsets[i]
		n := len(s.NotReadyAddresses)
		if onlyReady {
			n = len(s.Addresses)
		}
		n = min(left, int(math.Ceil(float64(n)/float64(total)*float64(room))))
		if onlyReady {
			s.Addresses, s.NotReadyAddresses = s.Addresses[:n], nil
		} else {
			s.NotReadyAddresses = s.NotReadyAddresses[:n]
		}
		left -= n
	}
	return true
}
