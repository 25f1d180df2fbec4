// Package routes connects the pod ranges of a cluster's nodes: on each node, a Router keeps a route to every other node's range,
// through the node's address where both share a network, or through a VXLAN device.
package routes

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
)

// Mode says how packets for another node's pods travel.
type Mode string

const (
	// Direct routes through the other node's address, which must be on a network that both share.
	Direct Mode = "direct"
	// VXLAN wraps them in UDP between the nodes' addresses.
	VXLAN Mode = "vxlan"
)

// Options of New.
type Options struct {
	// NodeName is this node. Required.
	NodeName string
	// Mode defaults to Direct.
	Mode Mode
	// Device is the VXLAN device's name. Default "keelson.vx".
	Device string
	// VNI and Port of VXLAN. Defaults 4097 and 8472.
	VNI, Port int
	Logger    logr.Logger
}

func (o Options) withDefaults() Options {
	o.Mode = cmp.Or(o.Mode, Direct)
	o.Device = cmp.Or(o.Device, "keelson.vx")
	o.VNI = cmp.Or(o.VNI, 4097)
	o.Port = cmp.Or(o.Port, 8472)
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	return o
}

func (o Options) validate() error {
	switch {
	case o.NodeName == "":
		return fmt.Errorf("cni/routes: Options.NodeName: want this node's name")
	case o.Mode != Direct && o.Mode != VXLAN:
		return fmt.Errorf("cni/routes: Options.Mode %q: want %q or %q", o.Mode, Direct, VXLAN)
	case len(o.Device) > 15:
		return fmt.Errorf("cni/routes: Options.Device %q: want at most 15 characters", o.Device)
	case o.VNI < 1 || o.VNI >= 1<<24:
		return fmt.Errorf("cni/routes: Options.VNI %d: want 1 to %d", o.VNI, 1<<24-1)
	case o.Port < 1 || o.Port > 65535:
		return fmt.Errorf("cni/routes: Options.Port %d: want 1 to 65535", o.Port)
	}
	return nil
}

// Peer is another node: its address and its pods' range.
type Peer struct {
	Node netip.Addr
	CIDR netip.Prefix
}

// Plan returns the peers of the node named self, ordered by range, and self's own entry. Nodes that lack an internal
// address or a pod range are left out; of two that claim one range the first by name has it.
func Plan(self string, nodes []*corev1.Node) (own Peer, peers []Peer) {
	sorted := slices.Clone(nodes)
	slices.SortFunc(sorted, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	taken := map[netip.Prefix]bool{}
	for _, n := range sorted {
		p, ok := peerOf(n)
		if n.Name == self {
			own = p
			continue
		}
		if !ok || taken[p.CIDR] {
			continue
		}
		taken[p.CIDR] = true
		peers = append(peers, p)
	}
	peers = slices.DeleteFunc(peers, func(p Peer) bool { return p.CIDR == own.CIDR || p.Node == own.Node })
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.CIDR.String(), b.CIDR.String()) })
	return own, peers
}

func peerOf(n *corev1.Node) (Peer, bool) {
	var p Peer
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); a.Type == corev1.NodeInternalIP && err == nil && addr.Is4() {
			p.Node = addr
			break
		}
	}
	for _, c := range append([]string{n.Spec.PodCIDR}, n.Spec.PodCIDRs...) {
		if cidr, err := netip.ParsePrefix(c); err == nil && cidr.Addr().Is4() {
			p.CIDR = cidr.Masked()
			break
		}
	}
	return p, p.Node.IsValid() && p.CIDR.IsValid()
}
