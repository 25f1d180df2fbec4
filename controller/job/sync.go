package job

import (
	"context"
	"errors"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/internal/pods"
)

// syncer is one reconciliation of one Job.
type syncer struct {
	c       *Controller
	control pods.Control
	key     types.NamespacedName
	now     time.Time
	settled bool // no writes are awaited

	job      *batchv1.Job
	before   *batchv1.JobStatus
	pods     []*corev1.Pod
	freed    map[types.UID]bool // under the controller's lock
	active   []*corev1.Pod
	ready    int32
	stopping int32 // terminating and not finished

	newSucceeded, newFailed []*corev1.Pod // not accounted for in the status yet
	succeeded, failed       int
	done, broken            *indexes // Indexed jobs: succeeded, and failed for good
	delayed                 map[int]*corev1.Pod
	backoff                 backoff
	finish                  *batchv1.JobCondition // FailureTarget or SuccessCriteriaMet
	recheck                 time.Duration
}

func newSyncer(c *Controller, j *batchv1.Job, owned []*corev1.Pod, freed map[types.UID]bool, settled bool) *syncer {
	s := &syncer{
		c: c, control: pods.Control{Client: c.client, Recorder: c.runner.Recorder()},
		key: client.ObjectKeyFromObject(j), now: c.runner.Clock().Now(), settled: settled,
		job: j, before: j.Status.DeepCopy(), pods: owned, freed: freed,
	}
	if j.Status.UncountedTerminatedPods == nil {
		j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	for _, p := range owned {
		switch {
		case pods.IsActive(p):
			s.active = append(s.active, p)
			if pods.IsReady(p) {
				s.ready++
			}
		case pods.IsTerminating(p):
			s.stopping++
		}
	}
	s.count()
	return s
}

func (s *syncer) indexed() bool   { return *s.job.Spec.CompletionMode == batchv1.IndexedCompletion }
func (s *syncer) perIndex() bool  { return s.indexed() && s.job.Spec.BackoffLimitPerIndex != nil }
func (s *syncer) suspended() bool { return s.job.Spec.Suspend != nil && *s.job.Spec.Suspend }

func (s *syncer) completions() int {
	if s.job.Spec.Completions == nil {
		return 0
	}
	return int(*s.job.Spec.Completions)
}

// tracked says whether a pod still waits to be counted.
func (s *syncer) tracked(p *corev1.Pod) bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return hasFinalizer(p) && !s.freed[p.UID]
}

func (s *syncer) setFreed(uid types.UID) {
	s.c.setFreed(s.key, uid)
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.freed[uid] = true
}

// onlyFailed says whether pods are replaced only once they have failed, rather
// than when they begin to terminate.
func (s *syncer) onlyFailed() bool {
	if p := s.job.Spec.PodReplacementPolicy; p != nil {
		return *p == batchv1.Failed
	}
	return s.job.Spec.PodFailurePolicy != nil
}

func (s *syncer) isFailed(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodFailed {
		return true
	}
	if s.onlyFailed() {
		return false
	}
	return p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded
}

// count finds what has finished, counted in the status or not yet.
func (s *syncer) count() {
	u := s.job.Status.UncountedTerminatedPods
	uncounted := map[types.UID]bool{}
	for _, uid := range slices.Concat(u.Succeeded, u.Failed) {
		uncounted[uid] = true
	}
	if s.indexed() {
		s.done = parseIndexes(s.job.Status.CompletedIndexes, s.completions())
		s.broken = newIndexes(s.completions())
		if s.job.Status.FailedIndexes != nil {
			s.broken = parseIndexes(*s.job.Status.FailedIndexes, s.completions())
		}
	}
	ignored := 0
	for _, p := range s.pods {
		if !s.tracked(p) || uncounted[p.UID] {
			continue
		}
		switch {
		case p.Status.Phase == corev1.PodSucceeded:
			if s.indexed() {
				i := indexOf(p)
				if i < 0 || i >= s.completions() || s.done.has(i) {
					continue
				}
				s.done.add(i)
			}
			s.newSucceeded = append(s.newSucceeded, p)
		case s.isFailed(p):
			if i := indexOf(p); s.indexed() && (i < 0 || i >= s.completions()) {
				continue
			}
			if !judge(s.job.Spec.PodFailurePolicy, p).counts() {
				ignored++
			}
			s.newFailed = append(s.newFailed, p)
		}
	}
	s.failed = int(s.job.Status.Failed) + len(u.Failed) + len(s.newFailed) - ignored
	if s.indexed() {
		s.succeeded = s.done.len()
	} else {
		s.succeeded = int(s.job.Status.Succeeded) + len(u.Succeeded) + len(s.newSucceeded)
	}
	if s.perIndex() {
		s.countIndexes()
	}
	s.c.mu.Lock()
	known := s.c.backoff[s.key]
	s.c.mu.Unlock()
	s.backoff = known.after(s.newSucceeded, s.newFailed, s.now)
}

