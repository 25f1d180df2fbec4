package nftproxy

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/keelson/keelson/proxy"
)

// Names in the table.
const (
	mapServices  = "service-ips"
	mapNodePorts = "service-nodeports"
	mapRejects   = "no-endpoint-ips"
	mapRejectsNP = "no-endpoint-nodeports"
	setHairpin   = "hairpin"
	chainService = "services"
	chainReject  = "reject-services"
	chainRefuse  = "refuse"
	chainMasq    = "mark-masquerade"
)

// table is one family's.
type table struct {
	family knftables.Family
	nft    knftables.Interface
	opts   Options
	addr   string // nft's word and type for addresses
	typ    string
	made   bool
	ports  map[proxy.Key]proxy.ServicePort
	// hairpin counts the ports that use an endpoint, for its element is shared.
	hairpin map[netip.Addr]int
}

func newTable(family knftables.Family, nft knftables.Interface, opts Options) *table {
	t := &table{
		family: family, nft: nft, opts: opts, addr: "ip", typ: "ipv4_addr",
		ports: map[proxy.Key]proxy.ServicePort{}, hairpin: map[netip.Addr]int{},
	}
	if family == knftables.IPv6Family {
		t.addr, t.typ = "ip6", "ipv6_addr"
	}
	return t
}

// apply leaves t.ports as it was when the transaction fails; the caller then comes with a full change.
func (t *table) apply(ctx context.Context, c proxy.Change) error {
	tx := t.nft.NewTransaction()
	next := newState(t)
	if c.Full || !t.made {
		t.base(tx)
		next.clear()
	}
	for _, k := range c.Removed {
		next.remove(tx, k)
	}
	for _, sp := range c.Set { // all old elements first: an address may move between ports
		next.retract(tx, sp)
	}
	for _, sp := range c.Set {
		next.add(tx, sp)
	}
	next.settleHairpin(tx)
	next.deleteChains(tx)
	if tx.NumOperations() > 0 {
		if err := t.nft.Run(ctx, tx); err != nil {
			return err
		}
	}
	t.made = true
	stale := staleFlows(t.ports, next.ports)
	t.ports, t.hairpin = next.ports, next.hairpin
	if err := dropFlows(t.family, stale); err != nil {
		t.opts.Logger.V(1).Info("UDP connections of changed Services may go to their old endpoints until they are idle", "reason", err.Error())
	}
	return nil
}

// base makes an empty table with everything that doesn't depend on Services. Starting from nothing is
// what makes a full change need no listing.
func (t *table) base(tx *knftables.Transaction) {
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("Kubernetes Services")})

	chain := func(name string, typ knftables.BaseChainType, hook knftables.BaseChainHook, prio knftables.BaseChainPriority, rules ...string) {
		ch := &knftables.Chain{Name: name}
		if typ != "" {
			ch.Type, ch.Hook, ch.Priority = &typ, &hook, &prio
		}
		tx.Add(ch)
		for _, r := range rules {
			tx.Add(&knftables.Rule{Chain: name, Rule: r})
		}
	}
	mark := fmt.Sprintf("%#x", t.opts.MasqueradeMark)
	verdict := func(name, key string) { tx.Add(&knftables.Map{Name: name, Type: key + " : verdict"}) }
	verdict(mapServices, t.typ+" . inet_proto . inet_service")
	verdict(mapNodePorts, "inet_proto . inet_service")
	verdict(mapRejects, t.typ+" . inet_proto . inet_service")
	verdict(mapRejectsNP, "inet_proto . inet_service")
	tx.Add(&knftables.Set{Name: setHairpin, Type: t.typ + " . " + t.typ})

	notLoopback := "ip daddr != 127.0.0.0/8"
	if t.family == knftables.IPv6Family {
		notLoopback = "ip6 daddr != ::1"
	}
	onNode := knftables.Concat("fib daddr type local", notLoopback)
	chain(chainMasq, "", "", "", "meta mark set meta mark or "+mark)
	chain(chainRefuse, "", "", "", "meta l4proto tcp reject with tcp reset", "reject")
	chain(chainService, "", "", "",
		fmt.Sprintf("%s daddr . meta l4proto . th dport vmap @%s", t.addr, mapServices),
		fmt.Sprintf("%s meta l4proto . th dport vmap @%s", onNode, mapNodePorts))
	chain(chainReject, "", "", "",
		fmt.Sprintf("%s daddr . meta l4proto . th dport vmap @%s", t.addr, mapRejects),
		fmt.Sprintf("%s meta l4proto . th dport vmap @%s", onNode, mapRejectsNP))

	nat, filter := knftables.NATType, knftables.FilterType
	chain("nat-prerouting", nat, knftables.PreroutingHook, knftables.DNATPriority, "jump "+chainService)
	chain("nat-output", nat, knftables.OutputHook, knftables.DNATPriority, "jump "+chainService)
	chain("nat-postrouting", nat, knftables.PostroutingHook, knftables.SNATPriority,
		// The mark is cleared so that a tunnel doesn't masquerade the outer packet again.
		fmt.Sprintf("meta mark and %s != 0 meta mark set meta mark xor %s masquerade fully-random", mark, mark),
		fmt.Sprintf("ct status dnat %s saddr . %s daddr @%s masquerade fully-random", t.addr, t.addr, setHairpin))
	for _, hook := range []knftables.BaseChainHook{knftables.InputHook, knftables.ForwardHook, knftables.OutputHook} {
		// Before the address is translated there is nothing to reject on output, so this runs ahead of NAT's result: only new connections count.
		chain("filter-"+string(hook), filter, hook, knftables.FilterPriority, "ct state new jump "+chainReject)
	}
}

