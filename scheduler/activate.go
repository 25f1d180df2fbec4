package scheduler

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// activations are pods that plugins want to be tried now. It has a lock of its own, under which nothing else is locked.
type activations struct {
	kick func()

	mu   sync.Mutex
	uids []types.UID
}

func (a *activations) add(uid types.UID) {
	a.mu.Lock()
	a.uids = append(a.uids, uid)
	a.mu.Unlock()
	a.kick()
}

func (a *activations) take() []types.UID {
	a.mu.Lock()
	defer a.mu.Unlock()
	uids := a.uids
	a.uids = nil
	return uids
}
