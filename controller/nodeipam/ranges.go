package nodeipam

import (
	"math/big"
	"net/netip"
)

// ranges gives out the subnets of one network, lowest first, starting after
// the last given so that an address is not soon used again.
type ranges struct {
	cluster netip.Prefix
	bits    int // of a node's prefix
	count   uint64
	next    uint64
	used    map[uint64]int // by index, with how many hold it
}

func newRanges(cluster netip.Prefix, bits int) *ranges {
	n := min(bits-cluster.Bits(), 32)
	return &ranges{cluster: cluster.Masked(), bits: bits, count: 1 << n, used: map[uint64]int{}}
}

func (r *ranges) at(i uint64) netip.Prefix {
	width := r.cluster.Addr().BitLen()
	n := new(big.Int).SetBytes(r.cluster.Addr().AsSlice())
	n.Add(n, new(big.Int).Lsh(new(big.Int).SetUint64(i), uint(width-r.bits)))
	a, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, width/8)))
	return netip.PrefixFrom(a, r.bits)
}

func (r *ranges) index(a netip.Addr) uint64 {
	n := new(big.Int).SetBytes(a.AsSlice())
	n.Sub(n, new(big.Int).SetBytes(r.cluster.Addr().AsSlice()))
	return n.Rsh(n, uint(a.BitLen()-r.bits)).Uint64()
}

// mark counts a range held by a node in (or, with -1, out). A range may be
// wider or narrower than those given out here; all it touches is counted.
func (r *ranges) mark(p netip.Prefix, by int) {
	if !r.cluster.Overlaps(p) {
		return
	}
	first, last := uint64(0), r.count-1
	if p.Bits() > r.cluster.Bits() {
		first = r.index(p.Addr())
		last = first
		if p.Bits() < r.bits {
			last = first + 1<<(r.bits-p.Bits()) - 1
		}
	}
	for i := first; i <= last && i < r.count; i++ {
		if r.used[i] += by; r.used[i] <= 0 {
			delete(r.used, i)
		}
	}
}

func (r *ranges) allocate() (netip.Prefix, bool) {
	for range r.count {
		i := r.next
		r.next = (r.next + 1) % r.count
		if r.used[i] == 0 {
			r.used[i]++
			return r.at(i), true
		}
		if uint64(len(r.used)) >= r.count {
			break
		}
	}
	return netip.Prefix{}, false
}
