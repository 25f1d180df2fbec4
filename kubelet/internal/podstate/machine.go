package podstate

import (
	"fmt"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Durations of Kubernetes' kubelet.
const (
	InitialBackoff = 10 * time.Second
	MaxBackoff     = 5 * time.Minute
	// minimumGrace is left to a container however short its grace period has become.
	minimumGrace = 2 * time.Second
	// retryMax is the longest wait before an action other than starting a container is tried again.
	retryMax = 10 * time.Second
	// pullErrorShown is how long ErrImagePull is shown before it turns into ImagePullBackOff.
	pullErrorShown = 2 * time.Second
)

// Machine remembers what a pod's decisions depend on and the runtime doesn't tell: what is under way, what failed,
// back-off, probe results. It is not safe for concurrent use. The zero value is ready to use.
type Machine struct {
	containers map[string]*containerMemory
	inflight   map[string]Action
	retries    map[string]retry
	seq        uint64

	volumesReady bool
	cleaned      bool
	removed      bool // DeletePod succeeded
	finishing    bool
	stopSince    time.Time
	started      *time.Time
	status       *corev1.PodStatus
}

type retry struct {
	delay time.Duration
	at    time.Time
}

type containerMemory struct {
	waiting    Failure
	retryAt    time.Time
	pullDelay  time.Duration
	pullFailed time.Time
	backoff    time.Duration
	backoffAt  time.Time
	backoffFor string // id of the container the BackOff event was recorded for

	probesOf string // id of the container the results belong to
	probes   [3]ProbeResult
}

// New makes a machine for a pod nothing is known of.
func New() *Machine { return &Machine{} }

func (m *Machine) memory(name string) *containerMemory {
	c := m.containers[name]
	if c == nil {
		c = &containerMemory{}
		if m.containers == nil {
			m.containers = make(map[string]*containerMemory, 1)
		}
		m.containers[name] = c
	}
	return c
}

// Probe records the verdict of a probe on a container. A verdict on a container that has been replaced is ignored later.
func (m *Machine) Probe(name, containerID string, kind ProbeKind, r ProbeResult) {
	c := m.memory(name)
	if c.probesOf != containerID {
		c.probesOf, c.probes = containerID, [3]ProbeResult{}
	}
	c.probes[kind] = r
}

// Finish says that an action ended, with f nil if it did what it should. The end of an action that another
// one replaced is ignored.
func (m *Machine) Finish(a Action, f *Failure, now time.Time) {
	key := a.Key()
	if cur, ok := m.inflight[key]; !ok || cur.seq != a.seq {
		return
	}
	if delete(m.inflight, key); len(m.inflight) == 0 {
		m.inflight = nil // an idle pod holds no map
	}
	if a.Kind == StartContainer {
		m.finishStart(a, f, now)
		return
	}
	if f != nil {
		r := m.retries[key]
		r.delay = min(max(2*r.delay, time.Second), retryMax)
		r.at = now.Add(r.delay)
		if m.retries == nil {
			m.retries = make(map[string]retry, 1)
		}
		m.retries[key] = r
		return
	}
	delete(m.retries, key)
	switch a.Kind {
	case PrepareVolumes:
		m.volumesReady, m.cleaned = true, false
	case CleanUp:
		m.volumesReady, m.cleaned = false, true
	case DeletePod:
		m.removed = true
	}
}

func (m *Machine) finishStart(a Action, f *Failure, now time.Time) {
	if f == nil && m.containers[a.Container] == nil {
		return
	}
	c := m.memory(a.Container)
	if f == nil {
		c.waiting, c.retryAt, c.pullDelay = Failure{}, time.Time{}, 0
		return
	}
	c.waiting = *f
	switch f.Reason {
	case ReasonErrImagePull:
		c.pullDelay = min(max(2*c.pullDelay, InitialBackoff), MaxBackoff)
		c.pullFailed = now
		c.retryAt = now.Add(c.pullDelay)
	case ReasonPostStartHookError, ReasonRunError:
		// The container exists and has exited: the crash back-off takes over.
		c.retryAt = time.Time{}
	case "":
		// Cancelled.
		c.waiting, c.retryAt = Failure{}, now
	default:
		c.retryAt = now.Add(InitialBackoff)
	}
}

// act adds an action to the decision unless it is under way or waits to be tried again.
func (m *Machine) act(d *Decision, in *Input, a Action) {
	key := a.Key()
	a.until = in.Now.Add(a.Grace)
	if cur, ok := m.inflight[key]; ok && (a.Kind != StopContainer || !a.until.Before(cur.until)) {
		return
	}
	if r, ok := m.retries[key]; ok && in.Now.Before(r.at) {
		d.wake(r.at)
		return
	}
	m.seq++
	a.seq = m.seq
	if m.inflight == nil {
		m.inflight = make(map[string]Action, 1)
	}
	m.inflight[key] = a
	d.Actions = append(d.Actions, a)
}

func (m *Machine) underWay(kind ActionKind) bool {
	for _, a := range m.inflight {
		if a.Kind == kind {
			return true
		}
	}
	return false
}

func (m *Machine) starting(name string) (Action, bool) {
	if len(m.inflight) == 0 {
		return Action{}, false
	}
	a, ok := m.inflight["start/"+name]
	return a, ok
}

func (d *Decision) wake(at time.Time) {
	if d.WakeAt.IsZero() || at.Before(d.WakeAt) {
		d.WakeAt = at
	}
}

// view is the runtime's state arranged by the pod's spec.
type view struct {
	in      *Input
	spec    *corev1.PodSpec
	sandbox *Sandbox // the newest one that is ready
	latest  *Sandbox // the newest one
	// containers are the runtime's, and one that exited for each that the last status had and the runtime lost.
	containers []Container
	last       *corev1.PodStatus // the status published last
}

func newView(in *Input, last *corev1.PodStatus) *view {
	v := &view{in: in, spec: &in.Pod.Spec, containers: in.Containers, last: last}
	for i := range in.Sandboxes {
		s := &in.Sandboxes[i]
		if newer(s, v.latest) {
			v.latest = s
		}
		if s.Ready && newer(s, v.sandbox) {
			v.sandbox = s
		}
	}
	if !in.Gone {
		for _, list := range [...][]corev1.ContainerStatus{last.InitContainerStatuses, last.ContainerStatuses, last.EphemeralContainerStatuses} {
			for i := range list {
				if s := &list[i]; s.ContainerID != "" && !has(in.Containers, s.Name) {
					v.containers = append(v.containers[:len(v.containers):len(v.containers)], lost(s))
				}
			}
		}
	}
	return v
}

func has(list []Container, name string) bool {
	for i := range list {
		if list[i].Name == name {
			return true
		}
	}
	return false
}

// lost is a container that had run and the runtime knows no more.
func lost(s *corev1.ContainerStatus) Container {
	_, id, _ := strings.Cut(s.ContainerID, "://")
	c := Container{
		ID: id, Name: s.Name, State: Exited, Attempt: uint32(max(s.RestartCount, 0)), ExitCode: 137, Reason: ReasonStatusUnknown,
		Message: "The container could not be located when the pod was deleted.  The container used to be Running", Image: s.Image, ImageID: s.ImageID,
	}
	t := s.State.Terminated
	if t == nil {
		t = s.LastTerminationState.Terminated
		if s.State.Running != nil || t != nil && t.ContainerID != s.ContainerID {
			t = nil
		}
	}
	if t != nil {
		c.ExitCode, c.Reason, c.Message, c.StartedAt, c.FinishedAt = t.ExitCode, t.Reason, t.Message, t.StartedAt.Time, t.FinishedAt.Time
	}
	return c
}

func newer(a, b *Sandbox) bool {
	return b == nil || a.Attempt > b.Attempt || a.Attempt == b.Attempt && a.CreatedAt.After(b.CreatedAt)
}

// newest returns the container of a name made last, and the one that exited before it.
func (v *view) newest(name string) (c, before *Container) {
	for i := range v.containers {
		x := &v.containers[i]
		if x.Name != name {
			continue
		}
		if c == nil || x.Attempt > c.Attempt || x.Attempt == c.Attempt && x.CreatedAt.After(c.CreatedAt) {
			before, c = c, x
		} else if before == nil || x.Attempt > before.Attempt || x.Attempt == before.Attempt && x.CreatedAt.After(before.CreatedAt) {
			before = x
		}
	}
	return c, before
}

// Decide says what is to be done now.
func (m *Machine) Decide(in Input) Decision {
	var d Decision
	last := m.status
	if last == nil {
		last = &in.Pod.Status
	}
	v := newView(&in, last)
	if m.started == nil && !in.Gone {
		t := in.Now
		if st := in.Pod.Status.StartTime; st != nil {
			t = st.Time
		}
		m.started = &t
	}
	stop := m.stopReason(v, &d)
	if !stop {
		m.sync(v, &d)
		// What sync found may be that the pod has run to its end.
		stop = m.finishing
	}
	if stop {
		d.Terminating = true
		m.terminate(v, &d)
	}
	if !in.Gone {
		d.Status = m.publish(v, &d)
	}
	sort.SliceStable(d.Actions, func(i, j int) bool { return d.Actions[i].seq < d.Actions[j].seq })
	return d
}

// stopReason tells if the pod's containers are to be stopped for good.
func (m *Machine) stopReason(v *view, d *Decision) bool {
	in := v.in
	if in.Gone || in.Pod.DeletionTimestamp != nil || in.Rejected != nil || m.finishing || terminal(in.Pod.Status.Phase) {
		return true
	}
	if at, ok := m.deadline(in.Pod); ok {
		if !in.Now.Before(at) {
			if m.stopSince.IsZero() {
				d.Events = append(d.Events, Event{Type: corev1.EventTypeNormal, Reason: "DeadlineExceeded", Message: deadlineMessage})
			}
			return true
		}
		d.wake(at)
	}
	return false
}

const deadlineMessage = "Pod was active on the node longer than the specified deadline"

func (m *Machine) deadline(pod *corev1.Pod) (time.Time, bool) {
	if pod.Spec.ActiveDeadlineSeconds == nil || m.started == nil {
		return time.Time{}, false
	}
	return m.started.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second), true
}

func terminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// PodName is the pod in the words of the kubelet's messages.
func PodName(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}
