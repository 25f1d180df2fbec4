package scheduler

import (
	"fmt"
	"maps"
	"slices"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"
)

// GroupPlugin says which pods are placed together. A profile has at most one that counts: the first.
type GroupPlugin interface {
	Plugin
	// Group returns the pod's group; the zero value if it is in none. A rejection keeps the pod from being tried: its group isn't known yet.
	Group(pod *Pod, view *View) (Group, *Rejection)
	// Mismatch says why pods can't be placed together, "" if they can: those of a group that wait and those that have their places.
	Mismatch(group Group, pods []*Pod, view *View) string
}

// Group is a number of pods that are placed together.
type Group struct {
	// Name differs from that of all other groups.
	Name string
	// Min is how many pods of the group must have places at the least for any to be bound.
	Min int
}

// groups knows the pods of each group.
type groups struct {
	objects map[string]*schedulingv1beta1.PodGroup
	members map[string]*members
}

// members are a group's pods: those that wait, and those that have their places.
type members struct {
	own             *owner
	waiting, placed map[types.UID]*Pod
}

func newGroups() groups {
	return groups{objects: map[string]*schedulingv1beta1.PodGroup{}, members: map[string]*members{}}
}

// clone shares the members.
func (g *groups) clone() groups {
	return groups{objects: maps.Clone(g.objects), members: maps.Clone(g.members)}
}

// membersOf are the members of a group, to be changed.
func (v *View) membersOf(name string) *members {
	m := v.groups.members[name]
	switch {
	case m == nil:
		m = &members{v.own, map[types.UID]*Pod{}, map[types.UID]*Pod{}}
	case m.own != v.own:
		m = &members{v.own, maps.Clone(m.waiting), maps.Clone(m.placed)}
	}
	v.groups.members[name] = m
	return m
}

func (g *groups) tidy(name string) {
	if m := g.members[name]; m != nil && len(m.waiting)+len(m.placed) == 0 {
		delete(g.members, name)
	}
}

// known counts the pods of a group.
func (m *members) known() int {
	n := len(m.placed)
	for uid := range m.waiting {
		if m.placed[uid] == nil {
			n++
		}
	}
	return n
}

// SetPodGroup adds or replaces a PodGroup and returns the change, for Hinters.
func (e *Engine) SetPodGroup(obj *schedulingv1beta1.PodGroup) ClusterChange {
	key := obj.Namespace + "/" + obj.Name
	old := e.view.groups.objects[key]
	e.view.groups.objects[key] = obj
	return ClusterChange{PodGroup: obj, OldPodGroup: old}
}

// DeletePodGroup forgets a PodGroup. Its pods keep their places; those that wait go on waiting.
func (e *Engine) DeletePodGroup(namespace, name string) {
	delete(e.view.groups.objects, namespace+"/"+name)
}

// PodGroup returns a PodGroup, nil if there is none.
func (v *View) PodGroup(namespace, name string) *schedulingv1beta1.PodGroup {
	return v.groups.objects[namespace+"/"+name]
}

// groupOf is the pod's group. It is the zero value for pods without, and has no Min if the group isn't known.
func (e *Engine) groupOf(pod *Pod) Group {
	prof := e.profileOf(pod)
	if prof == nil || prof.group == nil {
		return Group{}
	}
	g, _ := prof.group.group.Group(pod, e.view)
	return g
}

// await counts a pod among those of its group that wait (sign 1), or no longer (-1), and returns the group's name.
func (e *Engine) await(pod *Pod, sign int) string {
	name := e.groupOf(pod).Name
	switch {
	case name == "":
	case sign > 0:
		e.view.membersOf(name).waiting[pod.key()] = pod
	case sign < 0:
		delete(e.view.membersOf(name).waiting, pod.key())
		e.view.groups.tidy(name)
	}
	return name
}

// seat counts a pod among those of its group that have places (sign 1), or no longer (-1).
func (e *Engine) seat(pod *Pod, sign int) {
	name := e.groupOf(pod).Name
	if name == "" {
		return
	}
	if sign > 0 {
		e.view.membersOf(name).placed[pod.key()] = pod
		return
	}
	delete(e.view.membersOf(name).placed, pod.key())
	e.view.groups.tidy(name)
}

// gateGroup keeps a pod from being tried until enough of its group are there.
func (e *Engine) gateGroup(prof *profile, pod *Pod) *Rejection {
	if prof.group == nil {
		return nil
	}
	g, r := prof.group.group.Group(pod, e.view)
	if r == nil && g.Name != "" {
		if m := e.view.groups.members[g.Name]; m == nil || m.known() < g.Min {
			r = Reject("waiting for minCount pods from a gang to appear in scheduling queue")
		}
	}
	if r != nil {
		r.Plugin = prof.group.name
	}
	return r
}

// gatedMember is the plugin that keeps another pod of the group from being tried: then none of them is.
func (e *Engine) gatedMember(pod *Pod) string {
	prof := e.profileOf(pod)
	g := e.groupOf(pod)
	if g.Name == "" || len(prof.at(AtPreEnqueue)) == 0 {
		return ""
	}
	m := e.view.groups.members[g.Name]
	if m == nil {
		return ""
	}
	for uid, other := range m.waiting {
		if m.placed[uid] != nil {
			continue
		}
		for _, s := range prof.at(AtPreEnqueue) {
			if s.enqueue.PreEnqueue(other) != nil {
				return s.name
			}
		}
	}
	return ""
}

