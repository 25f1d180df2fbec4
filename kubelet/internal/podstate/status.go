package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// publish makes the pod's status and remembers it. Two decisions with nothing changed between them return the same value.
func (m *Machine) publish(v *view, d *Decision) corev1.PodStatus {
	st := m.podStatus(v, d)
	if m.status != nil && apiequality.Semantic.DeepEqual(&st, m.status) {
		return *m.status
	}
	m.status = &st
	return st
}

func (m *Machine) podStatus(v *view, d *Decision) corev1.PodStatus {
	in, old := v.in, v.last
	api := &in.Pod.Status
	st := corev1.PodStatus{
		ObservedGeneration: in.Pod.Generation,
		NominatedNodeName:  api.NominatedNodeName,
		Resize:             api.Resize, ResourceClaimStatuses: api.ResourceClaimStatuses,
		ExtendedResourceClaimStatus: api.ExtendedResourceClaimStatus,
		QOSClass:                    api.QOSClass,
		Reason:                      api.Reason, Message: api.Message,
	}
	if st.QOSClass == "" {
		st.QOSClass = QOS(in.Pod)
	}
	if m.started != nil {
		st.StartTime = &metav1.Time{Time: m.started.Truncate(time.Second)}
	}
	// A pod that failed or succeeded stays so, and a refused one never had containers.
	if terminal(api.Phase) && len(in.Containers) == 0 && len(in.Sandboxes) == 0 {
		keep := *api.DeepCopy()
		keep.ObservedGeneration = st.ObservedGeneration
		if keep.StartTime == nil {
			keep.StartTime = st.StartTime
		}
		return keep
	}
	if in.Rejected != nil && !m.ran(v) {
		st.Phase, st.Reason, st.Message = corev1.PodFailed, in.Rejected.Reason, in.Rejected.Message
		m.conditions(v, &st, false)
		return st
	}
	final := d.Stopped
	m.addresses(v, &st, old)
	initial := ReasonContainerCreating
	if len(v.spec.InitContainers) > 0 {
		initial = ReasonPodInitializing
	}
	if n := len(v.spec.InitContainers); n > 0 {
		st.InitContainerStatuses = make([]corev1.ContainerStatus, n)
		for i := range v.spec.InitContainers {
			c := &v.spec.InitContainers[i]
			r := initContainer
			if IsSidecar(c) {
				r = sidecar
			}
			st.InitContainerStatuses[i] = m.containerStatus(v, c, r, initial, final, d.Terminating)
		}
	}
	st.ContainerStatuses = make([]corev1.ContainerStatus, len(v.spec.Containers))
	for i := range v.spec.Containers {
		st.ContainerStatuses[i] = m.containerStatus(v, &v.spec.Containers[i], mainContainer, initial, final, d.Terminating)
	}
	for i := range v.spec.EphemeralContainers {
		c := corev1.Container(v.spec.EphemeralContainers[i].EphemeralContainerCommon)
		s := m.containerStatus(v, &c, mainContainer, ReasonContainerCreating, final, true)
		st.EphemeralContainerStatuses = append(st.EphemeralContainerStatuses, s)
	}
	m.phase(v, &st, d)
	m.conditions(v, &st, v.sandbox != nil && !d.Stopped)
	return st
}

// ran tells if the pod has anything in the runtime, or is about to.
func (m *Machine) ran(v *view) bool {
	return len(v.in.Containers) > 0 || len(v.in.Sandboxes) > 0 || m.status != nil && len(m.status.ContainerStatuses) > 0
}

func (m *Machine) addresses(v *view, st *corev1.PodStatus, old *corev1.PodStatus) {
	for _, ip := range v.in.HostIPs {
		st.HostIPs = append(st.HostIPs, corev1.HostIP{IP: ip})
	}
	if len(v.in.HostIPs) > 0 {
		st.HostIP = v.in.HostIPs[0]
	}
	switch {
	case v.spec.HostNetwork:
		for _, ip := range v.in.HostIPs {
			st.PodIPs = append(st.PodIPs, corev1.PodIP{IP: ip})
		}
	case v.sandbox != nil:
		for _, ip := range v.sandbox.IPs {
			st.PodIPs = append(st.PodIPs, corev1.PodIP{IP: ip})
		}
	default:
		st.PodIPs = old.PodIPs
	}
	if len(st.PodIPs) > 0 {
		st.PodIP = st.PodIPs[0].IP
	}
}

