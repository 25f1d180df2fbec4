package plugins

import (
	"cmp"
	"fmt"
	"math"
	"time"

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
	reasons := map[string]int{}
	var best *scheduler.Candidate
	var worth ranking
	all := view.Candidates(pod, failed)
	for i := range all {
		c := &all[i]
		if c.Refused != nil {
			for _, r := range c.Refused.Reasons {
				reasons[r]++
			}
			continue
		}
		if w := rank(c); best == nil || w.compare(&worth) < 0 {
			best, worth = c, w
		}
	}
	if best == nil {
		if n := failed.Nodes - len(all); n > 0 {
			reasons["Preemption is not helpful for scheduling"] += n
		}
		d := scheduler.Decision{Nodes: failed.Nodes, Reasons: reasons}
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
	if node == nil || !failed.CanResolve(node.Object.Name) {
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

// ranking is what nodes are chosen by, the least first: Kubernetes' criteria in their order.
type ranking struct {
	violations int
	highest    int32
	sum        int64
	victims    int
	started    time.Time // the first start among the victims of the highest priority: the latest is best
}

func rank(c *scheduler.Candidate) ranking {
	r := ranking{violations: c.Violations, highest: c.Victims[0].Priority, victims: len(c.Victims), started: c.Victims[0].Started()}
	for _, v := range c.Victims {
		// Made positive, lest more victims of negative priority count as less.
		r.sum += int64(v.Priority) + math.MaxInt32 + 1
	}
	return r
}

func (r *ranking) compare(o *ranking) int {
	return cmp.Or(cmp.Compare(r.violations, o.violations), cmp.Compare(r.highest, o.highest), cmp.Compare(r.sum, o.sum),
		cmp.Compare(r.victims, o.victims), o.started.Compare(r.started))
}

// Hint implements scheduler.Hinter: the plugins that rejected the pod know when it is worth another try.
func (DefaultPreemption) Hint(*scheduler.Pod, scheduler.ClusterChange) bool { return false }
