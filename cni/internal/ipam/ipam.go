// Package ipam hands out the addresses of one prefix and remembers in a directory who has which.
package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// ErrExhausted reports that every address is taken.
var ErrExhausted = errors.New("cni: no free address")

// Pool allocates addresses; one file an address, its content the owner, so that a
// restarted process knows what is taken. Safe for concurrent use by one process.
type Pool struct {
	prefix netip.Prefix
	dir    string

	mu     sync.Mutex
	owner  map[netip.Addr]string
	byID   map[string]netip.Addr
	cursor netip.Addr
}

// Open reads what dir (created if missing; "" keeps everything in memory) records. The network address, the first address
// (the gateway's) and the broadcast address are never handed out.
func Open(dir string, prefix netip.Prefix) (*Pool, error) {
	prefix = prefix.Masked()
	if !prefix.IsValid() || prefix.Addr().BitLen()-prefix.Bits() < 2 {
		return nil, fmt.Errorf("cni: prefix %v: want one with room for at least one pod, such as 10.244.1.0/24", prefix)
	}
	p := &Pool{prefix: prefix, dir: dir, owner: map[netip.Addr]string{}, byID: map[string]netip.Addr{}}
	p.cursor = p.Gateway()
	if dir == "" {
		return p, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cni: address records: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cni: address records: %w", err)
	}
	for _, e := range entries {
		addr, err := netip.ParseAddr(e.Name())
		if err != nil || !prefix.Contains(addr) {
			continue // of another range, or not ours
		}
		id, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("cni: address records: %w", err)
		}
		if owner := strings.TrimSpace(string(id)); owner != "" {
			p.owner[addr], p.byID[owner] = owner, addr
		} else {
			_ = os.Remove(filepath.Join(dir, e.Name())) // a crash between create and write
		}
	}
	return p, nil
}

// Gateway is the prefix's first address.
func (p *Pool) Gateway() netip.Addr { return p.prefix.Addr().Next() }

// Prefix is the range.
func (p *Pool) Prefix() netip.Prefix { return p.prefix }

// Acquire returns the address of id, a new one if it has none. Addresses are handed out in turn, so that one
// just released is not the next to be used.
func (p *Pool) Acquire(id string) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.byID[id]; ok {
		return a, nil
	}
	for a, wrapped := p.cursor.Next(), false; ; a = a.Next() {
		if !p.prefix.Contains(a) || p.broadcast(a) {
			if wrapped {
				return netip.Addr{}, fmt.Errorf("%w in %v (%d in use)", ErrExhausted, p.prefix, len(p.owner))
			}
			a, wrapped = p.Gateway(), true
			continue
		}
		if _, taken := p.owner[a]; taken {
			continue
		}
		if p.dir != "" {
			if err := os.WriteFile(filepath.Join(p.dir, a.String()), []byte(id), 0o600); err != nil {
				return netip.Addr{}, fmt.Errorf("cni: recording %v: %w", a, err)
			}
		}
		p.owner[a], p.byID[id], p.cursor = id, a, a
		return a, nil
	}
}

func (p *Pool) broadcast(a netip.Addr) bool {
	return a.Is4() && !p.prefix.Contains(a.Next())
}

// Lookup returns the address of id.
func (p *Pool) Lookup(id string) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.byID[id]
	return a, ok
}

// Release frees the address of id, if it has one, and returns it.
func (p *Pool) Release(id string) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.byID[id]
	if !ok {
		return netip.Addr{}, nil
	}
	if p.dir != "" {
		if err := os.Remove(filepath.Join(p.dir, a.String())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return netip.Addr{}, fmt.Errorf("cni: releasing %v: %w", a, err)
		}
	}
	delete(p.owner, a)
	delete(p.byID, id)
	return a, nil
}