// state is what the table will be, and the chains that go.
type state struct {
	t       *table
	ports   map[proxy.Key]proxy.ServicePort
	hairpin map[netip.Addr]int
	touched map[netip.Addr]bool
	doomed  []string // chains whose references are gone by the end of the transaction
	sets    []string
	live    map[string]bool
	fresh   bool // the table starts empty
}

func newState(t *table) *state {
	s := &state{t: t, ports: map[proxy.Key]proxy.ServicePort{}, hairpin: map[netip.Addr]int{}, touched: map[netip.Addr]bool{}, live: map[string]bool{}}
	for k, v := range t.ports {
		s.ports[k] = v
	}
	for k, v := range t.hairpin {
		s.hairpin[k] = v
	}
	return s
}

func (s *state) clear() {
	s.fresh = true
	clear(s.ports)
	clear(s.hairpin)
}

// remove takes a port away.
func (s *state) remove(tx *knftables.Transaction, k proxy.Key) {
	old, had := s.ports[k]
	if !had {
		return
	}
	for _, e := range s.t.elements(old) {
		tx.Delete(e)
	}
	s.useEndpoints(old, -1)
	s.doom(tx, old, proxy.ServicePort{})
	delete(s.ports, k)
}

// retract removes the elements of a port that its new form doesn't have.
func (s *state) retract(tx *knftables.Transaction, sp proxy.ServicePort) {
	old, had := s.ports[sp.Key]
	if !had {
		return
	}
	keep := s.t.elements(sp)
	for id, e := range s.t.elements(old) {
		if now, still := keep[id]; !still || !reflect.DeepEqual(now.Value, e.Value) {
			tx.Delete(e)
		}
	}
}

func (s *state) add(tx *knftables.Transaction, sp proxy.ServicePort) {
	old, had := s.ports[sp.Key]
	oldRules, before := s.t.chains(old), map[string]*knftables.Element{}
	if had {
		before = s.t.elements(old)
		s.useEndpoints(old, -1)
	} else {
		oldRules = nil
	}
	s.useEndpoints(sp, 1)
	chains := s.t.chains(sp)
	for _, ch := range chains { // all chains before the rules that jump to them
		s.live[ch.name] = true
		if ch.set != nil {
			tx.Add(ch.set)
		}
		tx.Add(&knftables.Chain{Name: ch.name})
	}
	for _, ch := range chains {
		if i := slices.IndexFunc(oldRules, func(o svcChain) bool { return o.name == ch.name }); i >= 0 {
			if slices.Equal(oldRules[i].rules, ch.rules) {
				continue
			}
			tx.Flush(&knftables.Chain{Name: ch.name})
		}
		for _, r := range ch.rules {
			tx.Add(&knftables.Rule{Chain: ch.name, Rule: r})
		}
	}
	for id, e := range s.t.elements(sp) {
		if was, have := before[id]; !have || !reflect.DeepEqual(was.Value, e.Value) {
			tx.Add(e)
		}
	}
	if had {
		s.doom(tx, old, sp)
	}
	s.ports[sp.Key] = sp
}

// doom flushes the chains of old that now doesn't have and remembers them for deletion.
func (s *state) doom(tx *knftables.Transaction, old, now proxy.ServicePort) {
	var keep []svcChain
	if now.ClusterIP.IsValid() {
		keep = s.t.chains(now)
	}
	for _, ch := range s.t.chains(old) {
		if slices.ContainsFunc(keep, func(k svcChain) bool { return k.name == ch.name }) {
			continue
		}
		tx.Flush(&knftables.Chain{Name: ch.name})
		s.doomed = append(s.doomed, ch.name)
		if ch.set != nil {
			s.sets = append(s.sets, ch.set.Name)
		}
	}
}

func (s *state) deleteChains(tx *knftables.Transaction) {
	for _, name := range s.doomed {
		if !s.live[name] {
			tx.Delete(&knftables.Chain{Name: name})
		}
	}
	for _, name := range s.sets {
		if !s.live[strings.TrimPrefix(name, "affinity-")] {
			tx.Delete(&knftables.Set{Name: name})
		}
	}
}

func (s *state) useEndpoints(sp proxy.ServicePort, n int) {
	for a := range endpointIPs(sp) {
		s.hairpin[a] += n
		s.touched[a] = true
	}
}

func endpointIPs(sp proxy.ServicePort) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, list := range [][]netip.AddrPort{sp.Internal, sp.External, sp.Cluster} {
		for _, ep := range list {
			out[ep.Addr()] = true
		}
	}
	return out
}

// settleHairpin adds and removes the elements by which a pod that reaches itself through its Service is masqueraded.
func (s *state) settleHairpin(tx *knftables.Transaction) {
	touched := make([]netip.Addr, 0, len(s.touched))
	for a := range s.touched {
		touched = append(touched, a)
	}
	slices.SortFunc(touched, netip.Addr.Compare)
	for _, a := range touched {
		e := &knftables.Element{Set: setHairpin, Key: []string{a.String(), a.String()}}
		had := s.t.hairpin[a] > 0 && !s.fresh
		switch {
		case s.hairpin[a] > 0 && !had:
			tx.Add(e)
		case s.hairpin[a] <= 0:
			delete(s.hairpin, a)
			if had {
				tx.Delete(e)
			}
		}
	}
}
