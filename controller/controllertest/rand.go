package controllertest

import (
	"math/rand/v2"
	"sync"
)

// Rand is seeded randomness that many goroutines may use.
type Rand struct {
	mu sync.Mutex
	r  *rand.Rand
}

// NewRand makes a Rand from a seed.
func NewRand(seed uint64) *Rand { return &Rand{r: rand.New(rand.NewPCG(seed, 1))} }

// IntN returns a number from 0 up to but not n.
func (r *Rand) IntN(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.IntN(n)
}
