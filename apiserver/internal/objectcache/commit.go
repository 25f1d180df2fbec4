package objectcache

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/keelson/keelson/store"
)

// Write is a value to be committed under a resource's key.
type Write struct {
	Resource *Resource
	Key      string
	Object   runtime.Object // what Value decodes to; it belongs to the cache from then on, and so does Value
	Value    []byte
	If       store.Condition
	// Extra are further operations of the same commit, on keys that belong to no resource.
	Extra []store.Op
}

func (w *Write) full() string { return w.Resource.prefix + w.Key }

func (w *Write) ops() []store.Op {
	return append([]store.Op{store.Put(w.full(), w.Value, w.If)}, w.Extra...)
}

// Put commits a value. When it returns, the cache has what was committed (unless the store's watch is more than a second behind). Errors are the
// store's.
func (c *Cache) Put(ctx context.Context, w Write) (*Object, error) {
	full := w.full()
	p := c.announce(full, &w)
	defer c.forget(full, p)
	rev, err := c.store.Commit(ctx, w.ops()...)
	if err != nil {
		return nil, err
	}
	o := c.made(p, &w, rev)
	c.committed(commit{rev, []change{{res: w.Resource, rev: rev, key: o.key, obj: o}}})
	c.settle(ctx, rev)
	return o, nil
}

// PutEach is Put of several values, each in a commit of its own, which share what durability costs. Of each there is an object or an error.
func (c *Cache) PutEach(ctx context.Context, ws []Write) ([]*Object, []error) {
	out, errs := make([]*Object, len(ws)), make([]error, len(ws))
	fulls, ps, ops := make([]string, len(ws)), make([]*pending, len(ws)), make([][]store.Op, len(ws))
	for i := range ws {
		w := &ws[i]
		fulls[i], ops[i] = w.full(), w.ops()
		ps[i] = c.announce(fulls[i], w)
	}
	commits := make([]commit, 0, len(ws))
	last := int64(0)
	for i, res := range store.CommitEach(ctx, c.store, ops) {
		if errs[i] = res.Err; res.Err != nil {
			continue
		}
		out[i] = c.made(ps[i], &ws[i], res.Revision)
		commits = append(commits, commit{res.Revision, []change{{res: ws[i].Resource, rev: res.Revision, key: out[i].key, obj: out[i]}}})
		last = max(last, res.Revision)
	}
	slices.SortFunc(commits, func(a, b commit) int { return cmp.Compare(a.rev, b.rev) })
	c.committed(commits...)
	c.settle(ctx, last)
	for i, full := range fulls {
		c.forget(full, ps[i])
	}
	return out, errs
}

// announce lets the watch of the store find what a value decodes to.
func (c *Cache) announce(full string, w *Write) *pending {
	p := &pending{obj: w.Object, value: w.Value}
	c.pendMu.Lock()
	c.pending[full] = append(c.pending[full], p)
	c.pendMu.Unlock()
	return p
}

// made is the object that was committed at rev.
func (c *Cache) made(p *pending, w *Write, rev int64) *Object {
	c.pendMu.Lock()
	defer c.pendMu.Unlock()
	o := p.made
	switch {
	case o == nil:
		o = newObject(w.Key, w.Object, w.Value, rev)
	case o.rev != rev: // somebody wrote the same bytes at the same time
		o = newObject(w.Key, withRevision(w.Object, rev), w.Value, rev)
	}
	p.made = o
	return o
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
	c.committed(commit{rev, changes})
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
