package cni

import (
	"context"
	"net/netip"
)

// Network gives pods their interface, address and routes. One that gives addresses without network namespaces also has a method
// NeedsNetNS() bool, which answers false. All methods may be called from any number of
// goroutines; calls for one sandbox are serialized by the implementation.
type Network interface {
	// Setup attaches the sandbox and returns its addresses. Called again for a sandbox that is attached, it returns
	// the same result. On error nothing is left behind.
	Setup(ctx context.Context, s Sandbox) (Result, error)
	// Teardown detaches the sandbox and releases its addresses. It is idempotent and works when the network
	// namespace is already gone.
	Teardown(ctx context.Context, s Sandbox) error
	// Status returns nil when Setup can be expected to work; otherwise an error that says what is missing.
	Status(ctx context.Context) error
}

// Sandbox identifies what is attached.
type Sandbox struct {
	// ID is unique on the node for the life of the sandbox.
	ID string
	// Namespace, Name and UID of the pod.
	Namespace, Name, UID string
	// NetNS is the path of the network namespace ("/var/run/netns/…", "/proc/123/ns/net"); empty for networks
	// that need none.
	NetNS string
	// HostPorts are forwarded from the node's addresses.
	HostPorts   []HostPort
	Annotations map[string]string
}

// HostPort forwards one port of the node to the sandbox.
type HostPort struct {
	HostIP        netip.Addr // zero for all addresses
	HostPort      uint16
	ContainerPort uint16
	Protocol      string // "TCP", "UDP", "SCTP"
}

// Result is what a sandbox got.
type Result struct {
	// IPs, at most one a family, the primary one first.
	IPs []netip.Addr
	// Interface is the name inside the namespace, empty if the network made none.
	Interface string
}
