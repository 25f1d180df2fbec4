package core

import (
	"context"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// AddressAllocator gives out the addresses of one Service range. apiserver/internal/ipalloc has the default.
type AddressAllocator interface {
	// Prefix returns the range.
	Prefix() netip.Prefix
	// Allocate takes one address, or fails because it is taken or outside.
	Allocate(ip netip.Addr) error
	// AllocateNext takes a free address, or fails because there is none.
	AllocateNext() (netip.Addr, error)
	// Release frees an address; freeing a free one does nothing.
	Release(ip netip.Addr)
	// Reset makes taken exactly these.
	Reset(ips []netip.Addr)
}

// PortAllocator gives out node ports.
type PortAllocator interface {
	// Range returns the first and the last port.
	Range() (first, last int32)
	Allocate(port int32) error
	AllocateNext() (int32, error)
	Release(port int32)
	Reset(ports []int32)
}

// Options configure the group. The zero value serves every kind; without ServiceIPs only headless and ExternalName Services can be made, without
// NodePorts none with node ports.
type Options struct {
	// ServiceIPs are the allocators of the Service ranges: one, or one for each IP family, the preferred one first.
	ServiceIPs []AddressAllocator
	NodePorts  PortAllocator
	// AllowLoopback lets addresses of endpoints, which Kubernetes refuses if they are on the loopback network,
	// be there: unprivileged clusters run their pods on 127/8.
	AllowLoopback bool
	// EventTTLSeconds is how long an Event is kept. Default: one hour.
	EventTTLSeconds int64
	// Clock dates what this package writes (conditions, evictions). Default: the real one.
	Clock clock.PassiveClock
}

func (o Options) withDefaults() Options {
	if o.EventTTLSeconds == 0 {
		o.EventTTLSeconds = 3600
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return o
}

// Group returns the declarations.
func Group(opts Options) kind.Group {
	opts = opts.withDefaults()
	return kind.Group{
		Name: "",
		AddToScheme: func(s *runtime.Scheme) error {
			if err := corev1.AddToScheme(s); err != nil {
				return err
			}
			return policyv1.AddToScheme(s) // Eviction
		},
		Versions: []string{"v1"},
		Kinds: []*kind.Kind{
			configMap(), endpoints(opts), event(opts), limitRange(), namespace(), node(), persistentVolumeClaim(), persistentVolume(opts),
			pod(opts), podTemplate(), replicationController(), resourceQuota(), secret(), serviceAccount(), service(opts),
		},
		Virtuals: []*kind.Virtual{binding(opts, ""), binding(opts, "binding"), eviction(opts)},
	}
}

// asGiven and asGivenUpdate prepare kinds whose every field is the client's: they have no status that a
// request could not set, and no generation.
func asGiven(context.Context, client.Object) {}

func asGivenUpdate(context.Context, client.Object, client.Object) {}
