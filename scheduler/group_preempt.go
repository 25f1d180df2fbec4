package scheduler

import (
	"cmp"
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
	found, said, err := e.preemptGroup(pods, min, 0, nil)
	if err != nil {
		said = err.Error()
	}
	return found, said
}

// aboutGroup is how kube-scheduler begins what it says of preemption for a group.
const aboutGroup = "pod group preemption: "

// preemptGroup is PreemptGroup for pods of which others have places already, which count; with a hearing that has to go on first it finds nothing.
func (e *Engine) preemptGroup(pods []*Pod, min, placed int, h *hearing) (*GroupPreemption, string, error) {
	prof := e.profileOf(pods[0])
	if prof == nil || len(prof.at(AtPostFilter)) == 0 {
		return nil, "", nil
	}
	if p := pods[0].Object.Spec.PreemptionPolicy; p != nil && *p == corev1.PreemptNever {
		return nil, aboutGroup + "not eligible due to preemptionPolicy=Never.", nil
	}
	t := &groupTrial{e: e, prof: prof, pods: pods, plugin: prof.at(AtPostFilter)[0].name}
	defer e.awaitAll(pods)()
	if p := t.ongoing(); p != nil {
		return p, aboutGroup + "ongoing preemption on nominated nodes", nil
	}
	units := t.units()
	if len(units) == 0 {
		return nil, aboutGroup + "No preemption victims found for incoming preemptor", nil
	}
	defer t.end()
	t.begin(units)
	a := e.scheduleGroup(pods, min, placed, h)
	switch {
	case a.err != nil:
		return nil, "", e.groupTrialFailed(pods[0], a.err)
	case !a.ok:
		return nil, aboutGroup + a.message, nil
	}
	t.ds = a.decisions
	for _, p := range pods {
		e.nominateMember(p, "")
	}
	t.wide = e.wide(prof, pods)
	p := t.spare(units)
	return p, fmt.Sprintf("%sfound a placement for podgroup, preempting %d victims", aboutGroup, len(p.Victims)), nil
}

// groupTrialFailed is what kube-scheduler says to all of a group if something went wrong while room was looked for.
func (e *Engine) groupTrialFailed(pod *Pod, err error) error {
	return fmt.Errorf("error in %q PodGroupPostFilter plugins: %s%w", e.profileOf(pod).at(AtPostFilter)[0].name, aboutGroup, memberFailed(err))
}

// groupTrial is a PreemptGroup in progress.
type groupTrial struct {
	e      *Engine
	prof   *profile
	plugin string
	pods   []*Pod
	// wide are the pods that can be rejected for what is on other nodes; if there are any, it matters which of the others are there, too.
	wide      map[*Pod]bool
	ds        []Decision
	nominated []string
	gone      []unit
}

// unit are pods that go together or not at all, with their nodes.
type unit struct {
	pods     []*Pod
	nodes    []string
	priority int32
	// grouped: they are of a group, if only one of them.
	grouped bool
}

// ongoing reports a preemption whose victims are still on their way out.
func (t *groupTrial) ongoing() *GroupPreemption {
	nodes := map[types.UID]string{}
	busy := false
	for _, p := range t.pods {
		n := t.e.Node(t.e.Nominated(p.key()))
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
			if t.e.standing(p) < t.pods[0].Priority {
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
			out = append(out, unit{priority: t.e.standing(p), grouped: p.Object.Spec.SchedulingGroup != nil})
			byGroup[name] = i
		}
		out[i].pods = append(out[i].pods, p)
		out[i].nodes = append(out[i].nodes, t.e.Assigned(p.key()))
	}
	slices.SortStableFunc(out, moreImportantUnit)
	return out
}

// moreImportantUnit is kube-scheduler's order: by priority, groups before pods, larger before smaller ones, those that started before others.
func moreImportantUnit(a, b unit) int {
	if a.grouped != b.grouped && a.priority == b.priority {
		if a.grouped {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(len(b.pods), len(a.pods)), a.pods[0].Started().Compare(b.pods[0].Started()))
}

// standing is a pod's priority, or that of its group.
func (e *Engine) standing(p *Pod) int32 {
	if g := p.Object.Spec.SchedulingGroup; g != nil && g.PodGroupName != nil {
		if obj := e.view.PodGroup(p.Object.Namespace, *g.PodGroupName); obj != nil {
			if obj.Spec.Priority == nil {
				return 0
			}
			return *obj.Spec.Priority
		}
	}
	return p.Priority
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
func (t *groupTrial) spare(units []unit) *GroupPreemption {
	var all []*Pod
	for _, u := range units {
		all = append(all, u.pods...)
	}
	violating := t.e.view.budgets.violating(all, -1)
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
			out.PDBViolations += violates(u)
		}
	}
	t.gone = gone
	slices.SortStableFunc(gone, moreImportantUnit)
	for _, u := range gone {
		out.Victims = append(out.Victims, u.pods...)
	}
	for i := range t.ds {
		if t.ds[i].Fits() {
			out.Nodes[t.pods[i].key()] = t.ds[i].Node
		}
	}
	return out
}

// fit reports whether all of the group's pods can still be where they were placed, with the unit there: if the order matters, one after the other.
func (t *groupTrial) fit(u unit) (ok bool) {
	ordered := len(t.wide) > 0
	if ordered {
		for i := range t.ds {
			if t.ds[i].Fits() {
				t.e.Remove(t.pods[i].key())
			}
		}
	}
	ok = true
	for i := range t.ds {
		d, p := &t.ds[i], t.pods[i]
		if !d.Fits() {
			continue
		}
		if ok && t.concerns(p, d.Node, u) {
			if !ordered {
				t.e.Remove(p.key())
			}
			js, _, _ := t.e.judge(t.prof, p, nil)
			ok = t.e.check(t.prof, p, t.e.Node(d.Node), js) == nil
			if !ordered {
				t.e.Assign(p, d.Node)
			}
		}
		if ordered {
			t.e.Assign(p, d.Node)
		} else if !ok {
			break
		}
	}
	return ok
}

// wide are the pods that a plugin may reject on a node for what is on others.
func (e *Engine) wide(prof *profile, pods []*Pod) map[*Pod]bool {
	out := map[*Pod]bool{}
	for _, p := range pods {
		js, _, _ := e.judge(prof, p, nil)
		if p.Terms != nil || slices.ContainsFunc(js, func(j judged) bool { return j.filters() && j.p.plugin.Name() != outsideName }) {
			out[p] = true
		}
	}
	return out
}

// concerns reports whether a unit can make a difference to a pod on a node.
func (t *groupTrial) concerns(p *Pod, node string, u unit) bool {
	return t.wide[p] || len(p.Object.Spec.Volumes) > 0 || slices.Contains(u.nodes, node) ||
		slices.ContainsFunc(u.pods, func(o *Pod) bool { return o.Terms != nil })
}
