package plugins

import (
	"cmp"
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// DefaultPreemption makes room for pods by removing others of lower priority. All nodes are considered.
type DefaultPreemption struct{}

// Name implements scheduler.Plugin.
func (DefaultPreemption) Name() string { return "DefaultPreemption" }

// PostFilter implements scheduler.PostFilterPlugin.
func (DefaultPreemption) PostFilter(pod *scheduler.Pod, view *scheduler.View, failed *scheduler.Decision) (*scheduler.Preemption, string) {
	if why := notEligible(pod, view, failed); why != "" {
		return nil, "preemption: " + why
	}
	best, refused := view.BestCandidate(pod, failed, betterRoom)
	if best == nil {
		if n := failed.Nodes - failed.Resolvable.Len(); n > 0 {
			refused["Preemption is not helpful for scheduling"] += n
		}
		d := scheduler.Decision{Nodes: failed.Nodes, Reasons: refused}
		return &scheduler.Preemption{}, "preemption: " + d.Message()
	}
	return &scheduler.Preemption{Node: best.Node, Victims: best.Victims, PDBViolations: best.Violations},
		fmt.Sprintf("preemption: found a potential placement for pod on node %s, preempting %d victims", best.Node, len(best.Victims))
}

// notEligible says why a pod may not preempt others, "" if it may.
func notEligible(pod *scheduler.Pod, view *scheduler.View, failed *scheduler.Decision) string {
	if p := pod.Object.Spec.PreemptionPolicy; p != nil && *p == corev1.PreemptNever {
		return "not eligible due to preemptionPolicy=Never."
	}
	node := view.Nominated(pod)
	if node == nil || !failed.Resolvable.Has(node) {
		return ""
	}
	waits := false
	node.Pods(func(p *scheduler.Pod) bool {
		waits = p.Priority < pod.Priority && p.PreemptedByScheduler()
		return !waits
	})
	if waits {
		return "not eligible due to a terminating pod on the nominated node."
	}
	return ""
}

// betterRoom orders nodes by Kubernetes' criteria: the least violations of budgets, the least important of the most important victims, the least sum of
// priorities, the fewest victims, and the latest of the first starts among the victims of the highest priority.
func betterRoom(a, b *scheduler.Candidate) int {
	x, y := a.Victims[0], b.Victims[0] // the most important ones: of their priority, those that started first
	return cmp.Or(
		cmp.Compare(a.Violations, b.Violations), cmp.Compare(x.Priority, y.Priority), cmp.Compare(sum(a), sum(b)),
		cmp.Compare(len(a.Victims), len(b.Victims)), y.Started().Compare(x.Started()),
	)
}

// sum is of priorities made positive, lest more victims of negative priority count as less.
func sum(c *scheduler.Candidate) (n int64) {
	for _, v := range c.Victims {
		n += int64(v.Priority) + math.MaxInt32 + 1
	}
	return n
}

// Hint implements scheduler.Hinter: the plugins that rejected the pod know when it is worth another try.
func (DefaultPreemption) Hint(*scheduler.Pod, scheduler.ClusterChange) bool { return false }
