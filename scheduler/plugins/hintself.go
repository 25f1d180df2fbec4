package plugins

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/keelson/keelson/scheduler"
)

// What may change of a pod that waits is little: its labels and annotations, tolerations that are added, requests, and, while it has gates, its node selector
// and required node affinity, which can only become narrower. Plugins that look at none of this aren't helped by it.

// HintSelf implements scheduler.SelfHinter.
func (NodeName) HintSelf(_, _ *scheduler.Pod) bool { return false }

// HintSelf implements scheduler.SelfHinter.
func (NodeUnschedulable) HintSelf(was, now *scheduler.Pod) bool {
	return newTolerations(was, now) && tolerates(now, &unschedulable)
}

// HintSelf implements scheduler.SelfHinter.
func (TaintToleration) HintSelf(was, now *scheduler.Pod) bool { return newTolerations(was, now) }

// HintSelf implements scheduler.SelfHinter.
func (NodeAffinity) HintSelf(_, _ *scheduler.Pod) bool { return false }

// HintSelf implements scheduler.SelfHinter.
func (NodePorts) HintSelf(_, _ *scheduler.Pod) bool { return false }

// HintSelf implements scheduler.SelfHinter: it asks for less of something.
func (NodeResourcesFit) HintSelf(was, now *scheduler.Pod) bool {
	for name, amount := range was.Requests.All() {
		if now.Requests.Of(name) < amount {
			return true
		}
	}
	return false
}

// HintSelf implements scheduler.SelfHinter.
func (VolumeRestrictions) HintSelf(_, _ *scheduler.Pod) bool { return false }

// HintSelf implements scheduler.SelfHinter.
func (NodeVolumeLimits) HintSelf(_, _ *scheduler.Pod) bool { return false }

// HintSelf implements scheduler.SelfHinter.
func (VolumeBinding) HintSelf(_, _ *scheduler.Pod) bool { return false }

// HintSelf implements scheduler.SelfHinter.
func (VolumeZone) HintSelf(_, _ *scheduler.Pod) bool { return false }

// HintSelf implements scheduler.SelfHinter: a pod keeps its claims.
func (ResourceClaims) HintSelf(_, _ *scheduler.Pod) bool { return false }

// HintSelf implements scheduler.SelfHinter: it counts where it did not, or no longer where it did, or may be counted on other nodes.
func (PodTopologySpread) HintSelf(was, now *scheduler.Pod) bool {
	labels := !maps.Equal(was.Object.Labels, now.Object.Labels)
	if labels && len(now.Spread) == 0 {
		return true // by default constraints
	}
	return slices.ContainsFunc(now.Spread, func(c scheduler.SpreadConstraint) bool {
		return c.Hard && (labels && c.Selector.MayMatch(was) != c.Selector.MayMatch(now) || c.HonorTaints && newTolerations(was, now))
	})
}

// HintSelf implements scheduler.SelfHinter: pods that are there may be against other labels.
func (InterPodAffinity) HintSelf(was, now *scheduler.Pod) bool {
	return !maps.Equal(was.Object.Labels, now.Object.Labels)
}

func newTolerations(was, now *scheduler.Pod) bool {
	tolerations := func(p *scheduler.Pod) []corev1.Toleration { return p.Object.Spec.Tolerations }
	return !apiequality.Semantic.DeepEqual(tolerations(was), tolerations(now))
}