// countIndexes finds the indexes that have failed for good, and of each other
// index the failed pod that carries its count of failures: it must stay until
// its replacement carries it on.
func (s *syncer) countIndexes() {
	latest := map[int]*corev1.Pod{}
	for _, p := range s.pods {
		i := indexOf(p)
		if i < 0 || i >= s.completions() {
			continue
		}
		if q := latest[i]; q == nil || total(p) > total(q) || total(p) == total(q) && pods.IsActive(p) {
			latest[i] = p
		}
		if !s.tracked(p) || !s.isFailed(p) || s.done.has(i) {
			continue
		}
		if condition(&s.job.Status, batchv1.JobFailureTarget) != nil || condition(&s.job.Status, batchv1.JobSuccessCriteriaMet) != nil {
			continue // it ends because the job does
		}
		v := judge(s.job.Spec.PodFailurePolicy, p)
		n, _ := failuresOf(p)
		if v.action == batchv1.PodFailurePolicyActionFailIndex || v.counts() && n >= int(*s.job.Spec.BackoffLimitPerIndex) {
			s.broken.add(i)
		}
	}
	s.delayed = map[int]*corev1.Pod{}
	for i, p := range latest {
		if s.tracked(p) && s.isFailed(p) && !s.done.has(i) && !s.broken.has(i) {
			s.delayed[i] = p
		}
	}
}

func total(p *corev1.Pod) int {
	a, b := failuresOf(p)
	return a + b
}

