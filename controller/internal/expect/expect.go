// Package expect remembers writes that the cache has not shown yet, so that a
// controller reading a stale cache does not repeat them.
package expect

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// timeout is when an expectation is given up: the event was missed.
const timeout = 5 * time.Minute

// Expectations keeps, per key, how many creations and which deletions are
// still to be seen. Methods may be called from any goroutine.
type Expectations struct {
	clock clock.PassiveClock
	mu    sync.Mutex
	keys  map[types.NamespacedName]*state
}

type state struct {
	adds    int
	deletes map[types.UID]struct{}
	since   time.Time
}

// New makes an empty set.
func New(c clock.PassiveClock) *Expectations {
	return &Expectations{clock: c, keys: map[types.NamespacedName]*state{}}
}

// Reset forgets all, as at a restart.
func (e *Expectations) Reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keys = map[types.NamespacedName]*state{}
}

func (e *Expectations) at(key types.NamespacedName) *state {
	s := e.keys[key]
	if s == nil {
		s = &state{deletes: map[types.UID]struct{}{}}
		e.keys[key] = s
	}
	s.since = e.clock.Now()
	return s
}

// Create expects n more creations. Call it before the writes.
func (e *Expectations) Create(key types.NamespacedName, n int) {
	if n <= 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.at(key).adds += n
}

// Delete expects deletions. Call it before the writes.
func (e *Expectations) Delete(key types.NamespacedName, uids ...types.UID) {
	if len(uids) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.at(key)
	for _, u := range uids {
		s.deletes[u] = struct{}{}
	}
}

// Created reports n creations seen, or failed.
func (e *Expectations) Created(key types.NamespacedName, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.keys[key]; s != nil {
		s.adds = max(0, s.adds-n)
	}
}

// Deleted reports a deletion seen, begun or failed.
func (e *Expectations) Deleted(key types.NamespacedName, uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.keys[key]; s != nil {
		delete(s.deletes, uid)
	}
}

// Satisfied says whether nothing is awaited under key any more.
func (e *Expectations) Satisfied(key types.NamespacedName) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.keys[key]
	if s == nil {
		return true
	}
	if s.adds == 0 && len(s.deletes) == 0 || e.clock.Since(s.since) > timeout {
		delete(e.keys, key)
		return true
	}
	return false
}

// Forget drops a key, whose object is gone.
func (e *Expectations) Forget(key types.NamespacedName) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.keys, key)
}

// Timeout is after how long unseen writes are taken for lost; a controller
// looks again then.
func Timeout() time.Duration { return timeout + time.Second }