func (m *Machine) containerStatus(v *view, c *corev1.Container, r role, initial string, final, terminating bool) corev1.ContainerStatus {
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: initial}}}
	started := false
	s.Started = &started
	x, before := v.newest(c.Name)
	if a, ok := m.starting(c.Name); ok && x != nil && x.Attempt == a.Attempt && x.State != Exited {
		// What is being started shows when its start is over.
		x, before = before, nil
		if x != nil {
			_, before = v.olderThan(x)
		}
	}
	if before != nil && before.State == Exited {
		s.LastTerminationState = corev1.ContainerState{Terminated: v.terminated(before)}
	}
	if x == nil || x.State == Created {
		m.explainWaiting(&s, c.Name)
		if x != nil {
			s.RestartCount = int32(x.Attempt)
		}
		if final && m.initializedOnce(v) {
			s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 137, Reason: ReasonStatusUnknown,
				Message: "The container could not be located when the pod was terminated",
			}}
		}
		return s
	}
	s.RestartCount = int32(x.Attempt)
	s.ContainerID = v.id(x)
	if x.Image != "" {
		s.Image = x.Image
	}
	s.ImageID = x.ImageID
	s.User = x.User
	switch x.State {
	case Running:
		s.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: x.StartedAt.Truncate(time.Second)}}}
		started = m.startupDone(v, c, x)
		s.Ready = r != initContainer && m.ready(v, c, x)
		s.VolumeMounts = mountStatuses(c)
		s.AllocatedResources = c.Resources.Requests
		if len(c.Resources.Limits)+len(c.Resources.Requests) > 0 {
			s.Resources = &corev1.ResourceRequirements{Limits: c.Resources.Limits, Requests: c.Resources.Requests}
		}
	case Exited:
		t := v.terminated(x)
		s.State = corev1.ContainerState{Terminated: t}
		if r == initContainer {
			s.Ready = x.ExitCode == 0
		}
		again := !terminating && (r == sidecar || shouldRestart(v.spec, c, x.ExitCode, r == initContainer))
		if mem := m.containers[c.Name]; again && mem != nil && mem.waiting.Reason != "" {
			s.LastTerminationState = s.State
			m.explainWaiting(&s, c.Name)
		}
	case Unknown:
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: ReasonStatusUnknown}}
	}
	return s
}

func (m *Machine) explainWaiting(s *corev1.ContainerStatus, name string) {
	if mem := m.containers[name]; mem != nil && mem.waiting.Reason != "" {
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: mem.waiting.Reason, Message: mem.waiting.Message}}
	}
}

// olderThan returns x again and the container of the same name that was made before it.
func (v *view) olderThan(x *Container) (*Container, *Container) {
	var before *Container
	for i := range v.containers {
		y := &v.containers[i]
		if y.Name == x.Name && y.Attempt < x.Attempt && (before == nil || y.Attempt > before.Attempt) {
			before = y
		}
	}
	return x, before
}

func (v *view) terminated(x *Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: x.ExitCode, Reason: x.Reason, Message: x.Message, ContainerID: v.id(x),
		FinishedAt: metav1.Time{Time: x.FinishedAt.Truncate(time.Second)},
	}
	if !x.StartedAt.IsZero() {
		t.StartedAt = metav1.Time{Time: x.StartedAt.Truncate(time.Second)}
	}
	if t.Reason == "" {
		t.Reason = "Error"
		if x.ExitCode == 0 {
			t.Reason = "Completed"
		}
	}
	return t
}

func mountStatuses(c *corev1.Container) []corev1.VolumeMountStatus {
	if len(c.VolumeMounts) == 0 {
		return nil
	}
	out := make([]corev1.VolumeMountStatus, len(c.VolumeMounts))
	for i := range c.VolumeMounts {
		vm := &c.VolumeMounts[i]
		out[i] = corev1.VolumeMountStatus{Name: vm.Name, MountPath: vm.MountPath, ReadOnly: vm.ReadOnly}
		if vm.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			out[i].RecursiveReadOnly = &mode
		}
	}
	return out
}

// initializedOnce tells if the pod has ever got as far as its main containers.
func (m *Machine) initializedOnce(v *view) bool {
	for i := range v.spec.Containers {
		if x, _ := v.newest(v.spec.Containers[i].Name); x != nil {
			return true
		}
	}
	return false
}
