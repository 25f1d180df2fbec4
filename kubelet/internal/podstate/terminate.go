package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// terminate stops what runs, in order, and then gives back what the pod holds.
func (m *Machine) terminate(v *view, d *Decision) {
	in := v.in
	if m.stopSince.IsZero() {
		m.stopSince = in.Now
	}
	m.cancelStarts(d)
	running := m.stopContainers(v, d)
	for _, a := range m.inflight {
		switch a.Kind {
		case StartContainer, StopContainer, CreateSandbox, PrepareVolumes:
			running = true
		}
	}
	if running {
		return
	}
	d.Stopped = true
	ready := false
	for i := range in.Sandboxes {
		if in.Sandboxes[i].Ready {
			ready = true
			m.act(d, in, Action{Kind: StopSandbox, SandboxID: in.Sandboxes[i].ID})
		}
	}
	if ready {
		return
	}
	if !m.cleaned {
		m.act(d, in, Action{Kind: CleanUp})
		return
	}
	if in.Gone {
		for i := range in.Sandboxes {
			m.act(d, in, Action{Kind: RemoveSandbox, SandboxID: in.Sandboxes[i].ID})
		}
		if len(in.Sandboxes) == 0 {
			for i := range in.Containers {
				m.act(d, in, Action{Kind: RemoveContainer, Container: in.Containers[i].Name, ContainerID: in.Containers[i].ID})
			}
		}
		d.Done = len(in.Sandboxes) == 0 && len(in.Containers) == 0 && len(m.inflight) == 0
		return
	}
	if in.Pod.DeletionTimestamp != nil && in.Written && !m.removed && terminal(m.lastPhase()) {
		m.act(d, in, Action{Kind: DeletePod})
	}
}

func (m *Machine) lastPhase() corev1.PodPhase {
	if m.status == nil {
		return ""
	}
	return m.status.Phase
}

func (m *Machine) cancelStarts(d *Decision) {
	for key, a := range m.inflight {
		switch a.Kind {
		case StartContainer, CreateSandbox, PrepareVolumes:
			d.Cancel = append(d.Cancel, key)
		}
	}
}

// stopContainers stops main containers at once, and sidecars in reverse order after everything they serve. It tells if any
// container still runs.
func (m *Machine) stopContainers(v *view, d *Decision) bool {
	in := v.in
	deadline := m.stopSince.Add(m.grace(in))
	running := false
	stop := func(x *Container) {
		running = true
		left := max(deadline.Sub(in.Now), minimumGrace)
		if m.grace(in) < minimumGrace {
			left = m.grace(in)
		}
		m.act(d, in, Action{Kind: StopContainer, Container: x.Name, ContainerID: x.ID, Grace: left, Message: "Stopping container " + x.Name})
	}
	alive := func(x *Container) bool { return x.State == Running || x.State == Unknown }
	order := sidecarOrder(v.spec)
	for i := range in.Containers {
		if x := &in.Containers[i]; alive(x) && order[x.Name] == 0 {
			stop(x)
		}
	}
	late := !in.Now.Before(deadline)
	// Sidecars: the last one first, each when nothing after it runs.
	for n := len(order); n > 0; n-- {
		for i := range in.Containers {
			x := &in.Containers[i]
			if !alive(x) || order[x.Name] != n {
				continue
			}
			if !running || late {
				stop(x)
			} else if _, busy := m.inflight["stop/"+x.ID]; !busy {
				d.wake(deadline)
			}
		}
		for i := range in.Containers {
			if x := &in.Containers[i]; alive(x) && order[x.Name] == n {
				running = true
			}
		}
	}
	return running
}

// sidecarOrder numbers the sidecars from 1 in the order they start.
func sidecarOrder(spec *corev1.PodSpec) map[string]int {
	var order map[string]int
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; IsSidecar(c) {
			if order == nil {
				order = make(map[string]int)
			}
			order[c.Name] = len(order) + 1
		}
	}
	return order
}

// grace is how long the pod may take to stop: as the deletion says, or else as the spec does.
func (m *Machine) grace(in *Input) time.Duration {
	if in.Pod.DeletionTimestamp != nil && in.Pod.DeletionGracePeriodSeconds != nil {
		return max(time.Duration(*in.Pod.DeletionGracePeriodSeconds)*time.Second, time.Second)
	}
	return m.specGrace(in.Pod)
}
