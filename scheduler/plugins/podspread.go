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

// Prepare implements scheduler.ClusterPlugin.
func (p PodTopologySpread) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, _ *scheduler.Rejection) {
	all, lenient := pod.Spread, false
	if len(all) == 0 {
		if p.defaults != nil && len(*p.defaults) == 0 {
			return j, nil
		}
		siblings, ok := view.Siblings(pod)
		if !ok {
			return j, nil
		}
		all, lenient = p.defaultConstraints(pod, siblings), p.defaults == nil
	}
	var hard, soft []*scheduler.SpreadConstraint
	for i := range all {
		if all[i].Hard {
			hard = append(hard, &all[i])
		} else {
			soft = append(soft, &all[i])
		}
	}
	d := &scheduler.DomainJudgement{ID: spreadID(pod, all, lenient), Summed: true}
	for _, c := range hard {
		d.Sums = append(d.Sums, spreadSum(pod, view, c, hard, false))
	}
	for _, c := range soft {
		must := soft
		if lenient {
			must = nil
		}
		d.Sums = append(d.Sums, spreadSum(pod, view, c, must, true))
	}
	if len(hard) > 0 {
		d.Filter = func(p *scheduler.Place) *scheduler.Rejection { return spreadFilter(hard, p) }
	}
	if len(soft) > 0 {
		d.Scores = func(places []scheduler.Place, scores []int64) {
			softSpread{soft, len(hard), lenient}.scores(places, scores)
		}
	}
	j.Domains = d
	return j, nil
}

// spreadID says on what the sums depend: the constraints, and of the pod what decides which nodes count.
func spreadID(pod *scheduler.Pod, all []scheduler.SpreadConstraint, lenient bool) string {
	var id []byte
	if lenient {
		id = append(id, 'l')
	}
	affinity, taints := false, false
	for i := range all {
		c := &all[i]
		id = appendStrings(id, c.TopologyKey, c.Selector.ID())
		id = append(id, flag(c.Hard), flag(c.HonorAffinity), flag(c.HonorTaints))
		affinity, taints = affinity || c.HonorAffinity, taints || c.HonorTaints
	}
	if affinity && pod.Affinity != nil {
		id = NodeAffinity{}.Sign(pod, id)
	}
	if taints {
		id = TaintToleration{}.Sign(pod, id)
	}
	return string(id)
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// spreadSum counts pods by domain, on nodes with all the topology keys in must. Soft constraints over hosts count by node.
func spreadSum(pod *scheduler.Pod, view *scheduler.View, c *scheduler.SpreadConstraint, must []*scheduler.SpreadConstraint, soft bool) scheduler.DomainSum {
	on := view.Counts(c.Selector)
	host := soft && c.TopologyKey == corev1.LabelHostname
	s := scheduler.DomainSum{Key: c.TopologyKey, Apart: soft}
	if host {
		s.Key = ""
	}
	s.Amount = func(n *scheduler.Node) (int64, bool) {
		if host {
			_, ok := n.Object.Labels[c.TopologyKey]
			return on.On(n), ok
		}
		for _, m := range must {
			if _, ok := n.Object.Labels[m.TopologyKey]; !ok {
				return 0, false
			}
		}
		if !includes(pod, c, n) {
			return 0, false
		}
		return on.On(n), true
	}
	return s
}

func includes(pod *scheduler.Pod, c *scheduler.SpreadConstraint, n *scheduler.Node) bool {
	if c.HonorAffinity && pod.Affinity != nil {
		if ok, err := pod.Affinity.Match(n.Object); err != nil || !ok {
			return false
		}
	}
	return !c.HonorTaints || TaintToleration{}.Filter(pod, n) == nil
}

func spreadFilter(hard []*scheduler.SpreadConstraint, p *scheduler.Place) *scheduler.Rejection {
	for i, c := range hard {
		there, ok := p.Sum(i)
		if !ok {
			return scheduler.Reject("node(s) didn't match pod topology spread constraints (missing required label)")
		}
		least, domains := p.Least(i)
		if int64(domains) < c.MinDomains {
			least = 0
		}
		if c.Self {
			there++
		}
		if there-least > c.MaxSkew {
			return scheduler.RejectFull("node(s) didn't match pod topology spread constraints")
		}
	}
	return nil
}

// softSpread scores by the constraints that aren't hard, whose sums begin at first.
type softSpread struct {
	constraints []*scheduler.SpreadConstraint
	first       int
	lenient     bool // nodes count that lack some of the topology keys
}

func (s softSpread) ignores(p *scheduler.Place) bool {
	for i := range s.constraints {
		if _, ok := p.Sum(s.first + i); !ok && !s.lenient {
			return true
		}
	}
	return false
}

// weight of a constraint: the more domains there are, the more it counts.
func (s softSpread) weight(i int, places []scheduler.Place) float64 {
	size := 0
	seen := map[int]bool{} // the nodes without domain are one, too
	for k := range places {
		p := &places[k]
		switch {
		case s.ignores(p):
		case s.constraints[i].TopologyKey == corev1.LabelHostname:
			size += p.Nodes
		case !seen[p.Domain(s.first+i)]:
			seen[p.Domain(s.first+i)] = true
			size++
		}
	}
	return math.Log(float64(size + 2))
}

func (s softSpread) scores(places []scheduler.Place, scores []int64) {
	weights := make([]float64, len(s.constraints))
	for i := range weights {
		weights[i] = s.weight(i, places)
	}
	least, greatest := int64(math.MaxInt64), int64(math.MinInt64)
	for k := range places {
		if s.ignores(&places[k]) {
			continue
		}
		var score float64
		for i, c := range s.constraints {
			if there, ok := places[k].Sum(s.first + i); ok {
				score += float64(float64(there)*weights[i]) + float64(c.MaxSkew-1) // not fused, to be the same on all machines
			}
		}
		scores[k] = int64(math.Round(score))
		least, greatest = min(least, scores[k]), max(greatest, scores[k])
	}
	for k := range places {
		switch {
		case s.ignores(&places[k]):
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
