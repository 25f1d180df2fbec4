package nftproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/go-logr/logr"
	"sigs.k8s.io/knftables"

	"github.com/keelson/keelson/proxy"
)

// Options of New. The zero value is usable.
type Options struct {
	// Table is the name of the tables in families ip and ip6. Default "keelson-proxy".
	Table string
	// ClusterCIDR is the range of pods' addresses. Pods outside it count as external clients for externalTrafficPolicy: Local.
	ClusterCIDR []netip.Prefix
	// MasqueradeMark is the bit of the packet mark that stands for masquerading. Default 0x4000, kube-proxy's.
	MasqueradeMark uint32
	Logger         logr.Logger
	// NFTables replaces the nft program, for tests. IPv4 first, IPv6 second.
	NFTables [2]knftables.Interface
}

// Backend implements proxy.Backend.
type Backend struct {
	opts   Options
	tables [2]*table // by family
}

var _ proxy.Backend = (*Backend)(nil)

// New checks that nftables can be used. The tables are made by the first Apply.
func New(opts Options) (*Backend, error) {
	if opts.Table == "" {
		opts.Table = "keelson-proxy"
	}
	if opts.MasqueradeMark == 0 {
		opts.MasqueradeMark = 0x4000
	}
	if opts.MasqueradeMark&(opts.MasqueradeMark-1) != 0 {
		return nil, fmt.Errorf("nftproxy: Options.MasqueradeMark %#x: want a single bit", opts.MasqueradeMark)
	}
	if opts.Logger.GetSink() == nil {
		opts.Logger = logr.Discard()
	}
	b := &Backend{opts: opts}
	for i, family := range []knftables.Family{knftables.IPv4Family, knftables.IPv6Family} {
		nft := opts.NFTables[i]
		if nft == nil {
			var err error
			if nft, err = knftables.New(family, opts.Table, knftables.EmulateDestroy); err != nil {
				return nil, fmt.Errorf("nftproxy: %w (needs Linux, nftables' nft program and CAP_NET_ADMIN; userproxy needs none of them)", err)
			}
		}
		b.tables[i] = newTable(family, nft, opts)
	}
	return b, nil
}

// Apply implements proxy.Backend: one transaction a family, so a change is seen whole or not at all.
func (b *Backend) Apply(ctx context.Context, c proxy.Change) error {
	var errs []error
	for i, t := range b.tables {
		part := proxy.Change{Full: c.Full}
		for _, sp := range c.Set {
			if sp.Key.IPv6 == (i == 1) {
				part.Set = append(part.Set, sp)
			}
		}
		for _, k := range c.Removed {
			if k.IPv6 == (i == 1) {
				part.Removed = append(part.Removed, k)
			}
		}
		if i == 1 && len(part.Set) == 0 && !t.made {
			continue // a host without IPv6 need not have the table
		}
		if part.Empty() {
			continue
		}
		if err := t.apply(ctx, part); err != nil {
			errs = append(errs, fmt.Errorf("nftproxy: table %s %s: %w", t.family, b.opts.Table, err))
		}
	}
	return errors.Join(errs...)
}

// Close implements proxy.Backend; the kernel goes on forwarding.
func (b *Backend) Close() error { return nil }

// Cleanup removes the tables.
func (b *Backend) Cleanup(ctx context.Context) error {
	var errs []error
	for _, t := range b.tables {
		if t.made {
			tx := t.nft.NewTransaction()
			tx.Add(&knftables.Table{})
			tx.Delete(&knftables.Table{})
			errs = append(errs, t.nft.Run(ctx, tx))
			t.made = false
			clear(t.ports)
		}
	}
	return errors.Join(errs...)
}
