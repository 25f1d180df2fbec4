package podstate

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// conditions appends the conditions that are the kubelet's, with the times they last changed, and keeps everybody else's.
func (m *Machine) conditions(v *view, st *corev1.PodStatus, sandboxReady bool) {
	api, pod := v.in.Pod.Status.Conditions, v.in.Pod
	st.Conditions = make([]corev1.PodCondition, 0, max(len(api), 5))
	rejected := len(st.ContainerStatuses) == 0 && terminal(st.Phase)
	status := func(ok bool) corev1.ConditionStatus {
		if ok {
			return corev1.ConditionTrue
		}
		return corev1.ConditionFalse
	}
	set := func(t corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{
			Type: t, Status: status(ok), Reason: reason, Message: message, ObservedGeneration: pod.Generation,
			LastTransitionTime: metav1.Time{Time: v.in.Now.Truncate(time.Second)},
		}
		for _, from := range [...][]corev1.PodCondition{v.last.Conditions, api} {
			if old := condition(from, t); old != nil {
				if old.Status == c.Status {
					c.LastTransitionTime = old.LastTransitionTime
				}
				break
			}
		}
		st.Conditions = append(st.Conditions, c)
	}
	if !rejected {
		set(corev1.PodReadyToStartContainers, sandboxReady && (v.spec.HostNetwork || len(st.PodIPs) > 0 || len(v.sandbox.IPs) == 0), "", "")
		ok, reason, message := initializedCondition(v, st)
		set(corev1.PodInitialized, ok, reason, message)
		allReady, cReason, cMessage := containersReady(v, st)
		ready, reason, message := m.readyCondition(v, allReady, cReason, cMessage)
		set(corev1.PodReady, ready, reason, message)
		set(corev1.ContainersReady, allReady, cReason, cMessage)
	}
	set(corev1.PodScheduled, true, "", "")
	for i := range api {
		switch api[i].Type {
		case corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled:
		default:
			st.Conditions = append(st.Conditions, api[i])
		}
	}
}

func condition(list []corev1.PodCondition, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range list {
		if list[i].Type == t {
			return &list[i]
		}
	}
	return nil
}

func initializedCondition(v *view, st *corev1.PodStatus) (bool, string, string) {
	if st.Phase == corev1.PodSucceeded {
		return true, "PodCompleted", ""
	}
	var incomplete []string
	for i := range v.spec.InitContainers {
		s := &st.InitContainerStatuses[i]
		if IsSidecar(&v.spec.InitContainers[i]) {
			if (s.Started == nil || !*s.Started) && !s.Ready && s.State.Terminated == nil {
				incomplete = append(incomplete, s.Name)
			}
		} else if !s.Ready {
			incomplete = append(incomplete, s.Name)
		}
	}
	// Main containers run only after all the init containers did.
	if len(incomplete) > 0 {
		for i := range st.ContainerStatuses {
			if st.ContainerStatuses[i].ContainerID != "" {
				return true, "", ""
			}
		}
		return false, "ContainersNotInitialized", fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(incomplete, " "))
	}
	return true, "", ""
}

func containersReady(v *view, st *corev1.PodStatus) (bool, string, string) {
	var unready []string
	for i := range v.spec.InitContainers {
		if IsSidecar(&v.spec.InitContainers[i]) && !st.InitContainerStatuses[i].Ready {
			unready = append(unready, st.InitContainerStatuses[i].Name)
		}
	}
	for i := range st.ContainerStatuses {
		if !st.ContainerStatuses[i].Ready {
			unready = append(unready, st.ContainerStatuses[i].Name)
		}
	}
	switch {
	case st.Phase == corev1.PodSucceeded:
		return false, "PodCompleted", ""
	case st.Phase == corev1.PodFailed:
		return false, "PodFailed", ""
	case len(unready) > 0:
		return false, "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	}
	return true, "", ""
}

func (m *Machine) readyCondition(v *view, ok bool, reason, message string) (bool, string, string) {
	if !ok {
		return ok, reason, message
	}
	var missing []string
	for _, gate := range v.spec.ReadinessGates {
		c := condition(v.in.Pod.Status.Conditions, gate.ConditionType)
		if c == nil {
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		} else if c.Status != corev1.ConditionTrue {
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, c.Status))
		}
	}
	if len(missing) > 0 {
		return false, "ReadinessGatesNotReady", strings.Join(missing, ", ")
	}
	return true, "", ""
}
