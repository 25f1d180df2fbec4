package adapter

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/keelson/keelson/scheduler"
)

// What plugins that make room, such as those for capacity, ask their handle in PostFilter: would the pod fit on a node with fewer pods?

// RunFilterPluginsWithNominatedPods asks all of the profile's filters, Keelson's own included, about a node as the plugin has changed a snapshot of it: pods may have been
// taken off. They are asked from the beginning, so that what PreFilterExtensions would prepare is not needed.
func (h handle) RunFilterPluginsWithNominatedPods(_ context.Context, _ fwk.CycleState, p *corev1.Pod, info fwk.NodeInfo) *fwk.Status {
	view := h.f.current()
	if view == nil {
		return fwk.AsStatus(errNoDecision)
	}
	node := view.Node(info.Node().Name)
	if node == nil {
		return fwk.AsStatus(fmt.Errorf("nodeinfo not found for node name %q", info.Node().Name))
	}
	left := map[types.UID]bool{}
	for _, there := range info.GetPods() {
		left[there.GetPod().UID] = true
	}
	var gone []*scheduler.Pod
	here := 0
	node.Pods(func(o *scheduler.Pod) bool {
		if left[o.Object.UID] {
			here++
		} else {
			gone = append(gone, o)
		}
		return true
	})
	if here < len(left) {
		return h.no("RunFilterPluginsWithNominatedPods for a node with pods added to it")
	}
	trial := view.Try(h.f.podOf(p), node)
	defer trial.End()
	for _, o := range gone {
		trial.Remove(o)
	}
	r := trial.Fits()
	if r == nil {
		return nil
	}
	code := fwk.Unschedulable
	if r.Unresolvable {
		code = fwk.UnschedulableAndUnresolvable
	}
	return fwk.NewStatus(code, r.Reasons...).WithPlugin(r.Plugin)
}

// RunFilterPlugins asks with the nominated pods, too: the engine counts them always.
func (h handle) RunFilterPlugins(ctx context.Context, state fwk.CycleState, p *corev1.Pod, info fwk.NodeInfo) *fwk.Status {
	return h.RunFilterPluginsWithNominatedPods(ctx, state, p, info)
}

func (handle) RunPreFilterExtensionAddPod(context.Context, fwk.CycleState, *corev1.Pod, fwk.PodInfo, fwk.NodeInfo) *fwk.Status {
	return nil
}

func (handle) RunPreFilterExtensionRemovePod(context.Context, fwk.CycleState, *corev1.Pod, fwk.PodInfo, fwk.NodeInfo) *fwk.Status {
	return nil
}

// NominatedPodsForNode are the pods for which room is being made on a node.
func (h handle) NominatedPodsForNode(name string) (out []fwk.PodInfo) {
	if view := h.f.current(); view != nil {
		for _, p := range view.NominatedPods(name) {
			out = append(out, &podInfo{pod: p})
		}
	}
	return out
}

// podOf is the engine's pod of an object.
func (f *Framework) podOf(p *corev1.Pod) *scheduler.Pod {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.cycle; c != nil && c.pod.Object == p {
		return c.pod
	}
	return scheduler.NewPod(p)
}
