package cowtree

import "slices"

// Editor makes a new tree out of an old one. It copies each node it touches once. It is for
// one goroutine.
type Editor[V any] struct {
	root  *node[V]
	token *token
}

// Edit returns an editor that starts from t.
func (t Tree[V]) Edit() *Editor[V] { return &Editor[V]{root: t.root, token: new(token)} }

// Tree returns what has been made so far; later edits do not change it.
func (e *Editor[V]) Tree() Tree[V] {
	e.token = new(token)
	return Tree[V]{root: e.root}
}

// Get returns the value of key in the tree as edited so far.
func (e *Editor[V]) Get(key string) (V, bool) { return Tree[V]{root: e.root}.Get(key) }

// Set puts a pair and reports whether the key is new.
func (e *Editor[V]) Set(key string, v V) (added bool) {
	if e.root == nil {
		e.root = &node[V]{owner: e.token, keysOwner: e.token, count: 1, keys: []string{key}, vals: []V{v}}
		return true
	}
	left, right, added := e.set(e.root, key, v)
	if right != nil {
		left = &node[V]{
			owner: e.token, keysOwner: e.token, count: left.count + right.count,
			keys: []string{left.keys[0], right.keys[0]}, kids: []*node[V]{left, right},
		}
	}
	e.root = left
	return added
}

func (e *Editor[V]) set(n *node[V], key string, v V) (left, right *node[V], added bool) {
	n = e.own(n)
	if n.kids == nil {
		i, found := n.find(key)
		if found {
			n.vals[i] = v
			return n, nil, false
		}
		e.ownKeys(n)
		n.keys = slices.Insert(n.keys, i, key)
		n.vals = slices.Insert(n.vals, i, v)
		n.count++
		if len(n.keys) <= maxLen {
			return n, nil, true
		}
		at := len(n.keys) / 2
		if i == len(n.keys)-1 {
			at = i // ascending inserts leave full leaves behind
		}
		right = &node[V]{
			owner: e.token, keysOwner: e.token, count: len(n.keys) - at,
			keys: slices.Clone(n.keys[at:]), vals: slices.Clone(n.vals[at:]),
		}
		clear(n.keys[at:])
		clear(n.vals[at:])
		n.keys, n.vals, n.count = n.keys[:at], n.vals[:at], at
		return n, right, true
	}
	i := n.child(key)
	kid, split, added := e.set(n.kids[i], key, v)
	n.kids[i] = kid
	if added {
		n.count++
	}
	if split == nil {
		return n, nil, added
	}
	e.ownKeys(n)
	n.keys = slices.Insert(n.keys, i+1, split.keys[0])
	n.kids = slices.Insert(n.kids, i+1, split)
	if len(n.kids) <= maxLen {
		return n, nil, added
	}
	at := len(n.kids) / 2
	if i+1 == len(n.kids)-1 {
		at = i + 1
	}
	right = &node[V]{owner: e.token, keysOwner: e.token, keys: slices.Clone(n.keys[at:]), kids: slices.Clone(n.kids[at:])}
	for _, k := range right.kids {
		right.count += k.count
	}
	clear(n.keys[at:])
	clear(n.kids[at:])
	n.keys, n.kids, n.count = n.keys[:at], n.kids[:at], n.count-right.count
	return n, right, added
}

// Delete removes a key and reports whether it was there.
func (e *Editor[V]) Delete(key string) bool {
	if _, ok := e.Get(key); !ok {
		return false
	}
	e.root = e.delete(e.root, key)
	for len(e.root.kids) == 1 {
		e.root = e.root.kids[0]
	}
	if e.root.count == 0 {
		e.root = nil
	}
	return true
}

// delete removes a key that is there.
func (e *Editor[V]) delete(n *node[V], key string) *node[V] {
	n = e.own(n)
	n.count--
	if n.kids == nil {
		i, _ := n.find(key)
		e.ownKeys(n)
		n.keys = slices.Delete(n.keys, i, i+1)
		n.vals = slices.Delete(n.vals, i, i+1)
		return n
	}
	i := n.child(key)
	kid := e.delete(n.kids[i], key)
	n.kids[i] = kid
	switch {
	case kid.count == 0:
		e.ownKeys(n)
		n.keys = slices.Delete(n.keys, i, i+1)
		n.kids = slices.Delete(n.kids, i, i+1)
	case len(kid.keys) < maxLen/4:
		if i+1 < len(n.kids) {
			e.merge(n, i)
		}
		if i > 0 {
			e.merge(n, i-1)
		}
	}
	return n
}

// merge joins children i and i+1 of n if they fit well into one node.
func (e *Editor[V]) merge(n *node[V], i int) {
	right := n.kids[i+1]
	if len(n.kids[i].keys)+len(right.keys) > maxLen*3/4 {
		return
	}
	left := e.own(n.kids[i])
	e.ownKeys(left)
	e.ownKeys(n)
	n.kids[i] = left
	left.count += right.count
	from := len(left.keys)
	left.keys = append(left.keys, right.keys...)
	if right.kids == nil {
		left.vals = append(left.vals, right.vals...)
	} else {
		left.keys[from] = n.keys[i+1] // the bound that held for the right node
		left.kids = append(left.kids, right.kids...)
	}
	n.keys = slices.Delete(n.keys, i+1, i+2)
	n.kids = slices.Delete(n.kids, i+1, i+2)
}

// own returns n if the editor made it, or a copy whose values or children the editor may modify.
func (e *Editor[V]) own(n *node[V]) *node[V] {
	if n.owner == e.token {
		return n
	}
	c := &node[V]{owner: e.token, keysOwner: n.keysOwner, count: n.count, keys: n.keys}
	if n.kids == nil {
		c.vals = slices.Clone(n.vals)
	} else {
		c.kids = slices.Clone(n.kids)
	}
	return c
}

// ownKeys makes the keys of an owned node modifiable.
func (e *Editor[V]) ownKeys(n *node[V]) {
	if n.keysOwner != e.token {
		keys := make([]string, len(n.keys), len(n.keys)+1)
		copy(keys, n.keys)
		n.keys, n.keysOwner = keys, e.token
	}
}
