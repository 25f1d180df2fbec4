package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// EngineOptions configure NewEngine.
type EngineOptions struct {
	// Profile decides for all pods. plugins.Default() is Kubernetes' own.
	Profile Profile
	// Profiles decide instead of Profile, each for the pods that name it. Pods that name none of them fit nowhere.
	Profiles []NamedProfile
	// Seed of the choice between nodes of the same score. Default 1.
	Seed uint64
	// AnswerBytes bounds the memory for what plugins said of pods before, in bytes for each node. Default 4096, which is enough for some hundred kinds of pods, by what plugins sign;
	// of more, those are kept that are decided for most often, and for a pod of another kind all nodes are looked at.
	AnswerBytes int
}

// Engine holds a cluster's state and decides where pods go. Not safe for concurrent use.
type Engine struct {
	profiles []*profile
	opts     EngineOptions
	rand     *rand.Rand
	source   *rand.PCG // of rand

	nodes []*Node  // by slot; nil for a free one
	names []string // by slot: the last node's there; shared with NodeSets
	free  []int
	slots shared[string, int] // by name
	count int
	// homeless are pods assigned to nodes that are not known (yet).
	pods     shared[types.UID, assigned]
	homeless map[string]map[types.UID]*Pod
	// priorities counts the assigned pods of each.
	priorities map[int32]int

	nominations nominations
	rooms       roomCache
	sumsAge     int // how often sums were forgotten

	view    *View
	log     changeLog
	cache   *answerCache
	scratch []byte
	ballot  ballot
	judged  []judged
	probe   probe
}

type assigned struct {
	pod  *Pod
	node string
}

// NewEngine returns an engine without nodes.
func NewEngine(opts EngineOptions) (*Engine, error) {
	profiles, err := newProfiles(opts.Profile, opts.Profiles)
	if err != nil {
		return nil, err
	}
	opts.Seed = cmp.Or(opts.Seed, 1)
	if opts.AnswerBytes < 0 {
		return nil, fmt.Errorf("scheduler: EngineOptions.AnswerBytes %d: want 0, for the default, or more", opts.AnswerBytes)
	}
	opts.AnswerBytes = cmp.Or(opts.AnswerBytes, 4096)
	source := rand.NewPCG(opts.Seed, 0)
	e := &Engine{
		profiles: profiles, opts: opts, rand: rand.New(source), source: source,
		homeless: map[string]map[types.UID]*Pod{}, priorities: map[int32]int{}, cache: newAnswerCache(),
		nominations: newNominations(), rooms: roomCache{byTop: map[int32]*rooms{}}, view: newView(),
	}
	e.view.engine = e
	return e, nil
}

// Nodes is the number of nodes.
func (e *Engine) Nodes() int { return e.count }

// Node returns a node by name, nil if there is none. It must not be modified and is valid until the engine is told of a change.
func (e *Engine) Node(name string) *Node {
	if slot, ok := e.slots.get(name); ok {
		return e.nodes[slot]
	}
	return nil
}

// Assigned returns the name of the node a pod is assigned to, "" for none.
func (e *Engine) Assigned(uid types.UID) string { return e.pods.of(uid).node }

// SetNode adds or replaces a node and returns the change, for Hinters.
func (e *Engine) SetNode(obj *corev1.Node) ClusterChange {
	n := e.Node(obj.Name)
	if n == nil {
		n = &Node{pods: map[types.UID]*Pod{}}
		if k := len(e.free); k > 0 {
			n.slot, e.free = e.free[k-1], e.free[:k-1]
			e.nodes[n.slot], e.names = n, slices.Clone(e.names)
			e.names[n.slot] = obj.Name
		} else {
			n.slot = len(e.nodes)
			e.nodes, e.names = append(e.nodes, n), append(e.names, obj.Name)
		}
		e.slots.set(obj.Name, n.slot)
		e.count++
		n.Object, n.Allocatable = obj, ResourcesOf(obj.Status.Allocatable)
		e.view.nodeSet(e.nodes, n.slot, n)
		for _, p := range e.homeless[obj.Name] {
			n.put(p)
			e.view.put(p, n.slot, 1)
		}
		delete(e.homeless, obj.Name)
		e.log.add(n.slot, true)
		return ClusterChange{Node: n}
	}
	old := &Node{Object: n.Object, Allocatable: n.Allocatable, Requested: n.Requested, Scored: n.Scored, pods: n.pods, slot: n.slot}
	n.Object, n.Allocatable = obj, ResourcesOf(obj.Status.Allocatable)
	e.view.nodeSet(e.nodes, n.slot, n)
	e.log.add(n.slot, true)
	return ClusterChange{Node: n, OldNode: old, Parted: e.view.parted(old.Object, obj)}
}

