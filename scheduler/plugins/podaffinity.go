package plugins

import (
	"fmt"
	"maps"
	"slices"

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

// sums are DomainSums, one for each topology key, of several terms each.
type sums struct {
	keys  []string
	terms [][]counted
}

// counted are the pods by node of one term.
type counted struct {
	on     *scheduler.Counts
	weight int64
}

// add counts pods by their nodes, weighted, and returns the place of the key's sum.
func (s *sums) add(key string, on *scheduler.Counts, weight int64) int {
	i := slices.Index(s.keys, key)
	if i < 0 {
		i = len(s.keys)
		s.keys, s.terms = append(s.keys, key), append(s.terms, nil)
	}
	s.terms[i] = append(s.terms[i], counted{on, weight})
	return i
}

func (s *sums) appendTo(to []scheduler.DomainSum) []scheduler.DomainSum {
	for i, key := range s.keys {
		terms := s.terms[i]
		to = append(to, scheduler.DomainSum{Key: key, Amount: func(n *scheduler.Node) (amount int64, counts bool) {
			for _, t := range terms {
				amount += t.weight * t.on.On(n)
			}
			return amount, true
		}})
	}
	return to
}

var noTerms scheduler.Terms

func termsOf(pod *scheduler.Pod) *scheduler.Terms {
	if pod.Terms == nil {
		return &noTerms
	}
	return pod.Terms
}

// Prepare implements scheduler.ClusterPlugin.
func (p InterPodAffinity) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, _ *scheduler.Rejection) {
	var id []byte
	note := func(kind byte, t *scheduler.PodTerm) {
		id = appendStrings(append(id, kind), t.ID())
	}
	var near, away, existing, scored sums
	own := termsOf(pod)
	first := false // the first pod of a group that wants to be together may go anywhere
	if must := own[scheduler.RequiredAffinity]; len(must) > 0 {
		all := make([]scheduler.PodSelector, len(must))
		first = true
		for i := range must {
			all[i] = must[i].PodSelector
			first = first && must[i].Matches(pod, view)
			note('n', &must[i])
		}
		on := view.Counts(all...)
		for i := range must {
			if !slices.Contains(near.keys, must[i].TopologyKey) {
				near.add(must[i].TopologyKey, on, 1)
			}
		}
	}
	for i := range own[scheduler.RequiredAntiAffinity] {
		t := &own[scheduler.RequiredAntiAffinity][i]
		away.add(t.TopologyKey, view.Counts(t.PodSelector), 1)
		note('a', t)
	}
	view.Matching(pod, scheduler.RequiredAntiAffinity, func(t *scheduler.PodTerm, on *scheduler.Counts) {
		// As in kube-scheduler, which skips the rule if there are no others: then pods that are nominated aren't asked either.
		if view.Anywhere(on, t.TopologyKey) {
			existing.add(t.TopologyKey, on, 1)
			note('e', t)
		}
	})
	others := !p.ignoreExisting || len(own[scheduler.PreferredAffinity])+len(own[scheduler.PreferredAntiAffinity]) > 0
	prefer := func(kind scheduler.TermKind, sign int64) {
		for i := range own[kind] {
			t := &own[kind][i]
			scored.add(t.TopologyKey, view.Counts(t.PodSelector), sign*t.Weight)
			note(byte('0'+kind), t)
		}
		if !others {
			return
		}
		view.Matching(pod, kind, func(t *scheduler.PodTerm, on *scheduler.Counts) {
			scored.add(t.TopologyKey, on, sign*t.Weight)
			note(byte('5'+kind), t)
		})
	}
	prefer(scheduler.PreferredAffinity, 1)
	prefer(scheduler.PreferredAntiAffinity, -1)
	if hard := 1 - p.lessHard; hard > 0 && others {
		view.Matching(pod, scheduler.RequiredAffinity, func(t *scheduler.PodTerm, on *scheduler.Counts) {
			scored.add(t.TopologyKey, on, hard)
			note('r', t)
		})
	}
	if len(id) == 0 {
		return j, nil
	}
	j.Domains = &scheduler.DomainJudgement{ID: string(id), Summed: true}
	for _, s := range []*sums{&near, &away, &existing, &scored} {
		j.Domains.Sums = s.appendTo(j.Domains.Sums)
	}
	nearEnd := len(near.keys)
	awayEnd := nearEnd + len(away.keys)
	filterEnd := awayEnd + len(existing.keys)
	if filterEnd > 0 {
		j.Domains.Filter = func(p *scheduler.Place) *scheduler.Rejection {
			mayStart := first
			for i := 0; i < nearEnd && mayStart; i++ {
				mayStart = !p.Any(i)
			}
			for i := range nearEnd {
				if sum, ok := p.Sum(i); !ok || sum == 0 && !mayStart {
					return scheduler.Reject("node(s) didn't match pod affinity rules")
				}
			}
			for i := nearEnd; i < filterEnd; i++ {
				if sum, _ := p.Sum(i); sum > 0 && i < awayEnd {
					return scheduler.RejectFull("node(s) didn't match pod anti-affinity rules")
				} else if sum > 0 {
					return scheduler.RejectFull("node(s) didn't satisfy existing pods anti-affinity rules")
				}
			}
			return nil
		}
	}
	if len(scored.keys) > 0 {
		end := len(j.Domains.Sums)
		j.Domains.Scores = func(places []scheduler.Place, scores []int64) {
			for k := range places {
				for i := filterEnd; i < end; i++ {
					sum, _ := places[k].Sum(i)
					scores[k] += sum
				}
			}
			spreadOut(scores)
		}
	}
	return j, nil
}

// spreadOut maps scores to 0 to MaxScore, the least to 0; all are 0 if they are equal.
func spreadOut(scores []int64) {
	least, greatest := slices.Min(scores), slices.Max(scores)
	for i, v := range scores {
		scores[i] = 0
		if greatest > least {
			scores[i] = int64(scheduler.MaxScore * (float64(v-least) / float64(greatest-least)))
		}
	}
}

// Hint implements scheduler.Hinter.
func (InterPodAffinity) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	own := termsOf(pod)
	switch {
	case c.Node != nil:
		if c.OldNode != nil {
			return c.Parted || movedFor(own, c.OldNode.Object.Labels, c.Node.Object.Labels)
		}
		for _, t := range own[scheduler.RequiredAffinity] {
			if _, ok := c.Node.Object.Labels[t.TopologyKey]; !ok {
				return false
			}
		}
		return true
	case c.OldNode != nil:
		return c.OldNode.Len() > 0 // they don't count any more
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

// movedFor reports whether a node with other labels than before may help a pod with these terms: with another domain of its affinity, or with one less of
// its anti-affinity.
func movedFor(own *scheduler.Terms, was, now map[string]string) bool {
	for _, kind := range []scheduler.TermKind{scheduler.RequiredAffinity, scheduler.RequiredAntiAffinity} {
		for i := range own[kind] {
			old, had := was[own[kind][i].TopologyKey]
			value, has := now[own[kind][i].TopologyKey]
			if (had != has || value != old) && (had || kind == scheduler.RequiredAffinity) {
				return true
			}
		}
	}
	return false
}
