package deployment

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of the conditions, as kubectl and others know them.
const (
	reasonUpdated     = "ReplicaSetUpdated"
	reasonCreateError = "ReplicaSetCreateError"
	reasonNew         = "NewReplicaSetCreated"
	reasonFound       = "FoundNewReplicaSet"
	reasonAvailable   = "NewReplicaSetAvailable"
	reasonTimedOut    = "ProgressDeadlineExceeded"
	reasonPaused      = "DeploymentPaused"
	reasonResumed     = "DeploymentResumed"
	reasonMinimum     = "MinimumReplicasAvailable"
	reasonBelow       = "MinimumReplicasUnavailable"
)

func condition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

func removeCondition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

// putCondition sets a condition unless it has that status and reason already.
func putCondition(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition) {
	if old := condition(s, c.Type); old != nil {
		if old.Status == c.Status && old.Reason == c.Reason {
			return
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
	removeCondition(s, c.Type)
	s.Conditions = append(s.Conditions, c)
}

func (s *sync) newCondition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, msg string) appsv1.DeploymentCondition {
	now := metav1.NewTime(s.now)
	return appsv1.DeploymentCondition{Type: t, Status: status, LastUpdateTime: now, LastTransitionTime: now, Reason: reason, Message: msg}
}

func (s *sync) setCondition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, msg string) {
	putCondition(&s.d.Status, s.newCondition(t, status, reason, msg))
}

func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != maxInt32
}

// pauseConditions stops the clock of the progress deadline while paused.
func (s *sync) pauseConditions(ctx context.Context) error {
	if !hasDeadline(s.d) {
		return nil
	}
	c := condition(&s.d.Status, appsv1.DeploymentProgressing)
	if c != nil && c.Reason == reasonTimedOut {
		return nil
	}
	paused := c != nil && c.Reason == reasonPaused
	switch {
	case s.d.Spec.Paused && !paused:
		s.setCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, "Deployment is paused")
	case !s.d.Spec.Paused && paused:
		s.setCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonResumed, "Deployment is resumed")
	}
	return s.writeStatus(ctx)
}

func (s *sync) newStatus() appsv1.DeploymentStatus {
	st := *s.d.Status.DeepCopy()
	st.ObservedGeneration = s.d.Generation
	st.Replicas, st.UpdatedReplicas, st.ReadyReplicas, st.AvailableReplicas = 0, 0, 0, 0
	st.TerminatingReplicas = nil
	var terminating int32
	known := true
	for _, rs := range s.all() {
		st.Replicas += rs.Status.Replicas
		st.ReadyReplicas += rs.Status.ReadyReplicas
		st.AvailableReplicas += rs.Status.AvailableReplicas
		if rs.Status.TerminatingReplicas == nil {
			known = false
		} else {
			terminating += *rs.Status.TerminatingReplicas
		}
	}
	if known {
		st.TerminatingReplicas = &terminating
	}
	if s.current != nil {
		st.UpdatedReplicas = s.current.Status.Replicas
	}
	st.UnavailableReplicas = max(0, total(s.all())-st.AvailableReplicas)
	if st.AvailableReplicas >= *s.d.Spec.Replicas-maxUnavailable(s.d) {
		putCondition(&st, s.newCondition(appsv1.DeploymentAvailable, corev1.ConditionTrue, reasonMinimum, "Deployment has minimum availability."))
	} else {
		putCondition(&st, s.newCondition(appsv1.DeploymentAvailable, corev1.ConditionFalse, reasonBelow, "Deployment does not have minimum availability."))
	}
	return st
}

func (s *sync) syncStatus(ctx context.Context) error {
	s.d.Status = s.newStatus()
	return s.writeStatus(ctx)
}

// syncRollout writes the status with how the rollout gets on.
func (s *sync) syncRollout(ctx context.Context) error {
	st := s.newStatus()
	if !hasDeadline(s.d) {
		removeCondition(&st, appsv1.DeploymentProgressing)
	}
	cur := condition(&s.d.Status, appsv1.DeploymentProgressing)
	done := st.Replicas == st.UpdatedReplicas && cur != nil && cur.Reason == reasonAvailable
	if hasDeadline(s.d) && !done {
		subject := fmt.Sprintf("Deployment %q", s.d.Name)
		if s.current != nil {
			subject = fmt.Sprintf("ReplicaSet %q", s.current.Name)
		}
		switch {
		case complete(s.d, &st):
			putCondition(&st, s.newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonAvailable, subject+" has successfully progressed."))
		case s.progressing(&st):
			c := s.newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, subject+" is progressing.")
			// Each sign of progress restarts the deadline, so the condition is
			// replaced even when it says the same.
			if cur != nil {
				if cur.Status == corev1.ConditionTrue {
					c.LastTransitionTime = cur.LastTransitionTime
				}
				removeCondition(&st, appsv1.DeploymentProgressing)
			}
			putCondition(&st, c)
		case s.timedOut(cur):
			putCondition(&st, s.newCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonTimedOut, subject+" has timed out progressing."))
		}
	}
	if f := s.failure(); f != nil {
		putCondition(&st, *f)
	} else {
		removeCondition(&st, appsv1.DeploymentReplicaFailure)
	}
	s.d.Status = st
	s.recheck = s.deadlineIn(&st)
	return s.writeStatus(ctx)
}

// failure is the first failure of a set, the newest set's before others'.
func (s *sync) failure() *appsv1.DeploymentCondition {
	sets := s.old
	if s.current != nil {
		sets = append([]*appsv1.ReplicaSet{s.current}, s.old...)
	}
	for _, rs := range sets {
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				return &appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastTransitionTime: c.LastTransitionTime, LastUpdateTime: c.LastTransitionTime,
				}
			}
		}
	}
	return nil
}

func complete(d *appsv1.Deployment, st *appsv1.DeploymentStatus) bool {
	want := *d.Spec.Replicas
	return st.UpdatedReplicas == want && st.Replicas == want && st.AvailableReplicas == want && st.ObservedGeneration >= d.Generation
}

func (s *sync) progressing(st *appsv1.DeploymentStatus) bool {
	was := &s.d.Status
	return st.UpdatedReplicas > was.UpdatedReplicas ||
		st.Replicas-st.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
		st.ReadyReplicas > was.ReadyReplicas || st.AvailableReplicas > was.AvailableReplicas
}

func (s *sync) deadline() time.Duration {
	return time.Duration(*s.d.Spec.ProgressDeadlineSeconds) * time.Second
}

func (s *sync) timedOut(c *appsv1.DeploymentCondition) bool {
	if c == nil || c.Reason == reasonAvailable {
		return false
	}
	return c.Reason == reasonTimedOut || c.LastUpdateTime.Add(s.deadline()).Before(s.now)
}

// deadlineIn is when to look whether the deadline has passed, as no event will
// say so; 0 if there is nothing to wait for.
func (s *sync) deadlineIn(st *appsv1.DeploymentStatus) time.Duration {
	c := condition(st, appsv1.DeploymentProgressing)
	if !hasDeadline(s.d) || c == nil || complete(s.d, st) || c.Reason == reasonTimedOut || c.Reason == reasonAvailable {
		return 0
	}
	return max(0, c.LastUpdateTime.Add(s.deadline()).Sub(s.now)) + time.Second
}
