package objectcache

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/keelson/keelson/store"
)

// Put commits value, which decodes to obj, under the resource's key. obj belongs to the cache from then on, and so does value. extra are further
// operations of the same commit, on keys that belong to no resource. When Put returns, the cache has what was committed (unless the store's watch
// is more than a second behind). Errors are the store's.
func (c *Cache) Put(ctx context.Context, r *Resource, key string, obj runtime.Object, value []byte, cond store.Condition, extra ...store.Op) (*Object, error) {
	full := r.prefix + key
	p := &pending{obj: obj, value: value}
	c.pendMu.Lock()
	c.pending[full] = append(c.pending[full], p)
	c.pendMu.Unlock()

	rev, err := c.store.Commit(ctx, append([]store.Op{store.Put(full, value, cond)}, extra...)...)
	if err != nil {
		c.forget(full, p)
		return nil, err
	}
	c.pendMu.Lock()
	o := p.made
	switch {
	case o == nil:
		o = newObject(full[len(r.prefix):], obj, value, rev)
	case o.rev != rev: // somebody wrote the same bytes at the same time
		o = newObject(full[len(r.prefix):], withRevision(obj, rev), value, rev)
	}
	p.made = o
	c.pendMu.Unlock()
	c.committed(rev, []change{{res: r, rev: rev, key: o.key, obj: o}})
	c.settle(ctx, rev)
	c.forget(full, p)
	return o, nil
}

func (c *Cache) forget(key string, p *pending) {
	c.pendMu.Lock()
	defer c.pendMu.Unlock()
	list := slices.DeleteFunc(c.pending[key], func(x *pending) bool { return x == p })
	if len(list) == 0 {
		delete(c.pending, key)
	} else {
		c.pending[key] = list
	}
}

// settle gives those who commit at the same time a moment to be applied, so that a writer reads what it wrote.
func (c *Cache) settle(ctx context.Context, rev int64) {
	if c.revision.Load() >= rev {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = c.Wait(ctx, rev)
}

// Deletion is one of several objects to delete.
type Deletion struct {
	Resource *Resource
	Object   *Object // the state that must still be there
	// Extra are further operations of the same commit, on keys that belong to no resource.
	Extra []store.Op
}

// Delete removes objects in one commit, if all are still in the given states. It returns their last states with the
// revision of the deletion.
func (c *Cache) Delete(ctx context.Context, ds ...Deletion) ([]*Object, error) {
	ops := make([]store.Op, len(ds))
	for i, d := range ds {
		ops[i] = store.Delete(d.Resource.prefix+d.Object.key, store.At(d.Object.rev))
	}
	for _, d := range ds {
		ops = append(ops, d.Extra...)
	}
	rev, err := c.store.Commit(ctx, ops...)
	if err != nil {
		return nil, err
	}
	changes := make([]change, len(ds))
	for i, d := range ds {
		changes[i] = change{res: d.Resource, rev: rev, reported: rev, deleted: true, key: d.Object.key}
		if i+1 < len(ds) {
			changes[i].reported--
		}
	}
	c.committed(rev, changes)
	c.settle(ctx, rev)
	out := make([]*Object, len(ds))
	for i, d := range ds {
		out[i] = d.Object.at(changes[i].reported)
	}
	return out, nil
}

// claim returns the decoded form of a value that was committed here, nil if it wasn't.
func (c *Cache) claim(kv *store.KV) *Object {
	c.pendMu.Lock()
	defer c.pendMu.Unlock()
	for _, p := range c.pending[kv.Key] {
		if p.made != nil {
			if p.made.rev == kv.ModRevision {
				return p.made
			}
			continue
		}
		if bytes.Equal(p.value, kv.Value) {
			r := c.resourceOf(kv.Key)
			p.made = newObject(kv.Key[len(r.prefix):], p.obj, kv.Value, kv.ModRevision)
			return p.made
		}
	}
	return nil
}

// at returns the same state with another revision.
func (o *Object) at(rev int64) *Object {
	return &Object{key: o.key, rev: rev, obj: withRevision(o.obj, rev), value: o.value, raw: o.raw}
}

func setRevision(obj runtime.Object, rev int64) {
	if m, ok := obj.(metav1.Object); ok {
		m.SetResourceVersion(strconv.FormatInt(rev, 10))
	}
}
