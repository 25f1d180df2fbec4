package podstate

import corev1 "k8s.io/api/core/v1"

// Probe is a probe that is to run on a container.
type Probe struct {
	Container   string
	ContainerID string
	Kind        ProbeKind
	Spec        *corev1.Probe
	// Since is when the container started, in seconds of Unix time.
	Since int64
}

// Probes lists the probes to run now: the startup probe until it succeeds, then readiness and liveness; of a pod that
// is being stopped only readiness.
func (m *Machine) Probes(in Input, terminating bool) []Probe {
	var out []Probe
	last := m.status
	if last == nil {
		last = &in.Pod.Status
	}
	var v *view
	each := func(c *corev1.Container) {
		if c.StartupProbe == nil && c.ReadinessProbe == nil && c.LivenessProbe == nil {
			return
		}
		if _, ok := m.starting(c.Name); ok {
			return
		}
		if v == nil {
			v = newView(&in, last)
		}
		x, _ := v.newest(c.Name)
		if x == nil || x.State != Running {
			return
		}
		if _, stopping := m.inflight["stop/"+x.ID]; stopping && !terminating {
			return
		}
		add := func(k ProbeKind, p *corev1.Probe) {
			if p != nil {
				out = append(out, Probe{Container: c.Name, ContainerID: x.ID, Kind: k, Spec: p, Since: x.StartedAt.Unix()})
			}
		}
		if !m.startupDone(v, c, x) {
			if !terminating {
				add(Startup, c.StartupProbe)
			}
			return
		}
		add(Readiness, c.ReadinessProbe)
		if !terminating {
			add(Liveness, c.LivenessProbe)
		}
	}
	for i := range in.Pod.Spec.InitContainers {
		if IsSidecar(&in.Pod.Spec.InitContainers[i]) {
			each(&in.Pod.Spec.InitContainers[i])
		}
	}
	for i := range in.Pod.Spec.Containers {
		each(&in.Pod.Spec.Containers[i])
	}
	return out
}
