package podstate

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// IsSidecar tells if an init container is restartable.
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// shouldRestart tells if a container that exited is to be started again. init says that it is an ordinary init container.
func shouldRestart(spec *corev1.PodSpec, c *corev1.Container, exitCode int32, init bool) bool {
	for i := range c.RestartPolicyRules {
		r := &c.RestartPolicyRules[i]
		if r.ExitCodes == nil || r.Action != corev1.ContainerRestartRuleActionRestart {
			continue
		}
		in := slices.Contains(r.ExitCodes.Values, exitCode)
		if in == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return true
		}
	}
	policy := spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	if init && policy == corev1.RestartPolicyAlways {
		policy = corev1.RestartPolicyOnFailure
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	}
	return true
}

// sync brings up what is to run.
func (m *Machine) sync(v *view, d *Decision) {
	in := v.in
	if !m.volumesReady {
		m.act(d, in, Action{Kind: PrepareVolumes})
	}
	for i := range in.Sandboxes {
		if s := &in.Sandboxes[i]; s.Ready && s != v.sandbox {
			m.act(d, in, Action{Kind: StopSandbox, SandboxID: s.ID})
		}
	}
	if m.ended(v) {
		m.finishing = true
		return
	}
	if v.sandbox == nil {
		m.newSandbox(v, d)
		return
	}
	if m.syncInit(v, d) {
		for i := range v.spec.Containers {
			m.syncContainer(v, d, &v.spec.Containers[i], mainContainer)
		}
	}
	for i := range v.spec.EphemeralContainers {
		m.syncEphemeral(v, d, &v.spec.EphemeralContainers[i])
	}
}

// ended tells if the pod has run to its end: every container has exited and is not to be restarted, or an init container
// has failed for good.
func (m *Machine) ended(v *view) bool {
	for i := range v.spec.InitContainers {
		c := &v.spec.InitContainers[i]
		if IsSidecar(c) {
			continue
		}
		if m.exitedForGood(v, c, true) {
			if x, _ := v.newest(c.Name); x.ExitCode != 0 {
				return true
			}
		}
	}
	for i := range v.spec.Containers {
		if !m.exitedForGood(v, &v.spec.Containers[i], false) {
			return false
		}
	}
	return len(v.spec.Containers) > 0
}

func (m *Machine) exitedForGood(v *view, c *corev1.Container, init bool) bool {
	if _, ok := m.starting(c.Name); ok {
		return false
	}
	x, _ := v.newest(c.Name)
	if x == nil || x.State != Exited {
		return false
	}
	return !shouldRestart(v.spec, c, x.ExitCode, init)
}

func (m *Machine) newSandbox(v *view, d *Decision) {
	in := v.in
	// Containers of a sandbox that is gone cannot stay.
	for i := range in.Containers {
		if in.Containers[i].State == Running {
			m.act(d, in, Action{Kind: StopSandbox, SandboxID: in.Containers[i].SandboxID})
			return
		}
	}
	if !m.volumesReady || m.underWay(StartContainer) || m.underWay(StopSandbox) {
		return
	}
	var attempt uint32
	if v.latest != nil {
		attempt = v.latest.Attempt + 1
		// A pod that is never restarted gets no second sandbox once a container of it has run.
		if v.spec.RestartPolicy == corev1.RestartPolicyNever && len(v.containers) > 0 && !m.anyRestartable(v) {
			m.finishing = true
			return
		}
		if len(m.inflight) == 0 && m.retries["create-sandbox"].at.IsZero() {
			d.Events = append(d.Events, Event{Type: corev1.EventTypeNormal, Reason: "SandboxChanged", Message: "Pod sandbox changed, it will be killed and re-created."})
		}
	}
	m.act(d, in, Action{Kind: CreateSandbox, Attempt: attempt})
}

// anyRestartable tells if container-level rules let a container run again in a pod that is never restarted.
func (m *Machine) anyRestartable(v *view) bool {
	for i := range v.spec.Containers {
		c := &v.spec.Containers[i]
		if c.RestartPolicy == nil && len(c.RestartPolicyRules) == 0 {
			continue
		}
		if x, _ := v.newest(c.Name); x != nil && x.State == Exited && shouldRestart(v.spec, c, x.ExitCode, false) {
			return true
		}
	}
	return false
}

// initialized tells if the pod's main containers have been let loose in the current sandbox.
func (m *Machine) initialized(v *view) bool {
	for i := range v.spec.Containers {
		if _, ok := m.starting(v.spec.Containers[i].Name); ok {
			return true
		}
		if x, _ := v.newest(v.spec.Containers[i].Name); x != nil && v.sandbox != nil && x.SandboxID == v.sandbox.ID {
			return true
		}
	}
	return false
}

