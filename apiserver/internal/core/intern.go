package core

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// interner makes objects share managed fields, which are alike for all that one controller makes and are a good part
// of a small object.
type interner struct {
	mu   sync.RWMutex
	seen map[string]*metav1.FieldsV1
}

const maxInterned = 4096

func newInterner() *interner { return &interner{seen: map[string]*metav1.FieldsV1{}} }

// share replaces the managed fields of an object that nobody has seen yet.
func (n *interner) share(obj client.Object) {
	mf := obj.GetManagedFields()
	for i := range mf {
		if mf[i].FieldsV1 != nil {
			mf[i].FieldsV1 = n.one(mf[i].FieldsV1)
		}
	}
}

func (n *interner) one(f *metav1.FieldsV1) *metav1.FieldsV1 {
	raw := f.GetRawString()
	n.mu.RLock()
	have := n.seen[raw]
	n.mu.RUnlock()
	if have != nil {
		return have
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if have := n.seen[raw]; have != nil {
		return have
	}
	if len(n.seen) >= maxInterned {
		clear(n.seen)
	}
	n.seen[raw] = f
	return f
}
