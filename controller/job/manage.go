package job

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/controller/internal/pods"
)

// burst bounds the pods created or deleted in one reconciliation.
const burst = 500

// manage brings the number of active pods to what is wanted.
func (s *syncer) manage(ctx context.Context) error {
	if s.suspended() {
		n, err := s.deletePods(ctx, s.active, true)
		s.dropActive(n)
		return err
	}
	parallelism := int(*s.job.Spec.Parallelism)
	want := parallelism
	if s.job.Spec.Completions == nil {
		if s.succeeded > 0 {
			// One has seen the end of the queue: no more are started.
			want = min(len(s.active), parallelism)
		}
	} else {
		left := s.completions() - s.succeeded
		if s.perIndex() {
			left -= s.broken.len()
		}
		want = max(0, min(left, parallelism))
	}
	surplus := s.surplus(max(0, len(s.active)-want))
	if len(surplus) > 0 {
		if len(surplus) > burst {
			surplus = surplus[:burst]
		}
		n, err := s.deletePods(ctx, surplus, true)
		gone := map[types.UID]bool{}
		for _, p := range surplus {
			gone[p.UID] = true
		}
		if n == len(surplus) {
			s.active = slices.DeleteFunc(slices.Clone(s.active), func(p *corev1.Pod) bool { return gone[p.UID] })
			s.stopping += int32(n)
		}
		return err
	}
	missing := want - len(s.active)
	if s.onlyFailed() {
		missing -= int(s.stopping)
	}
	if missing <= 0 {
		return nil
	}
	missing = min(missing, burst)
	if !s.perIndex() {
		if d := s.backoff.remaining(s.now); d > 0 {
			s.wake(d)
			return nil
		}
	}
	return s.createPods(ctx, missing)
}

// surplus returns at least n active pods to delete: those of an index that has
// another or that is out of range in any case.
func (s *syncer) surplus(n int) []*corev1.Pod {
	ranked := make([]pods.Ranked, 0, len(s.active))
	for _, p := range s.active {
		ranked = append(ranked, pods.Ranked{Pod: p})
	}
	pods.SortForDeletion(ranked, s.now)
	var out []*corev1.Pod
	if s.indexed() {
		seen := map[int]bool{}
		var rest []pods.Ranked
		// From the last to delete, so that of two the better one stays.
		for _, r := range slices.Backward(ranked) {
			i := indexOf(r.Pod)
			if i < 0 || i >= s.completions() || seen[i] || s.done.has(i) || s.broken.has(i) {
				out = append(out, r.Pod)
				continue
			}
			seen[i] = true
			rest = append(rest, r)
		}
		// Fewer are wanted: the highest indexes go first.
		slices.SortStableFunc(rest, func(a, b pods.Ranked) int { return cmp.Compare(indexOf(b.Pod), indexOf(a.Pod)) })
		ranked = rest
	}
	for _, r := range ranked {
		if len(out) >= n {
			break
		}
		out = append(out, r.Pod)
	}
	return out
}

// deletePods deletes pods and returns how many are going. Discarded ones are
// freed before: that they end is no failure of theirs.
func (s *syncer) deletePods(ctx context.Context, ps []*corev1.Pod, discard bool) (int, error) {
	if len(ps) == 0 {
		return 0, nil
	}
	uids := make([]types.UID, 0, len(ps))
	for _, p := range ps {
		uids = append(uids, p.UID)
	}
	s.c.expect.Delete(s.key, uids...)
	return pods.SlowStart(len(ps), len(ps), func(i int) error {
		var err error
		if discard && s.tracked(ps[i]) {
			if err = s.c.free(ctx, ps[i]); err == nil {
				s.setFreed(ps[i].UID)
			}
		}
		if err == nil {
			err = s.control.Delete(ctx, ps[i], s.job)
		}
		if err != nil {
			s.c.expect.Deleted(s.key, ps[i].UID)
		}
		if pods.IsGone(err) {
			return nil
		}
		return err
	})
}