// DeleteNode removes a node and returns the change, for Hinters. Pods assigned to it are remembered, for it may come back.
func (e *Engine) DeleteNode(name string) ClusterChange {
	n := e.Node(name)
	if n == nil {
		return ClusterChange{}
	}
	if len(n.pods) > 0 {
		n.unshare()
		for _, p := range n.pods {
			e.view.put(p, n.slot, -1)
		}
		e.homeless[name] = n.pods
	}
	e.slots.delete(name)
	e.nodes[n.slot] = nil
	e.free = append(e.free, n.slot)
	e.count--
	e.view.nodeSet(e.nodes, n.slot, nil)
	e.log.add(n.slot, true)
	return ClusterChange{OldNode: n}
}

// Assign puts a pod on a node, or moves or changes one that is assigned already. The node need not exist.
func (e *Engine) Assign(pod *Pod, node string) {
	e.Remove(pod.key())
	e.forgetNomination(pod.key())
	e.pods.set(pod.key(), assigned{pod, node})
	e.priorities[pod.Priority]++
	e.seat(pod, 1)
	if n := e.Node(node); n != nil {
		n.put(pod)
		e.view.put(pod, n.slot, 1)
		e.log.add(n.slot, false)
		return
	}
	if e.homeless[node] == nil {
		e.homeless[node] = map[types.UID]*Pod{}
	}
	e.homeless[node][pod.key()] = pod
}

// refreshed replaces the object of an assigned pod, of which nothing changed that placements depend on.
func (e *Engine) refreshed(obj *corev1.Pod) {
	a, ok := e.pods.get(obj.UID)
	if !ok {
		return
	}
	pod, before := *a.pod, a.pod.Started()
	pod.Object = obj
	a.pod = &pod
	e.pods.set(obj.UID, a)
	if n := e.Node(a.node); n != nil {
		n.unshare()
		n.pods[obj.UID], n.order = &pod, nil
		if !pod.Started().Equal(before) {
			e.log.add(n.slot, false) // who started last is preempted first
		}
	} else if h := e.homeless[a.node]; h != nil {
		h[obj.UID] = &pod
	}
}

// Remove takes a pod off its node and returns it, nil if it was on none.
func (e *Engine) Remove(uid types.UID) *Pod {
	a, ok := e.pods.get(uid)
	if !ok {
		return nil
	}
	e.pods.delete(uid)
	if e.priorities[a.pod.Priority]--; e.priorities[a.pod.Priority] == 0 {
		delete(e.priorities, a.pod.Priority)
	}
	e.seat(a.pod, -1)
	if n := e.Node(a.node); n != nil {
		n.take(a.pod)
		e.view.put(a.pod, n.slot, -1)
		e.log.add(n.slot, false)
	} else if h := e.homeless[a.node]; h != nil {
		if delete(h, uid); len(h) == 0 {
			delete(e.homeless, a.node)
		}
	}
	return a.pod
}

// Fork returns an engine with the same state that then goes its own way, for what-if questions: asked the same, both decide the same, but for the choice between nodes of the
// same score. Neither sees what the other is told from then on, and one goroutine may use the one while another uses the other, with the same Pods, too. It takes
// little more than a copy of the list of nodes: what pods there are is shared until it changes.
func (e *Engine) Fork() *Engine {
	f, err := NewEngine(e.opts)
	if err != nil {
		return nil // e was made from the same options
	}
	own := make([]Node, 0, len(e.nodes))
	f.nodes = make([]*Node, len(e.nodes))
	for i, n := range e.nodes {
		if n != nil {
			n.lent = true
			own = append(own, *n)
			f.nodes[i] = &own[len(own)-1]
		}
	}
	e.names = slices.Clip(e.names)
	f.names = e.names
	f.free, f.count = slices.Clone(e.free), e.count
	f.slots, f.pods, f.priorities = e.slots.fork(), e.pods.fork(), maps.Clone(e.priorities)
	for name, pods := range e.homeless {
		f.homeless[name] = maps.Clone(pods)
	}
	*f.source = *e.source
	f.view = e.view.fork(f)
	f.nominations = e.nominations.clone()
	return f
}
