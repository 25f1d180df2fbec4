package expect

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// Versions remembers the resource versions a controller has written, so that
// it does not decide on an older state its cache still shows. The zero value
// is usable.
type Versions struct {
	mu      sync.Mutex
	written map[types.NamespacedName]written
}

type written struct {
	uid     types.UID
	version string
}

// Wrote reports a write.
func (v *Versions) Wrote(key types.NamespacedName, uid types.UID, version string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.written == nil {
		v.written = map[types.NamespacedName]written{}
	}
	v.written[key] = written{uid, version}
}

// Stale says whether an object in the cache is older than what was written of
// it. Versions that can't be compared are not stale.
func (v *Versions) Stale(key types.NamespacedName, uid types.UID, version string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	w, ok := v.written[key]
	if !ok || w.uid != uid {
		return false
	}
	if n, err := resourceversion.CompareResourceVersion(version, w.version); err == nil && n < 0 {
		return true
	}
	delete(v.written, key)
	return false
}

// Forget drops a key, whose object is gone.
func (v *Versions) Forget(key types.NamespacedName) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.written, key)
}
