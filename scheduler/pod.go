package scheduler

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Pod is a pod as plugins see it.
type Pod struct {
	// Object is shared and must not be modified.
	Object *corev1.Pod
	// Requests is what the pod asks for; Scored counts containers that ask for nothing as a little (cpu and memory only).
	Requests, Scored Resources
	// HostPorts the pod wants on its node.
	HostPorts []HostPort
	Priority  int32
	// Affinity combines spec.nodeSelector and the required node affinity; nil if the pod has neither.
	Affinity *nodeaffinity.RequiredNodeAffinity
	// Preferred are the pod's preferred node affinity terms; nil if it has none, or invalid ones.
	Preferred *nodeaffinity.PreferredSchedulingTerms

	// Terms of affinity to other pods; nil if the pod has none.
	Terms *Terms
	// Spread are the pod's topology spread constraints.
	Spread []SpreadConstraint

	alone *Resources // nil: Requests and Scored
	// sig is of the profile's cached plugins, once it is known; an engine and its forks may want it at the same time.
	sig *atomic.Pointer[string]
}

// HostPort is a port of the node that a pod takes.
type HostPort struct {
	IP       string // 0.0.0.0 for all
	Protocol corev1.Protocol
	Port     int32
}

// Conflicts reports whether both cannot be on one node.
func (p HostPort) Conflicts(o HostPort) bool {
	return p.Port == o.Port && p.Protocol == o.Protocol && (p.IP == o.IP || p.IP == anyIP || o.IP == anyIP)
}

const anyIP = "0.0.0.0"

// NewPod computes what plugins need of a pod.
func NewPod(obj *corev1.Pod) *Pod {
	p := &Pod{Object: obj, HostPorts: hostPorts(&obj.Spec), Priority: corev1helpers.PodPriority(obj), sig: new(atomic.Pointer[string])}
	p.Requests, p.Scored, p.alone = requestsOf(obj)
	p.Terms, p.Spread = termsOf(obj), spreadOf(obj)
	aff := obj.Spec.Affinity
	if len(obj.Spec.NodeSelector) > 0 || aff != nil && aff.NodeAffinity != nil && aff.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		a := nodeaffinity.GetRequiredNodeAffinity(obj)
		p.Affinity = &a
	}
	if aff != nil && aff.NodeAffinity != nil && len(aff.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) > 0 {
		if t, err := nodeaffinity.NewPreferredSchedulingTerms(aff.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err == nil {
			p.Preferred = t
		}
	}
	return p
}

// ScoreRequest is how much of a resource the pod counts for when its own place is scored by what a node has left. That is without what the pod as a whole
// asks for, as in kube-scheduler; once it is on the node it counts with Scored.
func (p *Pod) ScoreRequest(name corev1.ResourceName) int64 {
	switch {
	case p.alone != nil:
		return p.alone.Of(name)
	case name == corev1.ResourceCPU:
		return p.Scored.MilliCPU
	case name == corev1.ResourceMemory:
		return p.Scored.Memory
	}
	return p.Requests.Of(name)
}

func hostPorts(spec *corev1.PodSpec) (out []HostPort) {
	take := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort <= 0 {
				continue
			}
			hp := HostPort{IP: p.HostIP, Protocol: p.Protocol, Port: p.HostPort}
			if hp.IP == "" {
				hp.IP = anyIP
			}
			if hp.Protocol == "" {
				hp.Protocol = corev1.ProtocolTCP
			}
			out = append(out, hp)
		}
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			take(c)
		}
	}
	for i := range spec.Containers {
		take(&spec.Containers[i])
	}
	return out
}

// signature is what signed was told; nil for nothing.
func (p *Pod) signature() *string {
	if p.sig == nil { // not from NewPod
		return nil
	}
	return p.sig.Load()
}

func (p *Pod) signed(sig *string) {
	if p.sig != nil && p.sig.Load() != sig {
		p.sig.Store(sig)
	}
}

