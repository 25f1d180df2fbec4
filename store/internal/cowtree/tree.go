package cowtree

// maxLen bounds the keys of a leaf and the children of an inner node. Small nodes make
// copying a path cheap, large ones make the tree flat; 32 is best for both at 10^5 keys.
const maxLen = 32

// usualLen is what nodes of keys that came in random order rarely exceed.
const usualLen = 24

type node[V any] struct {
	// owner is the editor that may modify the node in place, nil once it is published.
	owner *token
	maker *Maker
	*keyset
	count int
	vals  []V
	kids  []*node[V]
}

type token struct{ _ byte }

// Maker tells the trees of one series from others that share nodes with them.
type Maker struct{ _ byte }

// Tree is an immutable ordered map. The zero value is empty.
type Tree[V any] struct{ root *node[V] }

// Len returns the number of pairs.
func (t Tree[V]) Len() int {
	if t.root == nil {
		return 0
	}
	return t.root.count
}

// Get returns the value of key.
func (t Tree[V]) Get(key string) (v V, ok bool) {
	p, _ := t.Find(key)
	if p == nil {
		return v, false
	}
	return *p, true
}

// Find returns where the value of key is in the tree, nil if it is not there, and who has made the node that it
// is in. A maker that knows that nobody else has the node may change the value there, in all trees at once that have
// the node; see EditAs.
func (t Tree[V]) Find(key string) (*V, *Maker) {
	n := t.root
	if n == nil {
		return nil, nil
	}
	for n.kids != nil {
		n = n.kids[n.child(key)]
	}
	i, found := n.exact(key)
	if !found {
		return nil, nil
	}
	return &n.vals[i], n.maker
}

// Rank returns the number of keys lower than key.
func (t Tree[V]) Rank(key string) int {
	n := t.root
	if n == nil {
		return 0
	}
	rank := 0
	for n.kids != nil {
		i := n.child(key)
		for _, k := range n.kids[:i] {
			rank += k.count
		}
		n = n.kids[i]
	}
	i, _ := n.find(key)
	return rank + i
}

// Ascend calls visit for every pair whose key is at least from, in order, until it returns false. It gets where the
// value is in the tree.
func (t Tree[V]) Ascend(from string, visit func(key string, v *V) bool) {
	if t.root != nil {
		t.root.ascend(from, visit)
	}
}

func (n *node[V]) ascend(from string, visit func(string, *V) bool) bool {
	if n.kids == nil {
		i := 0
		if from != "" {
			i, _ = n.find(from)
		}
		for ; i < len(n.keys); i++ {
			if !visit(n.keys[i], &n.vals[i]) {
				return false
			}
		}
		return true
	}
	i := 0
	if from != "" {
		i = n.child(from)
	}
	for ; i < len(n.kids); i++ {
		if !n.kids[i].ascend(from, visit) {
			return false
		}
		from = ""
	}
	return true
}
