package plugins

import (
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// PodTopologySpread spreads pods evenly over topology domains, as their topologySpreadConstraints say. Pods without constraints that
// belong to a Service, ReplicaSet, StatefulSet or ReplicationController are spread by default constraints: over hosts and zones where that
// is possible, unless the options say otherwise. The zero value has the default options.
type PodTopologySpread struct {
	defaults *[]scheduler.SpreadConstraint // without selectors; nil: Kubernetes' own
}

// Name implements scheduler.Plugin.
func (PodTopologySpread) Name() string { return "PodTopologySpread" }

// spread is a constraint in one decision.
type spread struct {
	*scheduler.SpreadConstraint
	domains *scheduler.Domains
	on      []int32 // pods by node
	sums    []int64 // pods by domain, of the nodes that count; -1: it has no such node
}

// Prepare implements scheduler.ClusterPlugin.
func (p PodTopologySpread) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, _ *scheduler.Rejection) {
	inc := inclusion{pod: pod, constraints: pod.Spread, affine: map[int]bool{}}
	if len(pod.Spread) == 0 {
		if p.defaults != nil && len(*p.defaults) == 0 {
			return j, nil
		}
		siblings, ok := view.Siblings(pod)
		if !ok {
			return j, nil
		}
		inc.constraints, inc.lenient = p.defaultConstraints(pod, siblings), p.defaults == nil
	}
	if hard := inc.count(view, true); len(hard) > 0 {
		j.Filter = spreadFilter(hard)
	}
	if soft := inc.count(view, false); len(soft) > 0 {
		j.Scores = func(nodes []*scheduler.Node, scores []int64) { inc.scores(soft, nodes, scores) }
	}
	return j, nil
}

// inclusion decides which nodes count.
type inclusion struct {
	pod         *scheduler.Pod
	constraints []scheduler.SpreadConstraint
	lenient     bool         // nodes count that lack some of the topology keys
	affine      map[int]bool // by node index
}

func (i *inclusion) counts(c *scheduler.SpreadConstraint, n *scheduler.Node) bool {
	if c.HonorAffinity && i.pod.Affinity != nil {
		ok, known := i.affine[n.Index()]
		if !known {
			match, err := i.pod.Affinity.Match(n.Object)
			ok = err == nil && match
			i.affine[n.Index()] = ok
		}
		if !ok {
			return false
		}
	}
	return !c.HonorTaints || TaintToleration{}.Filter(i.pod, n) == nil
}