// syncInit brings the init containers forward, and answers true when the main containers may run.
func (m *Machine) syncInit(v *view, d *Decision) bool {
	done := m.initialized(v)
	if done {
		for i := range v.spec.InitContainers {
			if c := &v.spec.InitContainers[i]; IsSidecar(c) {
				m.syncContainer(v, d, c, sidecar)
			}
		}
		return true
	}
	// What a later init container has begun proves that the earlier ones were done.
	reached := -1
	for i := range v.spec.InitContainers {
		if x, _ := v.newest(v.spec.InitContainers[i].Name); x != nil && x.SandboxID == v.sandbox.ID {
			reached = i
		}
	}
	for i := range v.spec.InitContainers {
		c := &v.spec.InitContainers[i]
		x, _ := v.newest(c.Name)
		here := x != nil && x.SandboxID == v.sandbox.ID
		_, starting := m.starting(c.Name)
		if IsSidecar(c) {
			m.syncContainer(v, d, c, sidecar)
			if i < reached {
				continue
			}
			if starting || !here || x.State != Running || !m.startupDone(v, c, x) {
				return false
			}
			continue
		}
		if !starting && (here && x.State == Exited && x.ExitCode == 0 || i < reached && !here) {
			continue
		}
		m.syncContainer(v, d, c, initContainer)
		return false
	}
	return true
}

type role uint8

const (
	mainContainer role = iota
	initContainer
	sidecar
)

// syncContainer brings one container to where it should be: running, or exited and not to be restarted.
func (m *Machine) syncContainer(v *view, d *Decision, c *corev1.Container, r role) {
	if _, ok := m.starting(c.Name); ok {
		return
	}
	x, _ := v.newest(c.Name)
	if x != nil {
		if _, busy := m.inflight["stop/"+x.ID]; busy {
			return
		}
	}
	here := x != nil && v.sandbox != nil && x.SandboxID == v.sandbox.ID
	switch {
	case x == nil:
		m.start(v, d, c, 0)
	case x.State == Running:
		if msg, grace, bad := m.unhealthy(v, c, x); bad {
			m.act(d, v.in, Action{Kind: StopContainer, Container: c.Name, ContainerID: x.ID, Grace: grace, Message: msg})
		}
	case x.State == Created:
		m.act(d, v.in, Action{Kind: RemoveContainer, Container: c.Name, ContainerID: x.ID})
	case x.State == Unknown:
		m.act(d, v.in, Action{
			Kind: StopContainer, Container: c.Name, ContainerID: x.ID, Grace: minimumGrace,
			Message: fmt.Sprintf("Container is in %q state, try killing it before restart", "unknown"),
		})
	case !here && r == initContainer && x.ExitCode == 0:
		m.start(v, d, c, x.Attempt+1)
	case r == sidecar || shouldRestart(v.spec, c, x.ExitCode, r == initContainer):
		if m.inBackoff(v, d, c.Name, x) {
			return
		}
		m.start(v, d, c, x.Attempt+1)
	}
}

func (m *Machine) syncEphemeral(v *view, d *Decision, e *corev1.EphemeralContainer) {
	if x, _ := v.newest(e.Name); x != nil {
		return
	}
	if _, ok := m.starting(e.Name); ok {
		return
	}
	c := corev1.Container(e.EphemeralContainerCommon)
	m.start(v, d, &c, 0)
}

