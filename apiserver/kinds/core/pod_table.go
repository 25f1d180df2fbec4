package core

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/keelson/keelson/apiserver/kinds/internal/table"
)

// nodeLost is the reason of a pod whose node does not answer.
const nodeLost = "NodeLost"

func podColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		table.Name(),
		table.Text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
		table.Text("Status", "The aggregate status of the containers in this pod."),
		table.Text("Restarts", "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
		table.Age(),
		table.Wide(table.Text("IP", corev1.PodStatus{}.SwaggerDoc()["podIP"])),
		table.Wide(table.Text("Node", corev1.PodSpec{}.SwaggerDoc()["nodeName"])),
		table.Wide(table.Text("Nominated Node", corev1.PodStatus{}.SwaggerDoc()["nominatedNodeName"])),
		table.Wide(table.Text("Readiness Gates", corev1.PodSpec{}.SwaggerDoc()["readinessGates"])),
	}
}

// podSummary is what the containers of a pod amount to.
type podSummary struct {
	reason        string
	ready, total  int
	restarts      int
	lastRestarted metav1.Time
}

func podRow(p *corev1.Pod, now time.Time) []any {
	s := summarize(p)
	restarts := strconv.Itoa(s.restarts)
	if s.restarts != 0 && !s.lastRestarted.IsZero() {
		restarts = fmt.Sprintf("%d (%s ago)", s.restarts, duration.HumanDuration(now.Sub(s.lastRestarted.Time)))
	}
	ip, node, nominated, gates := "<none>", "<none>", "<none>", "<none>"
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	if p.Spec.NodeName != "" {
		node = p.Spec.NodeName
	}
	if p.Status.NominatedNodeName != "" {
		nominated = p.Status.NominatedNodeName
	}
	if n := len(p.Spec.ReadinessGates); n > 0 {
		ready := 0
		for _, gate := range p.Spec.ReadinessGates {
			for _, condition := range p.Status.Conditions {
				if condition.Type == gate.ConditionType {
					if condition.Status == corev1.ConditionTrue {
						ready++
					}
					break
				}
			}
		}
		gates = fmt.Sprintf("%d/%d", ready, n)
	}
	return []any{p.Name, fmt.Sprintf("%d/%d", s.ready, s.total), s.reason, restarts, table.Since(p.CreationTimestamp, now), ip, node, nominated, gates}
}

func summarize(p *corev1.Pod) podSummary {
	s := podSummary{reason: string(p.Status.Phase), total: len(p.Spec.Containers)}
	if p.Status.Reason != "" {
		s.reason = p.Status.Reason
	}
	for _, condition := range p.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonSchedulingGated {
			s.reason = corev1.PodReasonSchedulingGated
		}
	}
	sidecars := map[string]bool{}
	for i := range p.Spec.InitContainers {
		if policy := p.Spec.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			sidecars[p.Spec.InitContainers[i].Name] = true
			s.total++
		}
	}
	sidecarRestarts, lastSidecar := 0, metav1.Time{}
	initializing := s.initContainers(p, sidecars, &sidecarRestarts, &lastSidecar)
	if !initializing || initialized(p) {
		// Only what runs now is counted: restarts of init containers are history.
		s.restarts, s.lastRestarted = sidecarRestarts, lastSidecar
		s.containers(p)
	}
	if p.DeletionTimestamp != nil {
		switch {
		case p.Status.Reason == nodeLost:
			s.reason = "Unknown"
		case p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded:
			s.reason = "Terminating"
		}
	}
	return s
}

// initContainers finds what initialization waits for, if it has not ended.
func (s *podSummary) initContainers(p *corev1.Pod, sidecars map[string]bool, sidecarRestarts *int, lastSidecar *metav1.Time) bool {
	for i := range p.Status.InitContainerStatuses {
		c := &p.Status.InitContainerStatuses[i]
		s.restarts += int(c.RestartCount)
		if ended := c.LastTerminationState.Terminated; ended != nil {
			later(&s.lastRestarted, ended.FinishedAt)
		}
		if sidecars[c.Name] {
			*sidecarRestarts += int(c.RestartCount)
			if ended := c.LastTerminationState.Terminated; ended != nil {
				later(lastSidecar, ended.FinishedAt)
			}
		}
		switch state := c.State; {
		case state.Terminated != nil && state.Terminated.ExitCode == 0:
			continue
		case sidecars[c.Name] && c.Started != nil && *c.Started:
			if c.Ready {
				s.ready++
			}
			continue
		case state.Terminated != nil:
			s.reason = "Init:" + endReason(state.Terminated)
		case state.Waiting != nil && state.Waiting.Reason != "" && state.Waiting.Reason != "PodInitializing":
			s.reason = "Init:" + state.Waiting.Reason
		default:
			s.reason = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true
	}
	return false
}

// endReason is a terminated container's reason, or else its signal or exit code.
func endReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	default:
		return fmt.Sprintf("ExitCode:%d", t.ExitCode)
	}
}

func (s *podSummary) containers(p *corev1.Pod) {
	running := false
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &p.Status.ContainerStatuses[i]
		s.restarts += int(c.RestartCount)
		if ended := c.LastTerminationState.Terminated; ended != nil {
			later(&s.lastRestarted, ended.FinishedAt)
		}
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			s.reason = c.State.Waiting.Reason
		case c.State.Terminated != nil:
			s.reason = endReason(c.State.Terminated)
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	// A pod of which a container ended but another one serves is running.
	if s.reason == "Completed" && running {
		s.reason = "NotReady"
		for _, condition := range p.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				s.reason = "Running"
			}
		}
	}
}

func initialized(p *corev1.Pod) bool {
	for _, condition := range p.Status.Conditions {
		if condition.Type == corev1.PodInitialized {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func later(t *metav1.Time, candidate metav1.Time) {
	if t.Before(&candidate) {
		*t = candidate
	}
}
