package plugins

import (
	"fmt"
	"slices"

	"github.com/keelson/keelson/scheduler"
)

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
