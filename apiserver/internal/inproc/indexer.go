package inproc

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"sync"

	toolscache "k8s.io/client-go/tools/cache"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/objectcache"
)

// indexer is a read-only toolscache.Indexer on the object cache.
type indexer struct {
	i       *informer
	mu      sync.RWMutex
	indexes map[string]*lazyIndex
}

var _ toolscache.Indexer = (*indexer)(nil)

// lazyIndex is brought up to date when it is read, by the events since it was read last.
type lazyIndex struct {
	f  toolscache.IndexFunc
	mu sync.Mutex
	// cursor is nil before the first read
	cursor *objectcache.Cursor
	values map[string]map[string]*core.Object // by value, by key
	of     map[string][]string                // values by key
}

var errReadOnly = errors.New("inproc: the store of an informer cannot be written")

// AddIndexers implements toolscache.Indexer.
func (x *indexer) AddIndexers(add toolscache.Indexers) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for name := range add {
		if _, ok := x.indexes[name]; ok {
			return fmt.Errorf("indexer conflict: map[%s:{}]", name)
		}
	}
	for name, f := range add {
		x.indexes[name] = &lazyIndex{f: f}
	}
	return nil
}

// GetIndexers implements toolscache.Indexer.
func (x *indexer) GetIndexers() toolscache.Indexers {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := toolscache.Indexers{toolscache.NamespaceIndex: toolscache.MetaNamespaceIndexFunc}
	for name, l := range x.indexes {
		out[name] = l.f
	}
	return out
}

func (x *indexer) has(name string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.indexes[name] != nil
}

// objects returns what an index has under a value, in key order.
func (x *indexer) objects(name, value string) ([]*core.Object, error) {
	x.mu.RLock()
	l := x.indexes[name]
	x.mu.RUnlock()
	if l == nil {
		if name == toolscache.NamespaceIndex {
			return x.namespace(value), nil
		}
		return nil, fmt.Errorf("Index with name %s does not exist", name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.catchUp(x.i); err != nil {
		return nil, err
	}
	m := l.values[value]
	out := make([]*core.Object, 0, len(m))
	for _, o := range m {
		out = append(out, o)
	}
	sort.Slice(out, func(a, b int) bool { return out[a].Key() < out[b].Key() })
	return out, nil
}

func (x *indexer) namespace(ns string) []*core.Object {
	var out []*core.Object
	x.i.ascend(ns, func(o *core.Object) bool {
		out = append(out, o)
		return true
	})
	return out
}

func (l *lazyIndex) catchUp(i *informer) error {
	for l.cursor != nil {
		events, _, _, err := l.cursor.Poll(1024)
		if errors.Is(err, objectcache.ErrExpired) {
			l.cursor = nil
			break
		}
		if err != nil {
			return err
		}
		if len(events) == 0 {
			return nil
		}
		for _, e := range events {
			l.remove(e.Object.Key())
			if !e.Deleted {
				if err := l.add(i, e.Object); err != nil {
					return err
				}
			}
		}
	}
	l.values, l.of = map[string]map[string]*core.Object{}, map[string][]string{}
	snap, cursor := i.cached.SnapshotAndCursor(false)
	var err error
	snap.Ascend("", "", func(o *core.Object) bool {
		err = l.add(i, o)
		return err == nil
	})
	if err == nil {
		l.cursor = cursor
	}
	return err
}

func (l *lazyIndex) add(i *informer, o *core.Object) error {
	if !i.has(o) {
		return nil
	}
	obj, err := i.object(o)
	if err != nil {
		return err
	}
	values, err := l.f(obj)
	if err != nil {
		return err
	}
	for _, v := range values {
		if l.values[v] == nil {
			l.values[v] = map[string]*core.Object{}
		}
		l.values[v][o.Key()] = o
	}
	if len(values) > 0 {
		l.of[o.Key()] = values
	}
	return nil
}

func (l *lazyIndex) remove(key string) {
	for _, v := range l.of[key] {
		delete(l.values[v], key)
		if len(l.values[v]) == 0 {
			delete(l.values, v)
		}
	}
	delete(l.of, key)
}

func (x *indexer) convert(items []*core.Object) ([]any, error) {
	out := make([]any, len(items))
	for n, o := range items {
		obj, err := x.i.object(o)
		if err != nil {
			return nil, err
		}
		out[n] = obj
	}
	return out, nil
}

// Index implements toolscache.Indexer.
func (x *indexer) Index(name string, obj any) ([]any, error) {
	f := x.GetIndexers()[name]
	if f == nil {
		return nil, fmt.Errorf("Index with name %s does not exist", name)
	}
	values, err := f(obj)
	if err != nil {
		return nil, err
	}
	seen := map[*core.Object]bool{}
	var all []*core.Object
	for _, v := range values {
		items, err := x.objects(name, v)
		if err != nil {
			return nil, err
		}
		for _, o := range items {
			if !seen[o] {
				seen[o] = true
				all = append(all, o)
			}
		}
	}
	return x.convert(all)
}

// IndexKeys implements toolscache.Indexer.
func (x *indexer) IndexKeys(name, value string) ([]string, error) {
	items, err := x.objects(name, value)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(items))
	for n, o := range items {
		keys[n] = o.Key()
	}
	return keys, nil
}

// ListIndexFuncValues implements toolscache.Indexer.
func (x *indexer) ListIndexFuncValues(name string) []string {
	if _, err := x.objects(name, ""); err != nil {
		return nil
	}
	x.mu.RLock()
	l := x.indexes[name]
	x.mu.RUnlock()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]string, 0, len(l.values))
	for v := range l.values {
		out = append(out, v)
	}
	return out
}

