package podstate

import (
	corev1 "k8s.io/api/core/v1"
)

// phase sums the containers up. A pod fails or succeeds only when nothing of it runs any more.
func (m *Machine) phase(v *view, st *corev1.PodStatus, d *Decision) {
	in := v.in
	if terminal(in.Pod.Status.Phase) {
		st.Phase = in.Pod.Status.Phase
		return
	}
	if m.status != nil && terminal(m.status.Phase) {
		st.Phase, st.Reason, st.Message = m.status.Phase, m.status.Reason, m.status.Message
		return
	}
	phase := livePhase(v, st)
	if terminal(phase) && !d.Stopped {
		// The runtime is not done with it yet.
		phase = corev1.PodRunning
	}
	if d.Stopped {
		phase = endPhase(v, st)
		if in.Rejected != nil {
			phase, st.Reason, st.Message = corev1.PodFailed, in.Rejected.Reason, in.Rejected.Message
		} else if at, ok := m.deadline(in.Pod); ok && !m.stopSince.Before(at) && in.Pod.DeletionTimestamp == nil && !m.finishing {
			phase, st.Reason, st.Message = corev1.PodFailed, "DeadlineExceeded", deadlineMessage
		}
	}
	st.Phase = phase
}

// endPhase is the phase of a pod none of whose containers will run again.
func endPhase(v *view, st *corev1.PodStatus) corev1.PodPhase {
	for i := range v.spec.InitContainers {
		if IsSidecar(&v.spec.InitContainers[i]) {
			continue
		}
		if t := st.InitContainerStatuses[i].State.Terminated; t == nil || t.ExitCode != 0 {
			return corev1.PodFailed
		}
	}
	for i := range st.ContainerStatuses {
		if t := st.ContainerStatuses[i].State.Terminated; t == nil || t.ExitCode != 0 {
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}

// livePhase is the phase of a pod by its containers' states alone.
func livePhase(v *view, st *corev1.PodStatus) corev1.PodPhase {
	var initPending, initFailed, unstarted, running, waiting, exited, succeeded int
	for i := range v.spec.InitContainers {
		c, s := &v.spec.InitContainers[i], &st.InitContainerStatuses[i]
		past := s.State.Terminated
		if past == nil && s.State.Waiting != nil {
			past = s.LastTerminationState.Terminated
		}
		if IsSidecar(c) {
			switch {
			case s.State.Running != nil:
				running++
				if s.Started == nil || !*s.Started {
					unstarted++
				}
			case past == nil:
				unstarted++
			}
			continue
		}
		switch {
		case s.State.Running != nil, past == nil:
			initPending++
		case past.ExitCode != 0:
			initFailed++
			if s.State.Waiting != nil || shouldRestart(v.spec, c, past.ExitCode, true) {
				initPending++
			}
		}
	}
	for i := range st.ContainerStatuses {
		s := &st.ContainerStatuses[i]
		switch {
		case s.State.Running != nil:
			running++
		case s.State.Terminated != nil:
			exited++
			if s.State.Terminated.ExitCode == 0 {
				succeeded++
			}
		case s.LastTerminationState.Terminated != nil:
			exited++
		default:
			waiting++
		}
	}
	switch {
	case initFailed > 0 && initPending == 0:
		return corev1.PodFailed
	case initPending > 0, unstarted > 0 && exited == 0 && waiting > 0, waiting > 0:
		return corev1.PodPending
	case running > 0:
		return corev1.PodRunning
	}
	for i := range v.spec.Containers {
		t := st.ContainerStatuses[i].State.Terminated
		if t == nil || shouldRestart(v.spec, &v.spec.Containers[i], t.ExitCode, false) {
			return corev1.PodRunning
		}
	}
	if succeeded == exited {
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

// QOS is the pod's quality-of-service class.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	any, guaranteed := false, true
	count := func(r *corev1.ResourceRequirements) {
		for _, name := range [...]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, request := r.Limits[name], r.Requests[name]
			if !limit.IsZero() || !request.IsZero() {
				any = true
			}
			if request.IsZero() {
				request = limit
			}
			if limit.IsZero() || limit.Cmp(request) != 0 {
				guaranteed = false
			}
		}
	}
	if r := pod.Spec.Resources; r != nil && len(r.Limits)+len(r.Requests) > 0 {
		count(r)
	} else {
		for i := range pod.Spec.InitContainers {
			count(&pod.Spec.InitContainers[i].Resources)
		}
		for i := range pod.Spec.Containers {
			count(&pod.Spec.Containers[i].Resources)
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
