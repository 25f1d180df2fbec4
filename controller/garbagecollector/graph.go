package garbagecollector

import (
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// identity is where an object is, or is said to be by who refers to it.
type identity struct {
	kind      schema.GroupVersionKind
	namespace string
	name      string
	uid       types.UID
}

// String is Kubernetes' way to write a reference in messages.
func (i identity) String() string {
	return fmt.Sprintf("[%s/%s, namespace: %s, name: %s, uid: %s]", i.kind.GroupVersion(), i.kind.Kind, i.namespace, i.name, i.uid)
}

func (i identity) sameObject(o identity) bool {
	return i.uid == o.uid && i.name == o.name && i.kind.GroupKind() == o.kind.GroupKind() && (i.namespace == o.namespace)
}

// node is an object in the graph. A virtual one is known only from references.
type node struct {
	identity
	version    string
	owners     []metav1.OwnerReference
	dependents map[types.UID]*node
	virtual    bool
	deleting   bool
	foreground bool // deleting, and waiting for its dependents
	orphaning  bool // deleting, and to leave its dependents
}

// snapshot is a node's state at one moment, safe to read without the lock.
type snapshot struct {
	identity
	version                                  string
	owners                                   []metav1.OwnerReference
	virtual, deleting, foreground, orphaning bool
	dependents                               []dependent
}

type dependent struct {
	identity
	blocks     bool // its reference blocks the owner's deletion
	foreground bool
}

// graph holds all nodes by uid. enqueue is called with the lock held and must
// not call back.
type graph struct {
	mu      sync.Mutex
	nodes   map[types.UID]*node
	enqueue func(types.UID)
	// misplaced is told of references that no object of the owner's uid fits.
	misplaced func(child identity, ref metav1.OwnerReference)
}

func newGraph(enqueue func(types.UID), misplaced func(identity, metav1.OwnerReference)) *graph {
	return &graph{nodes: map[types.UID]*node{}, enqueue: enqueue, misplaced: misplaced}
}

func referred(ref metav1.OwnerReference, namespace string) identity {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		gv = schema.GroupVersion{Version: ref.APIVersion}
	}
	return identity{kind: gv.WithKind(ref.Kind), namespace: namespace, name: ref.Name, uid: ref.UID}
}

// observe takes in an object as an informer shows it.
func (g *graph) observe(kind schema.GroupVersionKind, o client.Object) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id := identity{kind: kind, namespace: o.GetNamespace(), name: o.GetName(), uid: o.GetUID()}
	n := g.nodes[id.uid]
	if n == nil {
		n = &node{identity: id}
		g.nodes[id.uid] = n
	} else if n.virtual {
		g.materialize(n, id)
	}
	n.virtual = false
	n.version = o.GetResourceVersion()
	g.setOwners(n, o.GetOwnerReferences())

	wasForeground, wasOrphaning, wasDeleting := n.foreground, n.orphaning, n.deleting
	n.deleting = o.GetDeletionTimestamp() != nil
	n.foreground = n.deleting && slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents)
	n.orphaning = n.deleting && slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents)
	if n.orphaning && !wasOrphaning {
		g.enqueue(n.uid)
	}
	if n.foreground && !wasForeground {
		g.enqueue(n.uid)
		g.enqueueDependents(n)
		// An owner in foreground deletion may wait for this one only to begin.
		g.enqueueForegroundOwners(n)
	}
	if !n.deleting && !wasDeleting && len(n.owners) > 0 && g.suspicious(n) {
		g.enqueue(n.uid)
	}
}

// suspicious says whether an owner is known to be absent or going away, so that
// the node must be looked at. A virtual owner is verified first, once for all
// its dependents.
func (g *graph) suspicious(n *node) bool {
	for _, ref := range n.owners {
		o := g.nodes[ref.UID]
		if o == nil || o.foreground || !g.fits(o, ref, n) {
			return true
		}
	}
	return false
}

