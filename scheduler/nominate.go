package scheduler

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// nominations are the pods for which room is being made on a node.
type nominations struct {
	node map[types.UID]string
	pods map[string][]*Pod // by node, in the order in which they came
}

func newNominations() nominations {
	return nominations{node: map[types.UID]string{}, pods: map[string][]*Pod{}}
}

func (n nominations) clone() nominations {
	c := nominations{node: maps.Clone(n.node), pods: map[string][]*Pod{}}
	for name, pods := range n.pods {
		c.pods[name] = slices.Clone(pods)
	}
	return c
}

// Nominate notes that a pod waits for room on a node, or with "" that it doesn't any more. Other pods of no higher priority then fit on that
// node only if they fit both with and without it; the pod itself is put there as soon as it fits.
func (e *Engine) Nominate(pod *Pod, node string) {
	e.forgetNomination(pod.key())
	if node == "" {
		return
	}
	n := &e.nominations
	n.node[pod.key()] = node
	n.pods[node] = append(n.pods[node], pod)
	e.touch(node)
}

// forgetNomination reports whether the pod was nominated.
func (e *Engine) forgetNomination(uid types.UID) bool {
	n := &e.nominations
	old, ok := n.node[uid]
	if !ok {
		return false
	}
	delete(n.node, uid)
	// A new slice: somebody may be going through the old one.
	n.pods[old] = slices.DeleteFunc(slices.Clone(n.pods[old]), func(p *Pod) bool { return p.key() == uid })
	if len(n.pods[old]) == 0 {
		delete(n.pods, old)
	}
	e.touch(old)
	return true
}

func (e *Engine) touch(node string) {
	if n := e.Node(node); n != nil {
		e.log.add(n.slot, false)
	}
}

// Nominated returns the node that a pod is nominated for, "" for none.
func (e *Engine) Nominated(uid types.UID) string { return e.nominations.node[uid] }

// NominatedPods returns the pods that are nominated for a node. The slice must not be modified.
func (e *Engine) NominatedPods(node string) []*Pod { return e.nominations.pods[node] }

// rivals are the pods nominated for a node to which a pod must yield.
func (e *Engine) rivals(pod *Pod, node string) (out []*Pod) {
	for _, p := range e.nominations.pods[node] {
		if p.Priority >= pod.Priority && p.key() != pod.key() {
			out = append(out, p)
		}
	}
	return out
}

// Nominated returns the node that a pod is nominated for, nil for none.
func (v *View) Nominated(pod *Pod) *Node { return v.engine.Node(v.engine.Nominated(pod.key())) }

// NominatedPods returns the pods that are nominated for a node. The slice must not be modified.
func (v *View) NominatedPods(node string) []*Pod { return v.engine.NominatedPods(node) }