func (s *syncer) createPods(ctx context.Context, n int) error {
	var at []int
	if s.indexed() {
		at = s.pending(n)
		n = len(at)
	}
	if n == 0 {
		return nil
	}
	s.c.expect.Create(s.key, n)
	created := make([]*corev1.Pod, n)
	var failed atomic.Int32
	done, err := pods.SlowStart(n, 1, func(i int) error {
		p := s.newPod()
		if s.indexed() {
			s.setIndex(p, at[i])
		}
		err := s.control.Create(ctx, p, s.job)
		if err == nil {
			created[i] = p
			return nil
		}
		s.c.expect.Created(s.key, 1)
		failed.Add(1)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			failed.Add(-1)
			return nil
		}
		return err
	})
	s.c.expect.Created(s.key, n-done-int(failed.Load()))
	for i, p := range created {
		if p == nil {
			continue
		}
		s.active = append(s.active, p)
		if s.indexed() {
			// The new pod carries on the count of failures.
			delete(s.delayed, at[i])
		}
	}
	return err
}

// pending returns up to n indexes that need a pod, lowest first.
func (s *syncer) pending(n int) []int {
	have := newIndexes(s.completions())
	for _, p := range s.active {
		have.add(indexOf(p))
	}
	if s.onlyFailed() {
		for _, p := range s.pods {
			if pods.IsTerminating(p) {
				have.add(indexOf(p))
			}
		}
	}
	var out []int
	for i := 0; i < s.completions() && len(out) < n; i++ {
		if have.has(i) || s.done.has(i) || s.broken.has(i) {
			continue
		}
		if p := s.delayed[i]; p != nil {
			b := backoff{failures: total(p) + 1, last: finishTime(p, s.now)}
			if d := b.remaining(s.now); d > 0 {
				s.wake(d)
				continue
			}
		}
		out = append(out, i)
	}
	return out
}

func (s *syncer) newPod() *corev1.Pod {
	p := pods.FromTemplate(&s.job.Spec.Template, s.job.Namespace, s.job.Name, metav1.NewControllerRef(s.job, kind))
	p.Finalizers = append(p.Finalizers, batchv1.JobTrackingFinalizer)
	return p
}

const (
	indexEnv          = "JOB_COMPLETION_INDEX"
	ignoredAnnotation = "batch.kubernetes.io/job-index-ignored-failure-count"
)

// setIndex makes a pod that of a completion index.
func (s *syncer) setIndex(p *corev1.Pod, i int) {
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	index := strconv.Itoa(i)
	p.Annotations[batchv1.JobCompletionIndexAnnotation] = index
	p.Labels[batchv1.JobCompletionIndexAnnotation] = index
	p.Spec.Hostname = s.job.Name + "-" + index
	if !s.longName(index) {
		p.GenerateName = s.job.Name + "-" + index + "-"
	}
	env := corev1.EnvVar{Name: indexEnv, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{
		FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation),
	}}}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for j := range list {
			if !slices.ContainsFunc(list[j].Env, func(e corev1.EnvVar) bool { return e.Name == indexEnv }) {
				list[j].Env = append(list[j].Env, env)
			}
		}
	}
	if !s.perIndex() {
		return
	}
	counted, ignored := 0, 0
	if was := s.delayed[i]; was != nil {
		counted, ignored = failuresOf(was)
		if judge(s.job.Spec.PodFailurePolicy, was).counts() {
			counted++
		} else {
			ignored++
		}
	}
	p.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(counted)
	if ignored > 0 {
		p.Annotations[ignoredAnnotation] = strconv.Itoa(ignored)
	}
}

// longName says whether the name with an index would leave no room for the
// suffix that the server adds.
func (s *syncer) longName(index string) bool {
	const most, suffix = 63, 5
	return len(s.job.Name)+len(index)+2+suffix > most
}
