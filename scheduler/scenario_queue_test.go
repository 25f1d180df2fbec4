package scheduler_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/keelson/keelson/scheduler"
)

// scenarioTime is when everything happens: pods that back off are tried at once where no other is to be tried.
var scenarioTime = time.Unix(1000, 0)

func (s *scenario) changed(c scheduler.ClusterChange) {
	if c != (scheduler.ClusterChange{}) {
		s.queue.Changed(c, scenarioTime)
	}
}

// enqueue is the command queue.
func (s *scenario) enqueue(lines []string) string {
	var out strings.Builder
	var came []*scheduler.Pod
	for _, line := range lines {
		pod := scheduler.NewPod(s.pod(line))
		came = append(came, pod)
		s.queue.Add(pod, scenarioTime)
	}
	tried := map[string]bool{}
	for a, ok := s.queue.Pop(scenarioTime); ok; a, ok = s.queue.Pop(scenarioTime) {
		all, min := s.queue.Gather(a)
		for _, a := range all {
			tried[a.Pod.Object.Name] = true
		}
		if a.Pod.Object.Spec.SchedulingGroup != nil {
			out.WriteString(s.decideGroup(all, min))
			continue
		}
		out.WriteString(s.decideOne(a))
	}
	for _, p := range came {
		if name := p.Object.Name; !tried[name] {
			if r := s.engine.PreEnqueue(p); r != nil {
				fmt.Fprintf(&out, "%s: not tried, for %s: %s\n", name, r.Plugin, strings.Join(r.Reasons, ", "))
			} else {
				fmt.Fprintf(&out, "%s: not tried\n", name)
			}
		}
	}
	return out.String()
}

// decideOne decides for a pod that is in no group.
func (s *scenario) decideOne(a scheduler.Attempt) string {
	d := s.engine.Schedule(a.Pod)
	if !d.Fits() {
		s.queue.Fail(a, d.Plugins, scenarioTime)
		return s.rejected(a.Pod, &d)
	}
	if err := s.engine.Reserve(a.Pod, d.Node); err != nil {
		s.engine.Remove(a.Pod.Object.UID)
		s.queue.Remove(a.Pod.Object.UID)
		return fmt.Sprintf("%s: %v\n", a.Pod.Object.Name, err)
	}
	s.queue.Remove(a.Pod.Object.UID)
	return s.placed(a.Pod, d.Node)
}

// decideGroup decides for the pods of a group that wait.
func (s *scenario) decideGroup(all []scheduler.Attempt, min int) string {
	var out strings.Builder
	pods := make([]*scheduler.Pod, len(all))
	for i, a := range all {
		pods[i] = a.Pod
	}
	ds, ok := s.engine.ScheduleGroup(pods, min)
	var room *scheduler.GroupPreemption
	var said string
	if !ok {
		room, said = s.engine.PreemptGroup(pods, min)
	}
	for i, a := range all {
		d := &ds[i]
		switch {
		case ok && d.Fits():
			s.queue.Remove(a.Pod.Object.UID)
			out.WriteString(s.placed(a.Pod, d.Node))
		case ok:
			s.queue.Fail(a, d.Plugins, scenarioTime)
			out.WriteString(s.rejected(a.Pod, d))
		default:
			if d.Group != "" { // else it has its own reasons
				d.PostFilter = said
			}
			s.queue.Fail(a, d.Plugins, scenarioTime)
			fmt.Fprintf(&out, "%s: %s\n", a.Pod.Object.Name, d.Message())
			node := ""
			if room != nil {
				node = room.Nodes[a.Pod.Object.UID]
			}
			s.engine.Nominate(a.Pod, node)
		}
	}
	if room != nil && len(room.Victims) > 0 {
		fmt.Fprintf(&out, "  preempts %s, violating %d\n", names(room.Victims), room.PDBViolations)
	}
	return out.String()
}
