package ipalloc

import (
	"errors"
	"math/rand/v2"
	"sync"
)

// Errors of both allocators; test with errors.Is.
var (
	ErrFull      = errors.New("range is full")
	ErrAllocated = errors.New("provided value is already allocated")
	ErrRange     = errors.New("provided value is not in the valid range")
)

// offsets gives out the numbers 0..size-1, the upper part first.
type offsets struct {
	size uint64
	// reserved is where automatic allocation begins.
	reserved uint64

	mu   sync.Mutex
	used map[uint64]struct{}
	rand *rand.Rand
}

func newOffsets(size, reserved uint64, seed uint64) *offsets {
	return &offsets{size: size, reserved: reserved, used: map[uint64]struct{}{}, rand: rand.New(rand.NewPCG(seed, size))}
}

func (o *offsets) allocate(n uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n >= o.size {
		return ErrRange
	}
	if _, taken := o.used[n]; taken {
		return ErrAllocated
	}
	o.used[n] = struct{}{}
	return nil
}

// allocateNext takes a free number, from the upper part while there is one, at random so that a freed one is not
// soon used again.
func (o *offsets) allocateNext() (uint64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if uint64(len(o.used)) >= o.size {
		return 0, ErrFull
	}
	if n, found := o.scan(o.reserved, o.size); found {
		return n, nil
	}
	if n, found := o.scan(0, o.reserved); found {
		return n, nil
	}
	return 0, ErrFull
}

// scan takes the first free number of [from, to) at or behind a random start.
func (o *offsets) scan(from, to uint64) (uint64, bool) {
	if to <= from {
		return 0, false
	}
	length := to - from
	start := o.rand.Uint64N(length)
	for i := uint64(0); i < length && i <= uint64(len(o.used)); i++ {
		n := from + (start+i)%length
		if _, taken := o.used[n]; !taken {
			o.used[n] = struct{}{}
			return n, true
		}
	}
	return 0, false
}

func (o *offsets) release(n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.used, n)
}

func (o *offsets) has(n uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, taken := o.used[n]
	return taken
}

func (o *offsets) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.used)
}

func (o *offsets) reset(values []uint64) {
	used := make(map[uint64]struct{}, len(values))
	for _, n := range values {
		if n < o.size {
			used[n] = struct{}{}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.used = used
}