// count sums up the pods by domain for the hard or the soft constraints. Only nodes with all of their topology keys count.
func (i *inclusion) count(view *scheduler.View, hard bool) (out []spread) {
	for k := range i.constraints {
		if c := &i.constraints[k]; c.Hard == hard {
			s := spread{SpreadConstraint: c, domains: view.Domains(c.TopologyKey), on: view.Counts(c.Selector)}
			s.sums = make([]int64, s.domains.Len)
			for id := range s.sums {
				s.sums[id] = -1
			}
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil
	}
	for slot, n := range view.Nodes() {
		if n == nil || !i.lenient && !keyed(out, slot) {
			continue
		}
		for k := range out {
			s := &out[k]
			if id := s.domains.Of[slot]; id >= 0 && i.counts(s.SpreadConstraint, n) {
				s.sums[id] = max(s.sums[id], 0) + int64(s.on[slot])
			}
		}
	}
	return out
}

func keyed(all []spread, slot int) bool {
	for i := range all {
		if all[i].domains.Of[slot] < 0 {
			return false
		}
	}
	return true
}

func spreadFilter(hard []spread) func(*scheduler.Node) *scheduler.Rejection {
	least := make([]int64, len(hard))
	for i := range hard {
		seen := int64(0)
		least[i] = math.MaxInt64
		for _, n := range hard[i].sums {
			if n >= 0 {
				seen++
				least[i] = min(least[i], n)
			}
		}
		if seen < hard[i].MinDomains {
			least[i] = 0
		}
	}
	missing := scheduler.Reject("node(s) didn't match pod topology spread constraints (missing required label)")
	skewed := scheduler.RejectFull("node(s) didn't match pod topology spread constraints")
	return func(n *scheduler.Node) *scheduler.Rejection {
		for i := range hard {
			c := &hard[i]
			id := c.domains.Of[n.Index()]
			if id < 0 {
				return missing
			}
			there := max(c.sums[id], 0)
			if c.Self {
				there++
			}
			if there-least[i] > c.MaxSkew {
				return skewed
			}
		}
		return nil
	}
}

// scores gives the nodes whose domains have fewest pods the most. A constraint counts for more the more domains it has.
func (inc *inclusion) scores(soft []spread, nodes []*scheduler.Node, scores []int64) {
	ignored := func(n *scheduler.Node) bool { return !inc.lenient && !keyed(soft, n.Index()) }
	candidates := 0
	for _, n := range nodes {
		if !ignored(n) {
			candidates++
		}
	}
	weights := make([]float64, len(soft))
	for i := range soft {
		size := candidates
		if soft[i].TopologyKey != corev1.LabelHostname {
			size = 0
			seen := make([]bool, soft[i].domains.Len+1) // the nodes without domain are one, too
			for _, n := range nodes {
				if id := soft[i].domains.Of[n.Index()]; !ignored(n) && !seen[id+1] {
					seen[id+1] = true
					size++
				}
			}
		}
		weights[i] = math.Log(float64(size + 2))
	}
	least, greatest := int64(math.MaxInt64), int64(math.MinInt64)
	for k, n := range nodes {
		if ignored(n) {
			continue
		}
		var score float64
		for i := range soft {
			c := &soft[i]
			id := c.domains.Of[n.Index()]
			if id < 0 {
				continue
			}
			there := max(c.sums[id], 0)
			if c.TopologyKey == corev1.LabelHostname {
				there = int64(c.on[n.Index()])
			}
			score += float64(float64(there)*weights[i]) + float64(c.MaxSkew-1) // not fused, to be the same on all machines
		}
		scores[k] = int64(math.Round(score))
		least, greatest = min(least, scores[k]), max(greatest, scores[k])
	}
	for k, n := range nodes {
		switch {
		case ignored(n):
			scores[k] = 0
		case greatest == 0:
			scores[k] = scheduler.MaxScore
		default:
			scores[k] = scheduler.MaxScore * (greatest + least - scores[k]) / greatest
		}
	}
}

// Hint implements scheduler.Hinter.
func (p PodTopologySpread) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	if len(pod.Spread) == 0 && p.defaults != nil {
		return hintDefaults(pod, c)
	}
	keyed := func(n *scheduler.Node) bool {
		return !slices.ContainsFunc(pod.Spread, func(s scheduler.SpreadConstraint) bool {
			_, ok := n.Object.Labels[s.TopologyKey]
			return s.Hard && !ok
		})
	}
	counted := func(p *scheduler.Pod) bool {
		return slices.ContainsFunc(pod.Spread, func(s scheduler.SpreadConstraint) bool { return s.Hard && s.Selector.MayMatch(p) })
	}
	switch {
	case c.Node != nil && c.OldNode != nil:
		if maps.Equal(c.Node.Object.Labels, c.OldNode.Object.Labels) && slices.Equal(c.Node.Object.Spec.Taints, c.OldNode.Object.Spec.Taints) {
			return false
		}
		return keyed(c.Node) || keyed(c.OldNode)
	case c.Node != nil:
		return keyed(c.Node)
	case c.OldNode != nil:
		return keyed(c.OldNode)
	case c.FreedPod != nil:
		return counted(c.FreedPod)
	case c.AssignedPod != nil && c.OldPod != nil:
		return counted(c.AssignedPod) != counted(c.OldPod)
	case c.AssignedPod != nil:
		return counted(c.AssignedPod)
	}
	return false
}
