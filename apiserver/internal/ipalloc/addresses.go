package ipalloc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
)

// Addresses allocates the addresses of one range.
type Addresses struct {
	prefix netip.Prefix
	base   netip.Addr
	o      *offsets
}

// maxHostBits bounds how much of an IPv6 range is used, so that it can be counted.
const maxHostBits = 62

// NewAddresses returns an allocator of prefix, without the network address and, of IPv4, the broadcast address. A range
// of less than two usable addresses is an error.
func NewAddresses(prefix netip.Prefix) (*Addresses, error) {
	if !prefix.IsValid() {
		return nil, errors.New("ipalloc: prefix: expected a CIDR range such as 10.96.0.0/12")
	}
	prefix = prefix.Masked()
	host := prefix.Addr().BitLen() - prefix.Bits()
	if host < 2 {
		return nil, fmt.Errorf("ipalloc: prefix %s: expected at least two usable addresses", prefix)
	}
	if prefix.Addr().Is6() && host > maxHostBits {
		host = maxHostBits
	}
	size := uint64(1)<<host - 1 // without the network address
	if prefix.Addr().Is4() {
		size-- // without the broadcast address
	}
	return &Addresses{prefix: prefix, base: prefix.Addr(), o: newOffsets(size, staticPart(size, 16, 256, 16), rand.Uint64())}, nil
}

// staticPart is min(max(least, size/step), most) of a range, or nothing of a tiny one.
func staticPart(size, least, most, step uint64) uint64 {
	if size < least {
		return 0
	}
	return min(max(least, size/step), most)
}

// Prefix returns the range.
func (a *Addresses) Prefix() netip.Prefix { return a.prefix }

// Allocate takes one address. Errors: ErrRange, ErrAllocated.
func (a *Addresses) Allocate(ip netip.Addr) error {
	n, ok := a.offset(ip)
	if !ok {
		return ErrRange
	}
	return a.o.allocate(n)
}

// AllocateNext takes a free address. Error: ErrFull.
func (a *Addresses) AllocateNext() (netip.Addr, error) {
	n, err := a.o.allocateNext()
	if err != nil {
		return netip.Addr{}, err
	}
	return a.at(n), nil
}

// Release frees an address; one that is free or of another range is ignored.
func (a *Addresses) Release(ip netip.Addr) {
	if n, ok := a.offset(ip); ok {
		a.o.release(n)
	}
}

// Has reports whether an address is taken.
func (a *Addresses) Has(ip netip.Addr) bool {
	n, ok := a.offset(ip)
	return ok && a.o.has(n)
}

// Len returns how many addresses are taken, Size how many there are.
func (a *Addresses) Len() int     { return a.o.count() }
func (a *Addresses) Size() uint64 { return a.o.size }

// Reset makes taken exactly those of ips that are of the range.
func (a *Addresses) Reset(ips []netip.Addr) {
	values := make([]uint64, 0, len(ips))
	for _, ip := range ips {
		if n, ok := a.offset(ip); ok {
			values = append(values, n)
		}
	}
	a.o.reset(values)
}

// offset is an address's number in the range: 0 is the first behind the network address.
func (a *Addresses) offset(ip netip.Addr) (uint64, bool) {
	ip = ip.Unmap()
	if !a.prefix.Contains(ip) {
		return 0, false
	}
	high, low := words(ip)
	baseHigh, baseLow := words(a.base)
	n, borrow := bits.Sub64(low, baseLow, 0)
	rest, _ := bits.Sub64(high, baseHigh, borrow)
	if rest != 0 || n == 0 || n > a.o.size {
		return 0, false
	}
	return n - 1, true
}

func (a *Addresses) at(n uint64) netip.Addr {
	high, low := words(a.base)
	low, carry := bits.Add64(low, n+1, 0)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], high+carry)
	binary.BigEndian.PutUint64(b[8:], low)
	ip := netip.AddrFrom16(b)
	if a.base.Is4() {
		return ip.Unmap()
	}
	return ip
}

func words(ip netip.Addr) (high, low uint64) {
	b := ip.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}