func (m *Machine) start(v *view, d *Decision, c *corev1.Container, attempt uint32) {
	if !m.volumesReady {
		return
	}
	if mem := m.containers[c.Name]; mem != nil && v.in.Now.Before(mem.retryAt) {
		d.wake(mem.retryAt)
		if mem.waiting.Reason == ReasonErrImagePull {
			if shown := mem.pullFailed.Add(pullErrorShown); v.in.Now.Before(shown) {
				d.wake(shown)
				return
			}
			mem.waiting = Failure{Reason: ReasonImagePullBackOff, Message: fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", c.Image, mem.waiting.Message)}
			d.Events = append(d.Events,
				Event{Type: corev1.EventTypeNormal, Reason: "BackOff", Message: fmt.Sprintf("Back-off pulling image %q", c.Image), Container: c.Name},
				Event{Type: corev1.EventTypeWarning, Reason: "Failed", Message: "Error: ImagePullBackOff", Container: c.Name})
		}
		return
	}
	m.act(d, v.in, Action{Kind: StartContainer, Container: c.Name, SandboxID: v.sandbox.ID, Attempt: attempt})
}

// inBackoff tells if a container that exited has to wait before it is started again, and if not, lengthens the next wait.
func (m *Machine) inBackoff(v *view, d *Decision, name string, x *Container) bool {
	mem, now := m.memory(name), v.in.Now
	exited := x.FinishedAt
	if exited.IsZero() {
		exited = x.CreatedAt
	}
	if mem.backoff > 0 && exited.Sub(mem.backoffAt) > 2*MaxBackoff {
		mem.backoff = 0
	}
	if until := exited.Add(mem.backoff); mem.backoff > 0 && now.Before(until) {
		mem.waiting = Failure{
			Reason:  ReasonCrashLoopBackOff,
			Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", mem.backoff, name, PodName(v.in.Pod)),
		}
		if mem.backoffFor != x.ID {
			mem.backoffFor = x.ID
			d.Events = append(d.Events, Event{
				Type: corev1.EventTypeWarning, Reason: "BackOff", Container: name,
				Message: fmt.Sprintf("Back-off restarting failed container %s in pod %s", name, PodName(v.in.Pod)),
			})
		}
		d.wake(until)
		return true
	}
	if !m.volumesReady || now.Before(mem.retryAt) {
		return false
	}
	mem.backoff = min(max(2*mem.backoff, InitialBackoff), MaxBackoff)
	mem.backoffAt = now
	return false
}

// unhealthy tells if a running container is to be stopped and started again, and how long it may take to stop.
func (m *Machine) unhealthy(v *view, c *corev1.Container, x *Container) (msg string, grace time.Duration, bad bool) {
	grace = m.specGrace(v.in.Pod)
	if x.SpecImage != "" && x.SpecImage != c.Image {
		return fmt.Sprintf("Container %s definition changed, will be restarted", c.Name), grace, true
	}
	mem := m.containers[c.Name]
	if mem == nil || mem.probesOf != x.ID {
		return "", 0, false
	}
	override := func(p *corev1.Probe) {
		if p != nil && p.TerminationGracePeriodSeconds != nil {
			grace = max(time.Duration(*p.TerminationGracePeriodSeconds)*time.Second, time.Second)
		}
	}
	switch {
	case mem.probes[Startup] == ProbeFailure:
		override(c.StartupProbe)
		return fmt.Sprintf("Container %s failed startup probe, will be restarted", c.Name), grace, true
	case mem.probes[Liveness] == ProbeFailure:
		override(c.LivenessProbe)
		return fmt.Sprintf("Container %s failed liveness probe, will be restarted", c.Name), grace, true
	}
	return "", 0, false
}

func (m *Machine) specGrace(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return max(time.Duration(*s)*time.Second, time.Second)
	}
	return 30 * time.Second
}

func (m *Machine) probe(name, id string, kind ProbeKind) ProbeResult {
	if mem := m.containers[name]; mem != nil && mem.probesOf == id {
		return mem.probes[kind]
	}
	return ProbeUnknown
}

// startupDone tells if a running container has started in the sense of its startup probe.
func (m *Machine) startupDone(v *view, c *corev1.Container, x *Container) bool {
	if c.StartupProbe == nil {
		return true
	}
	switch m.probe(c.Name, x.ID, Startup) {
	case ProbeSuccess:
		return true
	case ProbeUnknown:
		// A kubelet that has just come back believes what it said before.
		s := findStatus(&v.in.Pod.Status, c.Name)
		return s != nil && s.Started != nil && *s.Started && s.ContainerID == v.id(x)
	}
	return false
}

func (m *Machine) ready(v *view, c *corev1.Container, x *Container) bool {
	if !m.startupDone(v, c, x) {
		return false
	}
	if c.ReadinessProbe == nil {
		return true
	}
	switch m.probe(c.Name, x.ID, Readiness) {
	case ProbeSuccess:
		return true
	case ProbeUnknown:
		s := findStatus(&v.in.Pod.Status, c.Name)
		return s != nil && s.Ready && s.ContainerID == v.id(x)
	}
	return false
}

func (v *view) id(x *Container) string {
	if v.in.RuntimeName == "" {
		return "cri://" + x.ID
	}
	return v.in.RuntimeName + "://" + x.ID
}

func findStatus(st *corev1.PodStatus, name string) *corev1.ContainerStatus {
	for _, list := range [...][]corev1.ContainerStatus{st.ContainerStatuses, st.InitContainerStatuses, st.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}
