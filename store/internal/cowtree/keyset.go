package cowtree

import "strings"

// keyset is the keys of a node, which versions of the node share until they differ. Looking for a key compares
// numbers, made of the bytes in which the keys begin to differ: the keys themselves are
// all over the memory, and looking at one costs more than everything else.
type keyset struct {
	// keysOwner is the editor that may modify the keys in place.
	keysOwner *token
	// keys of a leaf are those of its values; keys[i] of an inner node is a lower bound of what
	// is in kids[i] and above everything in kids[i-1]; keys[0] bounds nothing.
	keys   []string
	prefix string             // of all keys that bound something
	heads  [maxLen + 1]uint64 // the eight bytes of each key behind the prefix
}

// newKeyset returns the keys, which become its own, of an inner node or a leaf.
func newKeyset(owner *token, keys []string, inner bool) *keyset {
	s := &keyset{keysOwner: owner, keys: keys}
	s.index(inner)
	return s
}

func (s *keyset) clone(owner *token) *keyset {
	keys := make([]string, len(s.keys), maxLen+1)
	copy(keys, s.keys)
	return &keyset{keysOwner: owner, keys: keys, prefix: s.prefix, heads: s.heads}
}

// index has to be called whenever the keys have changed.
func (s *keyset) index(inner bool) {
	first := 0
	if inner {
		first = 1
	}
	s.prefix = ""
	if n := len(s.keys); n > first {
		a, b := s.keys[first], s.keys[n-1]
		i := 0
		for i < len(a) && i < len(b) && a[i] == b[i] {
			i++
		}
		s.prefix = a[:i]
	}
	for i := first; i < len(s.keys); i++ {
		s.heads[i] = head(s.keys[i][len(s.prefix):])
	}
}

func head(s string) uint64 {
	if len(s) >= 8 {
		return uint64(s[7]) | uint64(s[6])<<8 | uint64(s[5])<<16 | uint64(s[4])<<24 |
			uint64(s[3])<<32 | uint64(s[2])<<40 | uint64(s[1])<<48 | uint64(s[0])<<56
	}
	h := uint64(0)
	for i := range len(s) {
		h |= uint64(s[i]) << (56 - 8*i)
	}
	return h
}

// lower returns the index, from first on, of the first key that is at least key.
func (s *keyset) lower(key string, first int) (i int, found bool) {
	if !strings.HasPrefix(key, s.prefix) {
		if key < s.prefix {
			return first, false
		}
		return len(s.keys), false
	}
	h := head(key[len(s.prefix):])
	lo, hi := first, len(s.keys)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if s.heads[m] < h || s.heads[m] == h && s.keys[m] < key {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, lo < len(s.keys) && s.heads[lo] == h && s.keys[lo] == key
}

// exact returns the index of a key of a leaf. All that it touches of the memory of keys is the one that it finds.
func (s *keyset) exact(key string) (int, bool) {
	if len(key) < len(s.prefix) {
		return 0, false
	}
	h := head(key[len(s.prefix):])
	lo, hi := 0, len(s.keys)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if s.heads[m] < h {
			lo = m + 1
		} else {
			hi = m
		}
	}
	// Without the prefix the heads mean nothing, but then the key is none of these.
	for ; lo < len(s.keys) && s.heads[lo] == h; lo++ {
		if s.keys[lo] == key {
			return lo, true
		}
	}
	return 0, false
}

// find returns the index of the first key of a leaf that is at least key.
func (s *keyset) find(key string) (int, bool) { return s.lower(key, 0) }

// child returns the index of the child of an inner node that key belongs to.
func (s *keyset) child(key string) int {
	i, found := s.lower(key, 1)
	if found {
		return i
	}
	return i - 1
}
