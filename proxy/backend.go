package proxy

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Backend is a data plane. One goroutine calls it.
type Backend interface {
	// Apply puts a change into effect, all of it or, with an error, as much as it could; the caller answers an error with a full Change
	// later. Applying what is in effect already is no error. A connection that a change doesn't concern is not disturbed.
	Apply(ctx context.Context, c Change) error
	// Close releases what the process holds (listeners, goroutines). Whether the data plane goes on
	// forwarding is the implementation's to say.
	Close() error
}

// Change leads from one state of the data plane to the next.
type Change struct {
	// Full says that Set is everything there is to be: whatever else the data plane has is removed.
	Full bool
	// Set are ports that are new or different, ordered by Key.
	Set []ServicePort
	// Removed are ports that are gone, ordered.
	Removed []Key
}

// Empty reports whether there is nothing to do.
func (c Change) Empty() bool { return !c.Full && len(c.Set) == 0 && len(c.Removed) == 0 }

// Key names one port of one Service in one address family.
type Key struct {
	Namespace, Name string
	Port            string // the port's name, empty if it has none
	Protocol        corev1.Protocol
	IPv6            bool
}

func (k Key) String() string {
	s := k.Namespace + "/" + k.Name
	if k.Port != "" {
		s += ":" + k.Port
	}
	if k.IPv6 {
		return fmt.Sprintf("%s (%s, IPv6)", s, k.Protocol)
	}
	return fmt.Sprintf("%s (%s)", s, k.Protocol)
}

// Compare orders keys.
func (k Key) Compare(o Key) int {
	six := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Name, o.Name), cmp.Compare(k.Port, o.Port),
		cmp.Compare(k.Protocol, o.Protocol), cmp.Compare(six(k.IPv6), six(o.IPv6)))
}

// ServicePort is all that a data plane needs to know of one Key.
type ServicePort struct {
	Key Key
	// ClusterIP and Port are the Service's own address.
	ClusterIP netip.Addr
	Port      uint16
	// ExternalIPs are the Service's external and load balancer addresses that are to be handled on this node, sorted.
	ExternalIPs []netip.Addr
	// NodePort on the node's addresses, 0 for none.
	NodePort uint16
	// SourceRanges, if not empty, are the only sources that load balancer addresses accept.
	SourceRanges    []netip.Prefix
	LoadBalancerIPs []netip.Addr
	// Affinity is how long a client's address stays with one endpoint after its last connection; 0 for none.
	Affinity time.Duration
	// Internal endpoints take connections to ClusterIP, External those from outside the cluster to the other addresses. Both are sorted.
	Internal, External []netip.AddrPort
	// Cluster endpoints take connections from this node and its pods to the external addresses.
	Cluster []netip.AddrPort
	// KeepSource reports that external clients' addresses must reach the endpoints (externalTrafficPolicy: Local).
	KeepSource bool
	// HealthCheckNodePort, if not 0, answers load balancers whether the node has endpoints of its own; LocalEndpoints is how many.
	HealthCheckNodePort uint16
	LocalEndpoints      int
}
