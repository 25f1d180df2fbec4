package plugins

import (
	"fmt"
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// NodeResourcesFit rejects nodes without room for a pod's requests and prefers those with more left (LeastAllocated).
type NodeResourcesFit struct{}

// Name implements scheduler.Plugin.
func (NodeResourcesFit) Name() string { return "NodeResourcesFit" }

// Scope implements scheduler.Scoped.
func (NodeResourcesFit) Scope() scheduler.Scope { return scheduler.ScopeNodePods }

// Sign implements scheduler.Signer.
func (NodeResourcesFit) Sign(pod *scheduler.Pod, to []byte) []byte {
	return appendResources(appendResources(to, pod.Requests), pod.Scored)
}

// Filter implements scheduler.FilterPlugin.
func (NodeResourcesFit) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	var short []string
	never := false
	if int64(node.Len())+1 > node.Allocatable[corev1.ResourcePods] {
		short = append(short, "Too many pods")
	}
	for name, want := range pod.Requests {
		if want > node.Allocatable[name]-node.Requested[name] {
			short = append(short, fmt.Sprintf("Insufficient %s", name))
			never = never || want > node.Allocatable[name]
		}
	}
	if len(short) == 0 {
		return nil
	}
	slices.Sort(short)
	return &scheduler.Rejection{Reasons: short, Unresolvable: never}
}

// Score is the free part of cpu and memory once the pod is there, in percent, averaged.
func (NodeResourcesFit) Score(pod *scheduler.Pod, node *scheduler.Node) int64 {
	var sum, n int64
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		total := node.Allocatable[name]
		if total == 0 {
			continue
		}
		n++
		if used := node.Scored[name] + pod.Scored[name]; used <= total {
			sum += (total - used) * scheduler.MaxScore / total
		}
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

// Hint implements scheduler.Hinter.
func (p NodeResourcesFit) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	switch {
	case c.Node != nil:
		if c.OldNode != nil && maps.Equal(c.Node.Allocatable, c.OldNode.Allocatable) {
			return false
		}
		return p.Filter(pod, c.Node) == nil
	case c.FreedPod != nil:
		return true
	}
	return false
}

// NodeResourcesBalancedAllocation prefers nodes whose cpu and memory would be used to similar degrees.
type NodeResourcesBalancedAllocation struct{}

// Name implements scheduler.Plugin.
func (NodeResourcesBalancedAllocation) Name() string { return "NodeResourcesBalancedAllocation" }

// Scope implements scheduler.Scoped.
func (NodeResourcesBalancedAllocation) Scope() scheduler.Scope { return scheduler.ScopeNodePods }

// Sign implements scheduler.Signer.
func (NodeResourcesBalancedAllocation) Sign(pod *scheduler.Pod, to []byte) []byte {
	return appendResources(to, pod.Requests)
}

// Score is 100 less the spread (half the difference, which is the standard deviation of two) of the used parts. Pods that ask for nothing don't care.
func (NodeResourcesBalancedAllocation) Score(pod *scheduler.Pod, node *scheduler.Node) int64 {
	if pod.Requests[corev1.ResourceCPU] == 0 && pod.Requests[corev1.ResourceMemory] == 0 {
		return 0
	}
	part := func(name corev1.ResourceName) (float64, bool) {
		total := node.Allocatable[name]
		if total == 0 {
			return 0, false
		}
		return min(float64(node.Requested[name]+pod.Requests[name])/float64(total), 1), true
	}
	cpu, okCPU := part(corev1.ResourceCPU)
	mem, okMem := part(corev1.ResourceMemory)
	if !okCPU || !okMem {
		return scheduler.MaxScore
	}
	return int64((1 - math.Abs(cpu-mem)/2) * scheduler.MaxScore)
}

// NodePorts rejects nodes on which a host port that the pod wants is taken.
type NodePorts struct{}

// Name implements scheduler.Plugin.
func (NodePorts) Name() string { return "NodePorts" }

// Scope implements scheduler.Scoped.
func (NodePorts) Scope() scheduler.Scope { return scheduler.ScopeNodePods }

// Sign implements scheduler.Signer.
func (NodePorts) Sign(pod *scheduler.Pod, to []byte) []byte {
	for _, p := range pod.HostPorts {
		to = appendStrings(to, p.IP, string(p.Protocol), fmt.Sprint(p.Port))
	}
	return to
}

// Filter implements scheduler.FilterPlugin.
func (NodePorts) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	if len(pod.HostPorts) == 0 {
		return nil
	}
	taken := false
	node.Pods(func(other *scheduler.Pod) bool {
		taken = conflict(pod, other)
		return !taken
	})
	if taken {
		return scheduler.RejectFull("node(s) didn't have free ports for the requested pod ports")
	}
	return nil
}

func conflict(a, b *scheduler.Pod) bool {
	for _, p := range a.HostPorts {
		if slices.ContainsFunc(b.HostPorts, p.Conflicts) {
			return true
		}
	}
	return false
}

// Hint implements scheduler.Hinter.
func (p NodePorts) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	switch {
	case c.Node != nil:
		return c.OldNode == nil && p.Filter(pod, c.Node) == nil
	case c.FreedPod != nil:
		return conflict(pod, c.FreedPod)
	}
	return false
}
