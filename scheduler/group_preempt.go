package scheduler

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// GroupPreemption is a proposal to remove pods in favour of a group.
type GroupPreemption struct {
	// Nodes is where the group's pods are to go, by UID.
	Nodes map[types.UID]string
	// Victims are to be removed, the most important first; none if those of an earlier proposal are still on their way out.
	Victims []*Pod
	// PDBViolations is how many of them no PodDisruptionBudget lets go.
	PDBViolations int
	// Plugin is that whose pods are preempted for.
	Plugin string
}

// PreemptGroup looks for room for pods of which ScheduleGroup could not place at least min: as if all pods of lower priority were gone it places the
// group, and then spares as many of them as it can, those first that no PodDisruptionBudget lets go, then the more important ones. It changes
// nothing. The result is nil if there is no such room, or nobody may be preempted; the message says so, or what was found.
func (e *Engine) PreemptGroup(pods []*Pod, min int) (*GroupPreemption, string) {
	return e.preemptGroup(pods, min, nil)
}

// preemptGroup is PreemptGroup; with a hearing that has to go on first it finds nothing.
func (e *Engine) preemptGroup(pods []*Pod, min int, h *hearing) (*GroupPreemption, string) {
	prof := e.profileOf(pods[0])
	if prof == nil || len(prof.at(AtPostFilter)) == 0 {
		return nil, ""
	}
	if p := pods[0].Object.Spec.PreemptionPolicy; p != nil && *p == corev1.PreemptNever {
		return nil, "preemption: not eligible due to preemptionPolicy=Never."
	}
	t := &groupTrial{e: e, prof: prof, pods: pods, plugin: prof.plugins[0].name}
	if prof.group != nil {
		t.plugin = prof.group.name
	}
	defer e.awaitAll(pods)()
	if p := t.ongoing(); p != nil {
		return p, "preemption: ongoing preemption on nominated nodes"
	}
	units := t.units()
	if len(units) == 0 {
		return nil, "preemption: No preemption victims found for incoming preemptor"
	}
	defer t.end()
	t.begin(units)
	placed := 0
	if m := e.view.groups.members[e.groupOf(pods[0]).Name]; m != nil {
		placed = len(m.placed)
	}
	var ok bool
	if t.ds, ok, _ = e.scheduleGroup(pods, min, placed, h); !ok {
		t.ds = nil
		return nil, "preemption: Preemption is not helpful for scheduling"
	}
	return t.spare(units)
}

// groupTrial is a PreemptGroup in progress.
type groupTrial struct {
	e         *Engine
	prof      *profile
	plugin    string
	pods      []*Pod
	ds        []Decision
	nominated []string
	gone      []unit
}

// unit are pods that go together or not at all, with their nodes.
type unit struct {
	pods  []*Pod
	nodes []string
}

// ongoing reports a preemption whose victims are still on their way out.
func (t *groupTrial) ongoing() *GroupPreemption {
	nodes := map[types.UID]string{}
	busy := false
	for _, p := range t.pods {
		n := t.e.byName[t.e.Nominated(p.key())]
		if n == nil {
			continue
		}
		nodes[p.key()] = n.Object.Name
		for _, other := range n.pods {
			busy = busy || other.Priority < p.Priority && other.PreemptedByScheduler()
		}
	}
	if !busy {
		return nil
	}
	return &GroupPreemption{Nodes: nodes, Plugin: t.plugin}
}

// units are the pods on nodes that may have to go, the most important first.
func (t *groupTrial) units() []unit {
	var lower []*Pod
	for _, n := range t.e.nodes {
		if n == nil {
			continue
		}
		for _, p := range n.pods {
			if p.Priority < t.pods[0].Priority {
				lower = append(lower, p)
			}
		}
	}
	slices.SortFunc(lower, MoreImportant)
	var out []unit
	byGroup := map[string]int{}
	for _, p := range lower {
		name := t.e.together(p)
		i, known := byGroup[name]
		if name == "" || !known {
			i = len(out)
			out = append(out, unit{})
			byGroup[name] = i
		}
		out[i].pods = append(out[i].pods, p)
		out[i].nodes = append(out[i].nodes, t.e.Assigned(p.key()))
	}
	return out
}

// together names the group that the pod is only disrupted with as a whole; "" if it is alone.
func (e *Engine) together(p *Pod) string {
	g := p.Object.Spec.SchedulingGroup
	if g == nil || g.PodGroupName == nil {
		return ""
	}
	obj := e.view.PodGroup(p.Object.Namespace, *g.PodGroupName)
	if obj == nil || obj.Spec.DisruptionMode == nil || obj.Spec.DisruptionMode.All == nil {
		return ""
	}
	return obj.Namespace + "/" + obj.Name
}

func (t *groupTrial) begin(units []unit) {
	for _, p := range t.pods {
		t.nominated = append(t.nominated, t.e.Nominated(p.key()))
	}
	for _, u := range units {
		t.remove(u)
	}
	t.gone = slices.Clone(units)
}

// end leaves everything as it was.
func (t *groupTrial) end() {
	t.e.unscheduleGroup(t.pods, t.ds, nil)
	for _, u := range t.gone {
		t.restore(u)
	}
	for i, node := range t.nominated {
		t.e.Nominate(t.pods[i], node)
	}
}

func (t *groupTrial) remove(u unit) {
	for _, p := range u.pods {
		t.e.Remove(p.key())
	}
}

func (t *groupTrial) restore(u unit) {
	for i, p := range u.pods {
		t.e.Assign(p, u.nodes[i])
	}
}

// spare puts back whom it can.
func (t *groupTrial) spare(units []unit) (*GroupPreemption, string) {
	var all []*Pod
	for _, u := range units {
		all = append(all, u.pods...)
	}
	violating := t.e.view.violating(all)
	violates := func(u unit) (n int) {
		for _, p := range u.pods {
			if violating[p] {
				n++
			}
		}
		return n
	}
	out := &GroupPreemption{Nodes: map[types.UID]string{}, Plugin: t.plugin}
	var gone []unit
	for _, first := range []bool{true, false} {
		for _, u := range units {
			if (violates(u) > 0) != first {
				continue
			}
			if t.restore(u); t.fit(u) {
				continue
			}
			t.remove(u)
			gone = append(gone, u)
			out.Victims = append(out.Victims, u.pods...)
			out.PDBViolations += violates(u)
		}
	}
	t.gone = gone
	slices.SortFunc(out.Victims, MoreImportant)
	for i := range t.ds {
		if t.ds[i].Fits() {
			out.Nodes[t.pods[i].key()] = t.ds[i].Node
		}
	}
	return out, fmt.Sprintf("preemption: found a placement for podgroup, preempting %d victims", len(out.Victims))
}

// fit reports whether all of the group's pods can still be where they were placed, with the unit there.
func (t *groupTrial) fit(u unit) bool {
	for i := range t.ds {
		d, p := &t.ds[i], t.pods[i]
		if !d.Fits() || !concerns(p, d.Node, u) {
			continue
		}
		t.e.Remove(p.key())
		js, _, _ := t.e.judge(t.prof, p, nil)
		r := t.e.check(t.prof, p, t.e.byName[d.Node], js)
		t.e.Assign(p, d.Node)
		if r != nil {
			return false
		}
	}
	return true
}

// concerns reports whether a unit can make a difference to a pod on a node.
func concerns(p *Pod, node string, u unit) bool {
	return p.Terms != nil || len(p.Spread) > 0 || len(p.Object.Spec.Volumes) > 0 || slices.Contains(u.nodes, node) ||
		slices.ContainsFunc(u.pods, func(o *Pod) bool { return o.Terms != nil })
}
