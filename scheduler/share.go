package scheduler

import (
	"hash/maphash"
	"iter"
	"maps"
)

// An engine and its forks share what neither has changed since. What is shared is only read; who changes it makes a copy for itself first.

// owner tells whose something is: what has another owner may be shared. Fork gives a new one to both sides.
type owner struct{ _ byte } // not of size 0, so that each has an address of its own

// shards is how many parts a shared map has, each of which is copied alone.
const shards = 128

// shared is a map that can be forked. The zero value is empty.
type shared[K ~string, V any] struct {
	parts [shards]part[K, V]
	seed  maphash.Seed
	size  int
}

type part[K ~string, V any] struct {
	m    map[K]V
	lent bool // another has it, too
}

func (s *shared[K, V]) part(key K) *part[K, V] {
	return &s.parts[maphash.String(s.seed, string(key))%shards]
}

func (s *shared[K, V]) get(key K) (v V, ok bool) {
	if s.size == 0 {
		return v, false
	}
	v, ok = s.part(key).m[key]
	return v, ok
}

// of is get without saying whether it is there.
func (s *shared[K, V]) of(key K) V {
	v, _ := s.get(key)
	return v
}

func (s *shared[K, V]) mine(key K) *part[K, V] {
	if s.seed == (maphash.Seed{}) {
		s.seed = maphash.MakeSeed()
	}
	p := s.part(key)
	if p.lent {
		p.m, p.lent = maps.Clone(p.m), false
	}
	return p
}

func (s *shared[K, V]) set(key K, v V) {
	p := s.mine(key)
	if p.m == nil {
		p.m = map[K]V{}
	}
	n := len(p.m)
	p.m[key] = v
	s.size += len(p.m) - n
}

func (s *shared[K, V]) delete(key K) {
	if _, ok := s.get(key); !ok {
		return
	}
	delete(s.mine(key).m, key)
	s.size--
}

func (s *shared[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for i := range s.parts {
			for k, v := range s.parts[i].m {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

func (s *shared[K, V]) fork() shared[K, V] {
	for i := range s.parts {
		s.parts[i].lent = true
	}
	return *s
}
