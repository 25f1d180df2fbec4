package bridge

import (
	"context"
	"net/netip"
	"strconv"
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/keelson/keelson/cni"
)

func tableName(bridge string) string { return "keelson-cni-" + bridge }

const (
	chainPostrouting = "postrouting"
	chainForward     = "forward"
	chainHostPorts   = "hostports"
	mapHostPorts     = "hostports"
	mapHostPortsAny  = "hostports-any"
)

// baseRules accept pods' traffic, masquerade what leaves the cluster and look host ports up in maps.
func (n *Network) baseRules() *knftables.Transaction {
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("pod network of " + n.opts.Bridge)})
	tx.Add(&knftables.Chain{
		Name: chainPostrouting, Type: knftables.PtrTo(knftables.NATType),
		Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: knftables.PtrTo(knftables.SNATPriority),
	})
	tx.Flush(&knftables.Chain{Name: chainPostrouting})
	if !n.opts.NoMasquerade {
		tx.Add(&knftables.Rule{Chain: chainPostrouting, Rule: knftables.Concat(
			"ip saddr", n.opts.PodCIDR.Masked().String(), "ip daddr !=", n.opts.ClusterCIDR.Masked().String(),
			"ip daddr != 224.0.0.0/4", "fib daddr type != local", "masquerade")})
	}
	// A connection from the node's own loopback to a host port must come back through the node.
	tx.Add(&knftables.Rule{Chain: chainPostrouting, Rule: knftables.Concat(
		"ip saddr 127.0.0.0/8", "oifname", strconv.Quote(n.opts.Bridge), "masquerade")})
	tx.Add(&knftables.Chain{
		Name: chainForward, Type: knftables.PtrTo(knftables.FilterType),
		Hook: knftables.PtrTo(knftables.ForwardHook), Priority: knftables.PtrTo(knftables.FilterPriority),
	})
	tx.Flush(&knftables.Chain{Name: chainForward})
	tx.Add(&knftables.Rule{Chain: chainForward, Rule: knftables.Concat("ip saddr", n.opts.ClusterCIDR.Masked().String(), "accept")})
	tx.Add(&knftables.Rule{Chain: chainForward, Rule: knftables.Concat("ip daddr", n.opts.ClusterCIDR.Masked().String(), "accept")})
	// route_localnet, which host ports on 127.0.0.1 need, must not open the node's loopback to pods.
	tx.Add(&knftables.Chain{
		Name: "input", Type: knftables.PtrTo(knftables.FilterType),
		Hook: knftables.PtrTo(knftables.InputHook), Priority: knftables.PtrTo(knftables.FilterPriority),
	})
	tx.Flush(&knftables.Chain{Name: "input"})
	tx.Add(&knftables.Rule{Chain: "input", Rule: knftables.Concat("iifname", strconv.Quote(n.opts.Bridge), "ip daddr 127.0.0.0/8 ct state new drop")})
	tx.Add(&knftables.Map{Name: mapHostPorts, Type: "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"})
	tx.Add(&knftables.Map{Name: mapHostPortsAny, Type: "inet_proto . inet_service : ipv4_addr . inet_service"})
	tx.Add(&knftables.Chain{Name: chainHostPorts})
	tx.Flush(&knftables.Chain{Name: chainHostPorts})
	tx.Add(&knftables.Rule{Chain: chainHostPorts, Rule: knftables.Concat("meta l4proto { tcp, udp, sctp } dnat ip to ip daddr . meta l4proto . th dport map @" + mapHostPorts)})
	tx.Add(&knftables.Rule{Chain: chainHostPorts, Rule: knftables.Concat("meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . th dport map @" + mapHostPortsAny)})
	for name, hook := range map[string]knftables.BaseChainHook{"prerouting": knftables.PreroutingHook, "output": knftables.OutputHook} {
		tx.Add(&knftables.Chain{
			Name: name, Type: knftables.PtrTo(knftables.NATType),
			Hook: knftables.PtrTo(hook), Priority: knftables.PtrTo(knftables.DNATPriority),
		})
		tx.Flush(&knftables.Chain{Name: name})
		tx.Add(&knftables.Rule{Chain: name, Rule: "fib daddr type local jump " + chainHostPorts})
	}
	return tx
}

func (n *Network) openHostPorts(ctx context.Context, s cni.Sandbox, addr netip.Addr) error {
	var elements []knftables.Object
	for _, hp := range s.HostPorts {
		if hp.HostPort == 0 {
			continue
		}
		key := []string{strings.ToLower(hp.Protocol), strconv.Itoa(int(hp.HostPort))}
		if key[0] == "" {
			key[0] = "tcp"
		}
		name := mapHostPortsAny
		if hp.HostIP.IsValid() && !hp.HostIP.IsUnspecified() {
			name, key = mapHostPorts, append([]string{hp.HostIP.String()}, key...)
		}
		elements = append(elements, &knftables.Element{
			Map: name, Key: key,
			Value: []string{addr.String(), strconv.Itoa(int(hp.ContainerPort))},
		})
	}
	n.mu.Lock()
	_, open := n.hostPort[s.ID]
	if len(elements) == 0 {
		n.hostPort[s.ID] = nil // known to have none, so that Teardown need not look
	}
	n.mu.Unlock()
	if open || len(elements) == 0 {
		return nil
	}
	tx := n.nft.NewTransaction()
	for _, e := range elements {
		tx.Add(e)
	}
	if err := n.nft.Run(ctx, tx); err != nil {
		return err
	}
	n.mu.Lock()
	n.hostPort[s.ID] = elements
	n.mu.Unlock()
	return nil
}

// closeHostPorts removes a sandbox's elements. Those that an earlier process opened are found by the pod's address.
func (n *Network) closeHostPorts(ctx context.Context, id string) error {
	n.mu.Lock()
	elements, known := n.hostPort[id]
	n.mu.Unlock()
	if !known {
		addr, ok := n.pool.Lookup(id)
		if !ok {
			return nil
		}
		for _, name := range []string{mapHostPorts, mapHostPortsAny} {
			all, err := n.nft.ListElements(ctx, "map", name)
			if knftables.IsNotFound(err) {
				continue
			} else if err != nil {
				return err
			}
			for _, e := range all {
				if len(e.Value) > 0 && e.Value[0] == addr.String() {
					elements = append(elements, e)
				}
			}
		}
	}
	if len(elements) > 0 {
		tx := n.nft.NewTransaction()
		for _, e := range elements {
			tx.Delete(e)
		}
		if err := n.nft.Run(ctx, tx); err != nil && !knftables.IsNotFound(err) {
			return err
		}
	}
	n.mu.Lock()
	delete(n.hostPort, id)
	n.mu.Unlock()
	return nil
}
