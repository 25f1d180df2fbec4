// Package bridge is a pod network on one Linux bridge: each sandbox gets a veth pair, an address
// out of the node's pod range, and a default route through the node.
//
// Pods hold their address as a /32, so that all their traffic, to pods of the same node too, is routed by the node: Service
// translation and policy see both directions without br_netfilter.
//
// It needs CAP_NET_ADMIN and, for masquerading and host ports, nftables' nft program.
package bridge

import (
	"fmt"
	"net/netip"

	"github.com/go-logr/logr"
)

// Options of New.
type Options struct {
	// PodCIDR is this node's range (Node.spec.podCIDR), IPv4. Required.
	PodCIDR netip.Prefix
	// ClusterCIDR is the range of all pods: traffic to it keeps the pod's address, traffic to elsewhere is masqueraded behind the
	// node's. Default: PodCIDR.
	ClusterCIDR netip.Prefix
	// ServiceCIDR, if set, is routed to the bridge, so that the node itself reaches Services even without a default route, and does so
	// with an address that pods on other nodes can answer.
	ServiceCIDR netip.Prefix
	// Bridge is the device's name, up to 15 characters. Default "keelson0".
	Bridge string
	// MTU of bridge and veth; default: the kernel's, 1500. With VXLAN between nodes take 50 off the nodes' MTU.
	MTU int
	// StateDir remembers addresses over restarts. Required.
	StateDir string
	// NoMasquerade leaves traffic to the outside as it is.
	NoMasquerade bool
	Logger       logr.Logger
}

func (o Options) withDefaults() Options {
	if !o.ClusterCIDR.IsValid() {
		o.ClusterCIDR = o.PodCIDR
	}
	if o.Bridge == "" {
		o.Bridge = "keelson0"
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	return o
}

func (o Options) validate() error {
	if !o.PodCIDR.IsValid() || !o.PodCIDR.Addr().Is4() {
		return fmt.Errorf("cni/bridge: Options.PodCIDR %v: want an IPv4 range such as 10.244.1.0/24", o.PodCIDR)
	}
	if o.StateDir == "" {
		return fmt.Errorf("cni/bridge: Options.StateDir: want a directory that survives restarts")
	}
	if len(o.Bridge) > 15 {
		return fmt.Errorf("cni/bridge: Options.Bridge %q: want at most 15 characters", o.Bridge)
	}
	if o.MTU < 576 || o.MTU > 65535 {
		return fmt.Errorf("cni/bridge: Options.MTU %d: want 576 to 65535", o.MTU)
	}
	return nil
}
