package plugins

import (
	"cmp"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// GangScheduling places the pods of a PodGroup (scheduling.k8s.io) together: with the policy gang, at least minCount of them, or none.
type GangScheduling struct{}

var _ scheduler.GroupPlugin = GangScheduling{}

// Name implements scheduler.Plugin.
func (GangScheduling) Name() string { return "GangScheduling" }

func podGroupOf(pod *scheduler.Pod) string {
	if g := pod.Object.Spec.SchedulingGroup; g != nil && g.PodGroupName != nil {
		return *g.PodGroupName
	}
	return ""
}

// Group implements scheduler.GroupPlugin.
func (GangScheduling) Group(pod *scheduler.Pod, view *scheduler.View) (scheduler.Group, *scheduler.Rejection) {
	name := podGroupOf(pod)
	if name == "" {
		return scheduler.Group{}, nil
	}
	g := scheduler.Group{Name: pod.Object.Namespace + "/" + name, Min: 1}
	obj := view.PodGroup(pod.Object.Namespace, name)
	if obj == nil {
		return g, scheduler.Reject(fmt.Sprintf("waiting for pods's pod group %q to appear in scheduling queue", name))
	}
	if gang := obj.Spec.SchedulingPolicy.Gang; gang != nil {
		g.Min = int(gang.MinCount)
	}
	return g, nil
}

// Mismatch implements scheduler.GroupPlugin: the pods have one scheduler, one preemption policy, and their group's priority.
func (GangScheduling) Mismatch(_ scheduler.Group, pods []*scheduler.Pod, view *scheduler.View) string {
	first := pods[0].Object
	var priority int32
	if obj := view.PodGroup(first.Namespace, podGroupOf(pods[0])); obj != nil && obj.Spec.Priority != nil {
		priority = *obj.Spec.Priority
	}
	for _, p := range pods {
		obj := p.Object
		if obj.Spec.SchedulerName != first.Spec.SchedulerName {
			return fmt.Sprintf("all pods in a single pod group should have the same .spec.schedulerName set, got: %q and %q", obj.Spec.SchedulerName, first.Spec.SchedulerName)
		}
		if p.Priority != priority {
			return fmt.Sprintf("all pods in a single pod group should have the same priority as the pod group's priority, got %d and %d", p.Priority, priority)
		}
		if a, b := preemptionPolicy(obj), preemptionPolicy(first); a != b {
			return fmt.Sprintf("all pods in a single pod group should have the same preemption policy, got %v and %v", a, b)
		}
	}
	return ""
}

func preemptionPolicy(pod *corev1.Pod) corev1.PreemptionPolicy {
	if pod.Spec.PreemptionPolicy != nil {
		return *pod.Spec.PreemptionPolicy
	}
	return corev1.PreemptLowerPriority
}

// Hint implements scheduler.Hinter.
func (GangScheduling) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	name := podGroupOf(pod)
	if name == "" {
		return false
	}
	switch {
	case c.AssignedPod != nil:
		return c.OldPod == nil && c.AssignedPod.Object.Namespace == pod.Object.Namespace && podGroupOf(c.AssignedPod) == name
	case c.PodGroup != nil:
		if c.PodGroup.Namespace != pod.Object.Namespace || c.PodGroup.Name != name {
			return false
		}
		if c.OldPodGroup == nil {
			return true
		}
		now, old := c.PodGroup.Spec.SchedulingPolicy.Gang, c.OldPodGroup.Spec.SchedulingPolicy.Gang
		return now != nil && old != nil && now.MinCount < old.MinCount
	}
	return false
}

// The label and the annotation of LabelGroups, as the public scheduler-plugins have them for pods without a group object.
const (
	GroupLabel          = "pod-group.scheduling.sigs.k8s.io/name"
	MinAvailableLabel   = "pod-group.scheduling.sigs.k8s.io/min-available"
	defaultMinAvailable = 1
)

// LabelGroups places pods together by their labels, for clusters whose API has no PodGroup: GroupLabel names the group, MinAvailableLabel, the same on
// all of its pods, says how many must have places at the least.
type LabelGroups struct{}

var _ scheduler.GroupPlugin = LabelGroups{}

// Name implements scheduler.Plugin.
func (LabelGroups) Name() string { return "LabelGroups" }

// Group implements scheduler.GroupPlugin.
func (LabelGroups) Group(pod *scheduler.Pod, _ *scheduler.View) (scheduler.Group, *scheduler.Rejection) {
	name := pod.Object.Labels[GroupLabel]
	if name == "" {
		return scheduler.Group{}, nil
	}
	g := scheduler.Group{Name: pod.Object.Namespace + "/" + name, Min: defaultMinAvailable}
	if text, ok := pod.Object.Labels[MinAvailableLabel]; ok {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return g, scheduler.Reject(fmt.Sprintf("label %s: want a positive number, got %q", MinAvailableLabel, text))
		}
		g.Min = n
	}
	return g, nil
}

// Mismatch implements scheduler.GroupPlugin.
func (LabelGroups) Mismatch(_ scheduler.Group, pods []*scheduler.Pod, _ *scheduler.View) string {
	min := func(p *scheduler.Pod) string { return cmp.Or(p.Object.Labels[MinAvailableLabel], "1") }
	for _, p := range pods {
		if a, b := min(p), min(pods[0]); a != b {
			return fmt.Sprintf("all pods in a single pod group should have the same label %s, got %s and %s", MinAvailableLabel, a, b)
		}
		if a, b := p.Object.Spec.SchedulerName, pods[0].Object.Spec.SchedulerName; a != b {
			return fmt.Sprintf("all pods in a single pod group should have the same .spec.schedulerName set, got: %q and %q", a, b)
		}
	}
	return ""
}

// Hint implements scheduler.Hinter.
func (LabelGroups) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	return c.AssignedPod != nil && c.OldPod == nil && c.AssignedPod.Object.Namespace == pod.Object.Namespace &&
		c.AssignedPod.Object.Labels[GroupLabel] == pod.Object.Labels[GroupLabel]
}