// run does everything a Job needs now.
func (s *syncer) run(ctx context.Context) error {
	if s.job.Status.StartTime == nil && !s.suspended() {
		s.job.Status.StartTime = ptr(metav1.NewTime(s.now))
	}
	s.decide()
	var manageErr error
	switch {
	case s.finish != nil:
		var deleted int
		deleted, manageErr = s.deletePods(ctx, s.active, s.finish.Type == batchv1.JobSuccessCriteriaMet)
		s.dropActive(deleted)
	case s.settled && s.job.DeletionTimestamp == nil:
		manageErr = s.manage(ctx)
		s.suspension()
	}
	if s.finish == nil && manageErr == nil && s.isComplete() {
		s.finish = newCondition(batchv1.JobSuccessCriteriaMet, corev1.ConditionTrue, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods", s.now)
	}
	st := &s.job.Status
	st.Active = int32(len(s.active))
	st.Ready = ptr(s.ready)
	st.Terminating = ptr(s.stopping)
	if err := s.track(ctx); err != nil {
		return errors.Join(err, manageErr)
	}
	return manageErr
}

// dropActive accounts for pods that were active and are being deleted now.
func (s *syncer) dropActive(n int) {
	n = min(n, len(s.active))
	s.stopping += int32(n)
	s.active = s.active[:len(s.active)-n]
	s.ready = min(s.ready, int32(len(s.active)))
}

func (s *syncer) isComplete() bool {
	if s.suspended() && s.job.Spec.Completions == nil && s.succeeded == 0 {
		return false
	}
	if s.job.Spec.Completions == nil {
		// A work queue is done when a pod says so and all others have ended.
		return s.succeeded > 0 && len(s.active) == 0
	}
	return s.succeeded >= s.completions() && len(s.active) == 0
}

// decide finds out whether the job has failed, or succeeded early.
func (s *syncer) decide() {
	for i := range s.job.Status.Conditions {
		c := &s.job.Status.Conditions[i]
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobFailureTarget || c.Type == batchv1.JobSuccessCriteriaMet) {
			s.finish = c.DeepCopy()
			return
		}
	}
	fail := func(reason, message string) {
		s.finish = newCondition(batchv1.JobFailureTarget, corev1.ConditionTrue, reason, message, s.now)
	}
	for _, p := range s.newFailed {
		if v := judge(s.job.Spec.PodFailurePolicy, p); v.action == batchv1.PodFailurePolicyActionFailJob {
			fail(batchv1.JobReasonPodFailurePolicy, v.message)
			return
		}
	}
	if left, has := s.deadline(); has && left <= 0 {
		fail(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
		return
	} else if has {
		s.wake(left)
	}
	if s.failed > int(*s.job.Spec.BackoffLimit) || s.restartsExceed() {
		fail(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
		return
	}
	if s.perIndex() {
		n := s.broken.len()
		switch m := s.job.Spec.MaxFailedIndexes; {
		case m != nil && n > int(*m):
			fail(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
			return
		case n > 0 && n+s.succeeded >= s.completions():
			fail(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
			return
		}
	}
	if s.indexed() {
		if message, ok := matchSuccess(s.job.Spec.SuccessPolicy, s.completions(), s.done); ok {
			s.finish = newCondition(batchv1.JobSuccessCriteriaMet, corev1.ConditionTrue, batchv1.JobReasonSuccessPolicy, message, s.now)
		}
	}
}

// deadline is how long the job may be active still.
func (s *syncer) deadline() (time.Duration, bool) {
	if s.job.Spec.ActiveDeadlineSeconds == nil || s.job.Status.StartTime == nil || s.suspended() {
		return 0, false
	}
	return s.job.Status.StartTime.Add(time.Duration(*s.job.Spec.ActiveDeadlineSeconds) * time.Second).Sub(s.now), true
}

// restartsExceed applies the back-off limit to containers restarted in place.
func (s *syncer) restartsExceed() bool {
	if s.job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	restarts := int32(0)
	for _, p := range s.pods {
		if p.Status.Phase != corev1.PodRunning && p.Status.Phase != corev1.PodPending {
			continue
		}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			restarts += c.RestartCount
		}
	}
	if limit := *s.job.Spec.BackoffLimit; limit > 0 {
		return restarts >= limit
	}
	return restarts > 0
}

// wake asks to be reconciled again no later than in d.
func (s *syncer) wake(d time.Duration) {
	if d > 0 && (s.recheck == 0 || d < s.recheck) {
		s.recheck = d
	}
}

// suspension keeps condition Suspended and the start time.
func (s *syncer) suspension() {
	st := &s.job.Status
	switch {
	case s.suspended():
		if putCondition(st, batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended", s.now) {
			st.StartTime = nil
			s.control.Recorder.Event(s.job, corev1.EventTypeNormal, "Suspended", "Job suspended")
		}
	case condition(st, batchv1.JobSuspended) != nil:
		if putCondition(st, batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed", s.now) {
			// The deadline starts anew.
			st.StartTime = ptr(metav1.NewTime(s.now))
			s.control.Recorder.Event(s.job, corev1.EventTypeNormal, "Resumed", "Job resumed")
			if left, has := s.deadline(); has {
				s.wake(left)
			}
		}
	}
}

func (s *syncer) writeStatus(ctx context.Context) error {
	if equality.Semantic.DeepEqual(s.before, &s.job.Status) {
		return nil
	}
	out := s.job.DeepCopy()
	if err := s.c.client.Status().Update(ctx, out); err != nil {
		return err
	}
	s.job.ResourceVersion = out.ResourceVersion
	s.c.wrote.Wrote(s.key, s.job.UID, out.ResourceVersion)
	s.before = s.job.Status.DeepCopy()
	return nil
}
