package cowtree

import "slices"

// Editor makes a new tree out of an old one. It copies each node it touches once. It is for
// one goroutine.
type Editor[V any] struct {
	root  *node[V]
	token *token
	maker *Maker
	load  func(*V) V // how to read a value that may be changed meanwhile; nil is plainly

	// Where the key that Get was last called with is: Set often follows.
	found bool
	key   string
	depth int
	path  [maxDepth]uint8
}

// maxDepth is deeper than a tree in memory can be.
const maxDepth = 16

// Edit returns an editor that starts from t.
func (t Tree[V]) Edit() *Editor[V] { return &Editor[V]{root: t.root, token: new(token)} }

// EditAs is Edit for one who changes values in nodes that it has made without an editor: nodes that this
// editor makes are the maker's. Whoever does that sees to it that others read such values in a way that bears it.
func (t Tree[V]) EditAs(m *Maker) *Editor[V] {
	return &Editor[V]{root: t.root, token: new(token), maker: m}
}

// EditShared is Edit while values of t may be changed by their maker: they are read with load.
func (t Tree[V]) EditShared(load func(*V) V) *Editor[V] {
	return &Editor[V]{root: t.root, token: new(token), load: load}
}

// Tree returns what has been made so far; later edits do not change it.
func (e *Editor[V]) Tree() Tree[V] {
	e.token = new(token)
	return Tree[V]{root: e.root}
}

// Get returns the value of key in the tree as edited so far.
func (e *Editor[V]) Get(key string) (v V, ok bool) {
	e.found, e.key, e.depth = false, key, 0
	n := e.root
	if n == nil {
		return v, false
	}
	for n.kids != nil {
		i := n.child(key)
		e.path[e.depth] = uint8(i)
		e.depth++
		n = n.kids[i]
	}
	i, found := n.exact(key)
	if !found {
		return v, false
	}
	e.path[e.depth], e.found = uint8(i), true
	return n.vals[i], true
}

// Set puts a pair and reports whether the key is new.
func (e *Editor[V]) Set(key string, v V) (added bool) {
	if e.found && e.key == key {
		e.replace(v)
		return false
	}
	e.found = false
	if e.root == nil {
		n := e.newNode(true, 1)
		n.keyset, n.count, n.vals = newKeyset(e.token, []string{key}, false), 1, append(n.vals, v)
		e.root = n
		return true
	}
	left, right, added := e.set(e.root, key, v)
	if right != nil {
		n := e.newNode(false, 2)
		n.keyset, n.count = newKeyset(e.token, []string{left.keys[0], right.keys[0]}, true), left.count+right.count
		n.kids = append(n.kids, left, right)
		left = n
	}
	e.root = left
	return added
}

// replace puts v where Get has found something.
func (e *Editor[V]) replace(v V) {
	n := e.own(e.root)
	e.root = n
	for d := range e.depth {
		i := e.path[d]
		kid := e.own(n.kids[i])
		n.kids[i] = kid
		n = kid
	}
	n.vals[e.path[e.depth]] = v
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
			n.index(false)
			return n, nil, true
		}
		at := len(n.keys) / 2
		if i == len(n.keys)-1 {
			at = i // ascending inserts leave full leaves behind
		}
		right = e.newNode(true, len(n.keys)-at)
		right.keyset, right.count = newKeyset(e.token, slices.Clone(n.keys[at:]), false), len(n.keys)-at
		right.vals = append(right.vals, n.vals[at:]...)
		clear(n.keys[at:])
		clear(n.vals[at:])
		n.keys, n.vals, n.count = n.keys[:at], n.vals[:at], at
		n.index(false)
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
		n.index(true)
		return n, nil, added
	}
	at := len(n.kids) / 2
	if i+1 == len(n.kids)-1 {
		at = i + 1
	}
	right = e.newNode(false, len(n.keys)-at)
	right.keyset, right.kids = newKeyset(e.token, slices.Clone(n.keys[at:]), true), append(right.kids, n.kids[at:]...)
	for _, k := range right.kids {
		right.count += k.count
	}
	clear(n.keys[at:])
	clear(n.kids[at:])
	n.keys, n.kids, n.count = n.keys[:at], n.kids[:at], n.count-right.count
	n.index(true)
	return n, right, added
}

// Delete removes a key and reports whether it was there.
func (e *Editor[V]) Delete(key string) bool {
	if _, ok := e.Get(key); !ok {
		return false
	}
	e.found = false
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
		n.index(false)
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
		n.index(true)
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
		left.vals = e.appendVals(left.vals, right.vals)
	} else {
		left.keys[from] = n.keys[i+1] // the bound that held for the right node
		left.kids = append(left.kids, right.kids...)
	}
	left.index(left.kids != nil)
	n.keys = slices.Delete(n.keys, i+1, i+2)
	n.kids = slices.Delete(n.kids, i+1, i+2)
	n.index(true)
}

// own returns n if the editor made it, or a copy whose values or children the editor may modify.
func (e *Editor[V]) own(n *node[V]) *node[V] {
	if n.owner == e.token {
		return n
	}
	c := e.newNode(n.kids == nil, len(n.keys))
	c.keyset, c.count = n.keyset, n.count
	if n.kids == nil {
		c.vals = e.appendVals(c.vals, n.vals)
	} else {
		c.kids = append(c.kids, n.kids...)
	}
	return c
}

// appendVals appends values of a node that is not the editor's.
func (e *Editor[V]) appendVals(to, from []V) []V {
	if e.load == nil {
		return append(to, from...)
	}
	for i := range from {
		to = append(to, e.load(&from[i]))
	}
	return to
}

// newNode returns a node with room for n values or children and perhaps more, in one piece of memory.
func (e *Editor[V]) newNode(leaf bool, n int) *node[V] {
	var c *node[V]
	switch {
	case leaf && n <= usualLen:
		c = roomy[V, [usualLen]V](func(c *node[V], room *[usualLen]V) { c.vals = room[:0] })
	case leaf:
		c = roomy[V, [maxLen + 1]V](func(c *node[V], room *[maxLen + 1]V) { c.vals = room[:0] })
	case n <= usualLen:
		c = roomy[V, [usualLen]*node[V]](func(c *node[V], room *[usualLen]*node[V]) { c.kids = room[:0] })
	default:
		c = roomy[V, [maxLen + 1]*node[V]](func(c *node[V], room *[maxLen + 1]*node[V]) { c.kids = room[:0] })
	}
	c.owner, c.maker = e.token, e.maker
	return c
}

// roomy allocates a node together with room.
func roomy[V, R any](use func(*node[V], *R)) *node[V] {
	c := &struct {
		node[V]
		room R
	}{}
	use(&c.node, &c.room)
	return &c.node
}

// ownKeys makes the keys of an owned node modifiable.
func (e *Editor[V]) ownKeys(n *node[V]) {
	if n.keysOwner != e.token {
		n.keyset = n.clone(e.token)
	}
}
