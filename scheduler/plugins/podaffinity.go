package plugins

import (
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/scheduler"
)

// InterPodAffinityOptions are the arguments of InterPodAffinity.
type InterPodAffinityOptions struct {
	// HardPodAffinityWeight is what a required affinity to the pod counts in scoring, on the part of a pod that is there already: 0 to 100.
	// Default 1.
	HardPodAffinityWeight *int32
	// IgnorePreferredTermsOfExistingPods leaves scoring out for pods that have no preferred terms themselves.
	IgnorePreferredTermsOfExistingPods bool
}

// Validate reports what is wrong, in kube-scheduler's words: fields are named as in a KubeSchedulerConfiguration, below path.
func (o InterPodAffinityOptions) Validate(path *field.Path) error {
	if w := o.HardPodAffinityWeight; w != nil && (*w < 0 || *w > 100) {
		return field.Invalid(path.Child("hardPodAffinityWeight"), *w, "not in valid range [0, 100]")
	}
	return nil
}

// InterPodAffinity keeps a pod near to, or away from, other pods, by the topology domains of their nodes: as its own affinity and
// anti-affinity say, and as the others' say of it. The zero value has the default options.
type InterPodAffinity struct {
	lessHard       int64 // 1 less the weight of required terms
	ignoreExisting bool
}

// NewInterPodAffinity returns the rule with options of your own.
func NewInterPodAffinity(opts InterPodAffinityOptions) (InterPodAffinity, error) {
	if err := opts.Validate(nil); err != nil {
		return InterPodAffinity{}, fmt.Errorf("plugins: InterPodAffinity: %w", err)
	}
	p := InterPodAffinity{ignoreExisting: opts.IgnorePreferredTermsOfExistingPods}
	if w := opts.HardPodAffinityWeight; w != nil {
		p.lessHard = 1 - int64(*w)
	}
	return p, nil
}

// Name implements scheduler.Plugin.
func (InterPodAffinity) Name() string { return "InterPodAffinity" }

// tally is a sum of pods, or of weights, by topology domain.
type tally struct {
	key     string
	domains *scheduler.Domains
	sums    []int64
}

// tallies has one tally for each topology key.
type tallies []tally

// add counts pods by their nodes, weighted, and reports whether any counted.
func (t *tallies) add(view *scheduler.View, key string, on []int32, weight int64) (any bool) {
	i := 0
	for ; i < len(*t) && (*t)[i].key != key; i++ {
	}
	if i == len(*t) {
		d := view.Domains(key)
		*t = append(*t, tally{key, d, make([]int64, d.Len)})
	}
	at := &(*t)[i]
	for slot, n := range on {
		if n != 0 && at.domains.Of[slot] >= 0 {
			at.sums[at.domains.Of[slot]] += weight * int64(n)
			any = true
		}
	}
	return any
}

// of is the sum of the node's domain, and whether it is in one.
func (t *tally) of(n *scheduler.Node) (int64, bool) {
	id := t.domains.Of[n.Index()]
	if id < 0 {
		return 0, false
	}
	return t.sums[id], true
}

// Prepare implements scheduler.ClusterPlugin.
func (p InterPodAffinity) Prepare(pod *scheduler.Pod, view *scheduler.View) (scheduler.Judgement, *scheduler.Rejection) {
	j := scheduler.Judgement{Filter: affinityFilter(pod, view)}
	own := termsOf(pod)
	if !p.ignoreExisting || len(own[scheduler.PreferredAffinity])+len(own[scheduler.PreferredAntiAffinity]) > 0 {
		j.Scores = p.scores(pod, view)
	}
	return j, nil
}

var noTerms scheduler.Terms

func termsOf(pod *scheduler.Pod) *scheduler.Terms {
	if pod.Terms == nil {
		return &noTerms
	}
	return pod.Terms
}