// ScheduleGroup decides for pods one after the other, each as if those before it were on their nodes already, and assigns and reserves them if at
// least min of them fit; else nothing is changed. The decisions are in the order of the pods.
func (e *Engine) ScheduleGroup(pods []*Pod, min int) ([]Decision, bool) {
	defer e.awaitAll(pods)()
	a := e.scheduleGroup(pods, min, 0, nil)
	if a.ok {
		return a.decisions, true
	}
	return e.explainGroup(pods, &a, "", false), false
}

// awaitAll lets those pods be known that aren't, until done is called.
func (e *Engine) awaitAll(pods []*Pod) (done func()) {
	var mine []*Pod
	for _, p := range pods {
		if g := e.groupOf(p).Name; g != "" && e.view.membersOf(g).waiting[p.key()] == nil {
			e.await(p, 1)
			mine = append(mine, p)
		}
	}
	return func() {
		for _, p := range mine {
			e.await(p, -1)
		}
	}
}

// groupAttempt is what came of placing a group.
type groupAttempt struct {
	// decisions are of the pods that were tried, in their order. If the group has no place nothing of them holds, though some fit.
	decisions []Decision
	ok        bool
	// message says why there is no place for the group.
	message string
	// failed is the pod that something went wrong with, err what it was.
	failed *Pod
	err    error
}

// groupUnfit is how kube-scheduler begins where a member has nothing of its own to say.
const groupUnfit = "pod group is unschedulable"

// scheduleGroup is ScheduleGroup for pods of which others have places already, which count. With a hearing that has to go on first nothing is decided.
func (e *Engine) scheduleGroup(pods []*Pod, min, placed int, h *hearing) (a groupAttempt) {
	cannot := func(remaining int) string {
		return fmt.Sprintf("minCount (%d) cannot be satisfied: %d scheduled, %d remaining", min, placed, remaining)
	}
	if len(pods)+placed < min {
		a.message = groupUnfit + ", " + cannot(len(pods))
		return a
	}
	a.decisions = make([]Decision, 0, len(pods))
	nominated := make([]string, len(pods))
	for i, p := range pods {
		nominated[i] = e.Nominated(p.key())
		e.nominateMember(p, "")
	}
	fit := 0
	for i, p := range pods {
		e.nominateMember(p, nominated[i])
		d := h.decide(e, p)
		if h.open() {
			e.unscheduleGroup(pods, a.decisions, nominated)
			return groupAttempt{}
		}
		if d.Fits() {
			e.Assign(p, d.Node)
			if err := e.Reserve(p, d.Node); err != nil {
				e.Remove(p.key())
				d = Decision{Nodes: d.Nodes, Reasons: map[string]int{err.Error(): 0}}
				a.failed, a.err = p, err
			} else {
				placed++
				fit++
			}
		}
		e.nominateMember(p, "")
		a.decisions = append(a.decisions, d)
		if a.err != nil {
			a.message = memberFailed(a.err).Error()
			break
		}
		if remaining := len(pods) - i - 1; remaining+placed < min {
			a.message = cannot(remaining)
			break
		}
	}
	if a.message == "" && fit == 0 {
		a.message = groupUnfit
	}
	if a.ok = a.message == ""; !a.ok {
		e.unscheduleGroup(pods, a.decisions, nominated)
		return a
	}
	for i, p := range pods {
		if !a.decisions[i].Fits() {
			e.nominateMember(p, nominated[i])
		}
	}
	return a
}

// nominateMember nominates a pod while its group is being placed: only that one whose turn it is has a claim to where room was made for it, for the
// others may go elsewhere now.
func (e *Engine) nominateMember(p *Pod, node string) {
	if e.Nominated(p.key()) != node {
		e.Nominate(p, node)
	}
}

// memberFailed is what kube-scheduler says to the others of a group if something went wrong with one, also to those whose turn had not come.
func memberFailed(err error) error {
	return fmt.Errorf("failed to schedule other pod from a pod group: %w", err)
}

// explainGroup says of each pod why it isn't placed. room is that there will be, said what preemption says of it.
func (e *Engine) explainGroup(pods []*Pod, a *groupAttempt, said string, room bool) []Decision {
	whole := a.message
	if !room {
		whole = groupUnfit + ", " + whole
	}
	out := make([]Decision, len(pods))
	for i, p := range pods {
		d := &out[i]
		if i < len(a.decisions) && !a.decisions[i].Fits() {
			*d = a.decisions[i]
			continue
		}
		*d = Decision{Nodes: e.count, Group: a.message}
		if i < len(a.decisions) {
			d.Group, d.PostFilter = whole, said
		}
		if prof := e.profileOf(p); prof != nil && prof.group != nil {
			d.Plugins = []string{prof.group.name}
		}
	}
	return out
}

// unscheduleGroup takes back what scheduleGroup did, the last first.
func (e *Engine) unscheduleGroup(pods []*Pod, ds []Decision, nominated []string) {
	for i := len(ds) - 1; i >= 0; i-- {
		if ds[i].Fits() {
			e.Unreserve(pods[i], ds[i].Node)
			e.Remove(pods[i].key())
		}
	}
	for i, node := range nominated {
		e.nominateMember(pods[i], node)
	}
}

// mismatch says why the pods of a group can't be placed together, those included that have places.
func (e *Engine) mismatch(g Group, pods []*Pod) string {
	prof := e.profileOf(pods[0])
	all := slices.Clone(pods)
	if m := e.view.groups.members[g.Name]; m != nil {
		for _, uid := range slices.Sorted(maps.Keys(m.placed)) {
			all = append(all, m.placed[uid])
		}
	}
	return prof.group.group.Mismatch(g, all, e.view)
}