// ByIndex implements toolscache.Indexer.
func (x *indexer) ByIndex(name, value string) ([]any, error) {
	items, err := x.objects(name, value)
	if err != nil {
		return nil, err
	}
	return x.convert(items)
}

// List implements toolscache.Store.
func (x *indexer) List() []any {
	out := []any{}
	x.i.ascend("", func(o *core.Object) bool {
		if obj, err := x.i.object(o); err == nil {
			out = append(out, obj)
		}
		return true
	})
	return out
}

// ListKeys implements toolscache.Store.
func (x *indexer) ListKeys() []string {
	out := []string{}
	x.i.ascend("", func(o *core.Object) bool {
		out = append(out, o.Key())
		return true
	})
	return out
}

// Get implements toolscache.Store.
func (x *indexer) Get(obj any) (item any, exists bool, err error) {
	key, err := toolscache.MetaNamespaceKeyFunc(obj)
	if err != nil {
		return nil, false, err
	}
	return x.GetByKey(key)
}

// GetByKey implements toolscache.Store.
func (x *indexer) GetByKey(key string) (item any, exists bool, err error) {
	o := x.i.find(key)
	if o == nil {
		return nil, false, nil
	}
	item, err = x.i.object(o)
	return item, err == nil, err
}

// LastStoreSyncResourceVersion implements toolscache.Store.
func (x *indexer) LastStoreSyncResourceVersion() string {
	return strconv.FormatInt(x.i.cached.Snapshot().Revision, 10)
}

// Add, Update, Delete, Replace, Resync and Bookmark implement toolscache.Store, which is read-only here.
func (x *indexer) Add(any) error { return errReadOnly }

// Update implements toolscache.Store.
func (x *indexer) Update(any) error { return errReadOnly }

// Delete implements toolscache.Store.
func (x *indexer) Delete(any) error { return errReadOnly }

// Replace implements toolscache.Store.
func (x *indexer) Replace([]any, string) error { return errReadOnly }

// Resync implements toolscache.Store.
func (x *indexer) Resync() error { return nil }

// Bookmark implements toolscache.Store.
func (x *indexer) Bookmark(string) {}
