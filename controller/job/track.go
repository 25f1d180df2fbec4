package job

import (
	"context"
	"errors"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/controller/internal/pods"
)

// maxUncounted bounds the uids in status.uncountedTerminatedPods.
const maxUncounted = 500

// track counts finished pods, exactly once whatever is interrupted: first their
// uids are written to the status, then their finalizers are removed, and only
// then are they counted and their uids dropped.
func (s *syncer) track(ctx context.Context) error {
	st := &s.job.Status
	u := st.UncountedTerminatedPods
	s.settleUncounted()

	wasUncounted := map[types.UID]bool{}
	for _, uid := range slices.Concat(u.Succeeded, u.Failed) {
		wasUncounted[uid] = true
	}
	var free []*corev1.Pod
	prev := parseIndexes(st.CompletedIndexes, s.completions())
	finished := prev.clone()
	full := false
	failing := s.finish != nil && s.finish.Type == batchv1.JobFailureTarget
	for _, p := range s.pods {
		if !s.tracked(p) {
			continue
		}
		failed := s.isFailed(p)
		if !s.mayFree(p, failed) {
			continue
		}
		free = append(free, p)
		if wasUncounted[p.UID] {
			continue
		}
		i := indexOf(p)
		inRange := !s.indexed() || i >= 0 && i < s.completions()
		switch {
		case p.Status.Phase == corev1.PodSucceeded && s.indexed():
			if inRange {
				finished.add(i)
			}
		case p.Status.Phase == corev1.PodSucceeded:
			u.Succeeded = append(u.Succeeded, p.UID)
		case (failed || failing) && inRange && judge(s.job.Spec.PodFailurePolicy, p).counts():
			// Of a failed job, pods that were still active count as failed.
			u.Failed = append(u.Failed, p.UID)
		}
		if finished.len()-prev.len()+len(u.Succeeded)+len(u.Failed) >= maxUncounted {
			full = true
			break
		}
	}
	if s.indexed() {
		st.CompletedIndexes = finished.String()
		st.Succeeded = int32(finished.len())
		if s.perIndex() {
			st.FailedIndexes = ptr(s.broken.String())
		}
	}
	if s.finish != nil && condition(st, s.finish.Type) == nil {
		st.Conditions = append(st.Conditions, *s.finish)
	}
	if err := s.writeStatus(ctx); err != nil {
		return err
	}
	s.c.mu.Lock()
	s.c.backoff[s.key] = s.backoff
	s.c.mu.Unlock()

	errs := pods.Parallel(len(free), func(i int) error {
		err := s.c.free(ctx, free[i])
		if err == nil || apierrors.IsNotFound(err) {
			s.setFreed(free[i].UID)
			return nil
		}
		return err
	})
	s.settleUncounted()
	err := errors.Join(errs...)
	if err == nil && !full {
		s.end()
	}
	if writeErr := s.writeStatus(ctx); writeErr != nil {
		return errors.Join(err, writeErr)
	}
	if full {
		s.wake(1)
	}
	return err
}

// settleUncounted counts the pods whose finalizers are gone.
func (s *syncer) settleUncounted() {
	st := &s.job.Status
	held := map[types.UID]bool{}
	for _, p := range s.pods {
		if s.tracked(p) {
			held[p.UID] = true
		}
	}
	settle := func(list []types.UID, n *int32) []types.UID {
		var left []types.UID
		for _, uid := range list {
			if held[uid] {
				left = append(left, uid)
			} else {
				*n++
			}
		}
		return left
	}
	u := st.UncountedTerminatedPods
	u.Succeeded = settle(u.Succeeded, &st.Succeeded)
	u.Failed = settle(u.Failed, &st.Failed)
}

// mayFree says whether a pod need not be kept from deletion any more.
func (s *syncer) mayFree(p *corev1.Pod, failed bool) bool {
	if s.job.DeletionTimestamp != nil || s.finish != nil || p.Status.Phase == corev1.PodSucceeded {
		return true
	}
	if !failed {
		return false
	}
	if s.perIndex() {
		if d := s.delayed[indexOf(p)]; d != nil && d.UID == p.UID {
			return false
		}
	}
	return true
}

// end makes the job's end final, once all its pods have ended and are counted,
// those included that the cache does not show yet.
func (s *syncer) end() {
	st := &s.job.Status
	u := st.UncountedTerminatedPods
	if s.finish == nil || !s.settled || len(u.Succeeded)+len(u.Failed) > 0 || st.Active > 0 || *st.Terminating > 0 {
		return
	}
	t := batchv1.JobFailed
	if s.finish.Type == batchv1.JobSuccessCriteriaMet {
		t = batchv1.JobComplete
		st.CompletionTime = ptr(metav1.NewTime(s.now))
	}
	if !putCondition(st, t, corev1.ConditionTrue, s.finish.Reason, s.finish.Message, s.now) {
		return
	}
	st.Ready = ptr[int32](0)
	if t == batchv1.JobComplete {
		s.control.Recorder.Event(s.job, corev1.EventTypeNormal, "Completed", "Job completed")
	} else {
		s.control.Recorder.Event(s.job, corev1.EventTypeWarning, s.finish.Reason, s.finish.Message)
	}
}