func affinityFilter(pod *scheduler.Pod, view *scheduler.View) func(*scheduler.Node) *scheduler.Rejection {
	var existing, near, away tallies
	view.Terms(scheduler.RequiredAntiAffinity, func(t *scheduler.PodTerm, on []int32) {
		if t.Matches(pod, view) {
			existing.add(view, t.TopologyKey, on, 1)
		}
	})
	own := termsOf(pod)
	for i := range own[scheduler.RequiredAntiAffinity] {
		t := &own[scheduler.RequiredAntiAffinity][i]
		away.add(view, t.TopologyKey, view.Counts(t.PodSelector), 1)
	}
	first := false
	if must := own[scheduler.RequiredAffinity]; len(must) > 0 {
		all := make([]scheduler.PodSelector, len(must))
		for i := range must {
			all[i] = must[i].PodSelector
		}
		on := view.Counts(all...)
		any, self := false, true
		keys := map[string]bool{}
		for i := range must {
			self = self && must[i].Matches(pod, view)
			if !keys[must[i].TopologyKey] {
				keys[must[i].TopologyKey] = true
				any = near.add(view, must[i].TopologyKey, on, 1) || any
			}
		}
		// The first pod of a group that wants to be together may go anywhere.
		first = !any && self
	}
	if len(existing)+len(near)+len(away) == 0 {
		return nil
	}
	notNear := scheduler.Reject("node(s) didn't match pod affinity rules")
	notAway := scheduler.RejectFull("node(s) didn't match pod anti-affinity rules")
	kept := scheduler.RejectFull("node(s) didn't satisfy existing pods anti-affinity rules")
	return func(n *scheduler.Node) *scheduler.Rejection {
		for i := range near {
			if sum, ok := near[i].of(n); !ok || sum == 0 && !first {
				return notNear
			}
		}
		for i := range away {
			if sum, _ := away[i].of(n); sum > 0 {
				return notAway
			}
		}
		for i := range existing {
			if sum, _ := existing[i].of(n); sum > 0 {
				return kept
			}
		}
		return nil
	}
}

func (p InterPodAffinity) scores(pod *scheduler.Pod, view *scheduler.View) func([]*scheduler.Node, []int64) {
	var sums tallies
	any := false
	own := termsOf(pod)
	prefer := func(kind scheduler.TermKind, sign int64) {
		for i := range own[kind] {
			t := &own[kind][i]
			any = sums.add(view, t.TopologyKey, view.Counts(t.PodSelector), sign*t.Weight) || any
		}
		view.Terms(kind, func(t *scheduler.PodTerm, on []int32) {
			if t.Matches(pod, view) {
				any = sums.add(view, t.TopologyKey, on, sign*t.Weight) || any
			}
		})
	}
	prefer(scheduler.PreferredAffinity, 1)
	prefer(scheduler.PreferredAntiAffinity, -1)
	if hard := 1 - p.lessHard; hard > 0 {
		view.Terms(scheduler.RequiredAffinity, func(t *scheduler.PodTerm, on []int32) {
			if t.Matches(pod, view) {
				any = sums.add(view, t.TopologyKey, on, hard) || any
			}
		})
	}
	if !any {
		return nil
	}
	return func(nodes []*scheduler.Node, scores []int64) {
		for i, n := range nodes {
			for j := range sums {
				sum, _ := sums[j].of(n)
				scores[i] += sum
			}
		}
		least, greatest := scores[0], scores[0]
		for _, v := range scores {
			least, greatest = min(least, v), max(greatest, v)
		}
		for i, v := range scores {
			scores[i] = 0
			if greatest > least {
				scores[i] = int64(scheduler.MaxScore * (float64(v-least) / float64(greatest-least)))
			}
		}
	}
}

// Hint implements scheduler.Hinter.
func (InterPodAffinity) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	own := termsOf(pod)
	switch {
	case c.Node != nil:
		if c.OldNode != nil && maps.Equal(c.Node.Object.Labels, c.OldNode.Object.Labels) {
			return false
		}
		for _, t := range own[scheduler.RequiredAffinity] {
			if _, ok := c.Node.Object.Labels[t.TopologyKey]; !ok {
				return false
			}
		}
		return true
	case c.FreedPod != nil:
		// Its going may end an anti-affinity, or make pod the first of its group.
		return mayMatchAny(own[scheduler.RequiredAntiAffinity], c.FreedPod) || mayMatchAny(own[scheduler.RequiredAffinity], c.FreedPod) ||
			mayMatchAny(termsOf(c.FreedPod)[scheduler.RequiredAntiAffinity], pod)
	case c.AssignedPod != nil && c.OldPod == nil:
		return mayMatchAll(own[scheduler.RequiredAffinity], c.AssignedPod)
	case c.AssignedPod != nil:
		if maps.Equal(c.AssignedPod.Object.Labels, c.OldPod.Object.Labels) {
			return false
		}
		return mayMatchAll(own[scheduler.RequiredAffinity], c.AssignedPod) || mayMatchAny(own[scheduler.RequiredAffinity], c.OldPod) ||
			mayMatchAny(own[scheduler.RequiredAntiAffinity], c.OldPod)
	}
	return c.Namespace != nil
}

func mayMatchAny(terms []scheduler.PodTerm, pod *scheduler.Pod) bool {
	for i := range terms {
		if terms[i].MayMatch(pod) {
			return true
		}
	}
	return false
}

func mayMatchAll(terms []scheduler.PodTerm, pod *scheduler.Pod) bool {
	for i := range terms {
		if !terms[i].MayMatch(pod) {
			return false
		}
	}
	return len(terms) > 0
}