func (p *Pod) key() types.UID { return p.Object.UID }

// Node is a node as plugins see it, with the pods assigned to it.
type Node struct {
	// Object is shared and must not be modified.
	Object *corev1.Node
	// Allocatable is what pods may ask for in all, Requested what those assigned ask for; Scored is Requested with the pods' Scored amounts.
	Allocatable, Requested, Scored Resources

	pods   map[types.UID]*Pod
	levels []level // by priority
	// order has the pods, the most important first; nil if it is to be made anew. Its elements never change.
	order []*Pod
	slot  int
	lent  bool // pods, levels and amounts are shared with another engine
}

// level sums up the pods of one priority on a node.
type level struct {
	priority int32
	pods     int32
	requests Resources
	most     Resources // the greatest amount of each that a pod asks for; made with the node's order
}

func cloneLevels(levels []level) []level {
	out := slices.Clone(levels)
	for i := range out {
		out[i].requests, out[i].most = out[i].requests.Clone(), out[i].most.Clone()
	}
	return out
}

// Pods calls f for each pod assigned to the node, in no order, until it returns false.
func (n *Node) Pods(f func(*Pod) bool) {
	for _, p := range n.pods {
		if !f(p) {
			return
		}
	}
}

// Index is the node's place in the columns of a View.
func (n *Node) Index() int { return n.slot }

// Len is the number of pods assigned.
func (n *Node) Len() int { return len(n.pods) }

// unshare is called before anything changes.
func (n *Node) unshare() {
	if !n.lent {
		return
	}
	n.lent = false
	n.Requested, n.Scored, n.pods = n.Requested.Clone(), n.Scored.Clone(), maps.Clone(n.pods)
	n.levels = cloneLevels(n.levels)
}

func (n *Node) put(p *Pod) {
	n.unshare()
	n.pods[p.key()] = p
	n.Requested.Add(&p.Requests, 1)
	n.Scored.Add(&p.Scored, 1)
	n.count(p, 1)
}

func (n *Node) take(p *Pod) {
	n.unshare()
	delete(n.pods, p.key())
	n.Requested.Add(&p.Requests, -1)
	n.Scored.Add(&p.Scored, -1)
	n.count(p, -1)
}

func (n *Node) count(p *Pod, sign int32) {
	n.order = nil
	i, ok := slices.BinarySearchFunc(n.levels, p.Priority, func(l level, priority int32) int { return cmp.Compare(l.priority, priority) })
	if !ok {
		n.levels = slices.Insert(n.levels, i, level{priority: p.Priority})
	}
	l := &n.levels[i]
	l.requests.Add(&p.Requests, int64(sign))
	if l.pods += sign; l.pods == 0 {
		n.levels = slices.Delete(n.levels, i, i+1)
	}
}

// lower are the pods of lower priority, the most important first, and the most that any of them asks for of each resource.
func (n *Node) lower(priority int32) (pods []*Pod, most Resources) {
	if priority == math.MinInt32 {
		return nil, most
	}
	return n.upTo(priority - 1)
}

// upTo is lower for pods of at most a priority.
func (n *Node) upTo(priority int32) (pods []*Pod, most Resources) {
	if n.order == nil {
		n.sort()
	}
	count := 0
	for i := range n.levels {
		l := &n.levels[i]
		if l.priority > priority {
			break
		}
		most.max(&l.most)
		count += int(l.pods)
	}
	return n.order[len(n.order)-count:], most
}

func (n *Node) sort() {
	n.unshare()
	n.order = make([]*Pod, 0, len(n.pods))
	for _, p := range n.pods {
		n.order = append(n.order, p)
	}
	slices.SortFunc(n.order, MoreImportant)
	last := len(n.order)
	for i := range n.levels {
		l := &n.levels[i]
		l.most = Resources{}
		for _, p := range n.order[last-int(l.pods) : last] {
			l.most.max(&p.Requests)
		}
		last -= int(l.pods)
	}
}
