package userproxy

import (
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// balancer chooses endpoints.
type balancer struct {
	clock clock.Clock

	mu        sync.Mutex
	rand      *rand.Rand
	endpoints []netip.AddrPort
	sources   []netip.Prefix
	affinity  time.Duration
	clients   map[netip.Addr]sticky
	swept     time.Time
}

// sticky is where a client's last connection went.
type sticky struct {
	endpoint netip.AddrPort
	last     time.Time
}

func newBalancer(c clock.Clock, seed uint64, addr netip.AddrPort) *balancer {
	h := fnv.New64a()
	b, _ := addr.MarshalBinary()
	_, _ = h.Write(b)
	return &balancer{clock: c, rand: rand.New(rand.NewPCG(seed, h.Sum64())), clients: map[netip.Addr]sticky{}}
}

func (b *balancer) set(endpoints []netip.AddrPort, affinity time.Duration, sources []netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endpoints, b.affinity, b.sources = endpoints, affinity, sources
	for client, s := range b.clients {
		if affinity == 0 || !slices.Contains(endpoints, s.endpoint) {
			delete(b.clients, client)
		}
	}
}

// order returns the endpoints in the order in which a connection of client is to try them; none if it is refused.
func (b *balancer) order(client netip.Addr) []netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	client = client.Unmap()
	if len(b.sources) > 0 && !slices.ContainsFunc(b.sources, func(p netip.Prefix) bool { return p.Contains(client) }) {
		return nil
	}
	out := slices.Clone(b.endpoints)
	b.rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	if s, ok := b.clients[client]; ok && b.clock.Since(s.last) < b.affinity {
		if i := slices.Index(out, s.endpoint); i > 0 {
			out[0], out[i] = out[i], out[0]
		}
	}
	return out
}

// used remembers where a connection of client went.
func (b *balancer) used(client netip.Addr, endpoint netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.affinity == 0 {
		return
	}
	now := b.clock.Now()
	b.clients[client.Unmap()] = sticky{endpoint, now}
	if now.Sub(b.swept) < b.affinity {
		return
	}
	b.swept = now
	for c, s := range b.clients {
		if now.Sub(s.last) >= b.affinity {
			delete(b.clients, c)
		}
	}
}

func (b *balancer) has(endpoint netip.AddrPort) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.endpoints, endpoint)
}
