package scheduler

import (
	"iter"
	"math/bits"
	"slices"
)

// NodeSet is a set of nodes, by the names that they had when it was made. It never changes.
type NodeSet struct {
	in    bitset
	n     int
	names []string // by Node.Index
}

// Len is the number of nodes.
func (s *NodeSet) Len() int { return s.n }

// All are the nodes' names, in the order of Node.Index.
func (s *NodeSet) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		for slot := range s.in.all() {
			if !yield(s.names[slot]) {
				return
			}
		}
	}
}

// Has reports whether a node is in the set.
func (s *NodeSet) Has(node *Node) bool {
	return s.in.has(int32(node.slot)) && s.names[node.slot] == node.Object.Name
}

// Without is the set without one node.
func (s *NodeSet) Without(name string) NodeSet {
	out := NodeSet{in: slices.Clone(s.in), n: s.n, names: s.names}
	for slot := range s.in.all() {
		if s.names[slot] == name {
			out.in.clear(slot)
			out.n--
		}
	}
	return out
}

// bitset is a set of slots.
type bitset []uint64

func (b bitset) has(slot int32) bool {
	return int(slot>>6) < len(b) && b[slot>>6]&(1<<(slot&63)) != 0
}

// set adds a slot for which there is room.
func (b bitset) set(slot int32) { b[slot>>6] |= 1 << (slot & 63) }

func (b bitset) clear(slot int32) { b[slot>>6] &^= 1 << (slot & 63) }

func (b bitset) put(slot int32, in bool) {
	if in {
		b.set(slot)
	} else {
		b.clear(slot)
	}
}

// any reports whether there is a slot from one up to another, which is not included.
func (b bitset) any(from, to int32) bool {
	for i := from >> 6; i <= (to-1)>>6 && int(i) < len(b); i++ {
		w := b[i]
		if i == from>>6 {
			w &= ^uint64(0) << (from & 63)
		}
		if i == (to-1)>>6 {
			w &= ^uint64(0) >> (63 - (to-1)&63)
		}
		if w != 0 {
			return true
		}
	}
	return false
}

// grown has room for that many slots.
func (b bitset) grown(slots int) bitset {
	for len(b)*64 < slots {
		b = append(b, 0)
	}
	return b
}

func (b bitset) all() iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for i, w := range b {
			for ; w != 0; w &= w - 1 {
				if !yield(int32(i<<6 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}