// fits says whether an owner is what a reference says it is: of that kind and
// name, and in the child's namespace or in none.
func (g *graph) fits(owner *node, ref metav1.OwnerReference, child *node) bool {
	r := referred(ref, child.namespace)
	return r.name == owner.name && r.kind.GroupKind() == owner.kind.GroupKind() && (owner.namespace == "" || owner.namespace == child.namespace)
}

// materialize gives a virtual node the place its object turned out to have.
func (g *graph) materialize(n *node, id identity) {
	if n.sameObject(id) {
		n.identity = id
		return
	}
	n.identity = id
	for _, d := range n.dependents {
		for _, ref := range d.owners {
			if ref.UID == n.uid && !g.fits(n, ref, d) {
				g.enqueue(d.uid)
				if n.namespace != "" && n.namespace != d.namespace {
					g.misplaced(d.identity, ref)
				}
			}
		}
	}
}

func (g *graph) setOwners(n *node, owners []metav1.OwnerReference) {
	if equality.Semantic.DeepEqual(n.owners, owners) {
		return
	}
	was := n.owners
	n.owners = slices.Clone(owners)
	now := map[types.UID]bool{}
	for _, ref := range owners {
		now[ref.UID] = true
		owner := g.nodes[ref.UID]
		if owner == nil {
			owner = &node{identity: referred(ref, n.namespace), virtual: true}
			g.nodes[ref.UID] = owner
			g.enqueue(owner.uid)
		} else if !g.fits(owner, ref, n) {
			g.enqueue(n.uid)
			if !owner.virtual && owner.namespace != "" && owner.namespace != n.namespace {
				g.misplaced(n.identity, ref)
			}
		}
		if owner.dependents == nil {
			owner.dependents = map[types.UID]*node{}
		}
		owner.dependents[n.uid] = n
	}
	for _, ref := range was {
		owner := g.nodes[ref.UID]
		if owner == nil {
			continue
		}
		if !now[ref.UID] {
			delete(owner.dependents, n.uid)
		}
		if owner.foreground {
			g.enqueue(owner.uid) // it may be blocked no more
		}
	}
}

// remove takes an object out. Its dependents remain, and are looked at.
func (g *graph) remove(uid types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return
	}
	delete(g.nodes, uid)
	for _, ref := range n.owners {
		if owner := g.nodes[ref.UID]; owner != nil {
			delete(owner.dependents, uid)
			if owner.foreground {
				g.enqueue(owner.uid)
			}
			if owner.virtual && len(owner.dependents) == 0 {
				delete(g.nodes, owner.uid)
			}
		}
	}
	g.enqueueDependents(n)
}

func (g *graph) enqueueDependents(n *node) {
	for uid := range n.dependents {
		g.enqueue(uid)
	}
}

func (g *graph) enqueueForegroundOwners(n *node) {
	for _, ref := range n.owners {
		if o := g.nodes[ref.UID]; o != nil && o.foreground {
			g.enqueue(o.uid)
		}
	}
}

// get returns a node's state, or false.
func (g *graph) get(uid types.UID) (snapshot, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return snapshot{}, false
	}
	s := snapshot{
		identity: n.identity, version: n.version, owners: n.owners,
		virtual: n.virtual, deleting: n.deleting, foreground: n.foreground, orphaning: n.orphaning,
	}
	for _, d := range n.dependents {
		dep := dependent{identity: d.identity, foreground: d.foreground}
		for _, ref := range d.owners {
			if ref.UID == uid && ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion {
				dep.blocks = true
			}
		}
		s.dependents = append(s.dependents, dep)
	}
	return s, true
}

// ofKind returns the uids of all nodes of a kind that were observed.
func (g *graph) ofKind(k schema.GroupKind) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []types.UID
	for uid, n := range g.nodes {
		if !n.virtual && n.kind.GroupKind() == k {
			out = append(out, uid)
		}
	}
	return out
}

func (g *graph) size() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.nodes)
}
