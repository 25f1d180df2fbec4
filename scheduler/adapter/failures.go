package adapter

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// maxFailures bounds how many pods are remembered, twice.
const maxFailures = 2048

// failures are pods that were rejected because the plugin failed, which any change may mend. Nobody tells of pods that are deleted: the oldest are
// forgotten when there are many, and then wake with time, as all pods do.
type failures struct {
	mu          sync.Mutex
	now, before map[types.UID]bool
}

func (f *failures) add(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.now) >= maxFailures {
		f.now, f.before = nil, f.now
	}
	if f.now == nil {
		f.now = map[types.UID]bool{}
	}
	f.now[uid] = true
}

func (f *failures) remove(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.now, uid)
	delete(f.before, uid)
}

func (f *failures) has(uid types.UID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now[uid] || f.before[uid]
}
