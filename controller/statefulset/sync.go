package statefulset

import (
	"context"
	"errors"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/internal/history"
	"github.com/keelson/keelson/controller/internal/pods"
)

// syncer is one reconciliation of one StatefulSet.
type syncer struct {
	c         *Controller
	set       *appsv1.StatefulSet
	now       time.Time
	keeper    *history.Keeper
	revisions []*appsv1.ControllerRevision

	current, update       *appsv1.ControllerRevision
	currentSet, updateSet *appsv1.StatefulSet
	status                appsv1.StatefulSetStatus
	recheck               time.Duration
}

func (s *syncer) run(ctx context.Context, owned []*corev1.Pod) error {
	var err error
	var collisions *int32
	s.update, s.revisions, collisions, err = s.keeper.Ensure(ctx, s.revisions, &s.set.Spec.Template, s.set.Status.CollisionCount)
	if err != nil {
		return err
	}
	for _, r := range s.revisions {
		if r.Name == s.set.Status.CurrentRevision {
			s.current = r
		}
	}
	if s.current == nil {
		s.current = s.update
	}
	if s.currentSet, err = history.Apply(s.set, s.current); err != nil {
		return err
	}
	if s.updateSet, err = history.Apply(s.set, s.update); err != nil {
		return err
	}
	s.status = appsv1.StatefulSetStatus{
		ObservedGeneration: s.set.Generation, CurrentRevision: s.current.Name, UpdateRevision: s.update.Name,
		CollisionCount: collisions, Conditions: s.set.Status.Conditions,
	}
	for _, p := range owned {
		s.count(p, 1)
	}
	workErr := s.work(ctx, owned)
	s.complete()
	if err := s.writeStatus(ctx, s.status); err != nil {
		return errors.Join(workErr, err)
	}
	if workErr != nil {
		return workErr
	}
	used := map[string]bool{s.current.Name: true, s.update.Name: true}
	for _, p := range owned {
		used[revisionOf(p)] = true
	}
	limit := 10
	if s.set.Spec.RevisionHistoryLimit != nil {
		limit = int(*s.set.Spec.RevisionHistoryLimit)
	}
	return s.keeper.Truncate(ctx, s.revisions, limit, func(r *appsv1.ControllerRevision) bool { return used[r.Name] })
}

// count adds a pod to the status, or with -1 takes it off.
func (s *syncer) count(p *corev1.Pod, by int32) {
	if p.Status.Phase != "" || by < 0 {
		s.status.Replicas += by
	}
	if p.Status.Phase == corev1.PodRunning && pods.IsReady(p) {
		s.status.ReadyReplicas += by
		if pods.IsAvailable(p, s.set.Spec.MinReadySeconds, s.now) {
			s.status.AvailableReplicas += by
		} else if d := pods.AvailableIn(p, s.set.Spec.MinReadySeconds, s.now); d > 0 && (s.recheck == 0 || d < s.recheck) {
			s.recheck = d
		}
	}
	if p.DeletionTimestamp == nil {
		s.countRevision(revisionOf(p), by)
	}
}

func (s *syncer) countRevision(name string, by int32) {
	if name == s.current.Name {
		s.status.CurrentReplicas += by
	}
	if name == s.update.Name {
		s.status.UpdatedReplicas += by
	}
}

// complete makes the update revision the current one once all pods are of it.
func (s *syncer) complete() {
	want := *s.set.Spec.Replicas
	if s.set.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType &&
		s.status.UpdatedReplicas == want && s.status.ReadyReplicas == want && s.status.Replicas == want {
		s.status.CurrentReplicas = s.status.UpdatedReplicas
		s.status.CurrentRevision = s.status.UpdateRevision
	}
}

func (s *syncer) parallel() bool {
	return s.set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement
}

func (s *syncer) partition() int {
	if r := s.set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		return int(*r.Partition)
	}
	return 0
}

// versioned makes the pod of an ordinal, of the current revision while a
// rolling update has not come to it.
func (s *syncer) versioned(ordinal int) *corev1.Pod {
	strategy := s.set.Spec.UpdateStrategy
	if strategy.Type != appsv1.OnDeleteStatefulSetStrategyType {
		keep := int(s.set.Status.CurrentReplicas)
		if strategy.RollingUpdate != nil {
			keep = s.partition()
		}
		if ordinal < startOrdinal(s.set)+keep {
			return newPod(s.currentSet, ordinal, s.current.Name)
		}
	}
	return newPod(s.updateSet, ordinal, s.update.Name)
}

func (s *syncer) available(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodRunning && pods.IsAvailable(p, s.set.Spec.MinReadySeconds, s.now)
}

func (s *syncer) healthy(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodRunning && pods.IsReady(p) && p.DeletionTimestamp == nil
}

// work takes the next step, or when pods are managed in parallel all steps, of
// scaling up, then of scaling down, then of the update.
func (s *syncer) work(ctx context.Context, owned []*corev1.Pod) error {
	if s.set.DeletionTimestamp != nil {
		return nil
	}
	start := startOrdinal(s.set)
	replicas := make([]*corev1.Pod, *s.set.Spec.Replicas)
	var condemned []*corev1.Pod
	for _, p := range owned {
		switch i := ordinalOf(p) - start; {
		case ordinalOf(p) < 0:
		case i >= 0 && i < len(replicas):
			replicas[i] = p
		default:
			condemned = append(condemned, p)
		}
	}
	slices.SortFunc(condemned, func(a, b *corev1.Pod) int { return ordinalOf(b) - ordinalOf(a) })
	for _, p := range owned {
		isCondemned := slices.Contains(condemned, p)
		if err := s.retainAll(ctx, p, isCondemned); err != nil {
			return err
		}
	}
	if stop, err := s.eachReplica(ctx, replicas); stop || err != nil {
		return err
	}
	if stop, err := s.eachCondemned(ctx, replicas, condemned); stop || err != nil {
		return err
	}
	if s.set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return nil
	}
	return s.roll(ctx, replicas)
}

func (s *syncer) eachReplica(ctx context.Context, replicas []*corev1.Pod) (bool, error) {
	if s.parallel() {
		errs := pods.Parallel(len(replicas), func(i int) error {
			p := replicas[i]
			if p == nil {
				return nil
			}
			_, err := s.prepare(ctx, p)
			return err
		})
		for i, p := range replicas {
			if p != nil {
				continue
			}
			made, err := s.create(ctx, s.versioned(startOrdinal(s.set)+i))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			replicas[i] = made
		}
		return false, errors.Join(errs...)
	}
	for i, p := range replicas {
		if p == nil {
			_, err := s.create(ctx, s.versioned(startOrdinal(s.set)+i))
			return true, err
		}
		stop, err := s.prepare(ctx, p)
		if stop || err != nil {
			return true, err
		}
		// The next one waits until this one is available.
		if p.DeletionTimestamp != nil || !s.available(p) {
			return true, nil
		}
	}
	return false, nil
}

// prepare deletes a pod that has ended, to make it anew, and sees that it has
// its identity and claims. It says whether the pod is being replaced.
func (s *syncer) prepare(ctx context.Context, p *corev1.Pod) (bool, error) {
	if pods.IsFinished(p) {
		if p.DeletionTimestamp != nil {
			return true, nil
		}
		if p.Status.Phase == corev1.PodFailed {
			s.c.runner.Recorder().Eventf(s.set, corev1.EventTypeWarning, "RecreatingFailedPod", "StatefulSet %s/%s is recreating failed Pod %s", s.set.Namespace, s.set.Name, p.Name)
		} else {
			s.c.runner.Recorder().Eventf(s.set, corev1.EventTypeNormal, "RecreatingTerminatedPod", "StatefulSet %s/%s is recreating terminated Pod %s", s.set.Namespace, s.set.Name, p.Name)
		}
		return true, s.delete(ctx, p)
	}
	if p.Status.Phase == corev1.PodPending {
		if err := s.createClaims(ctx, p); err != nil {
			return false, err
		}
	}
	if !identityMatches(p) && p.DeletionTimestamp == nil {
		out := p.DeepCopy()
		hostname, subdomain := out.Spec.Hostname, out.Spec.Subdomain
		setIdentity(s.set, out)
		out.Spec.Hostname, out.Spec.Subdomain = hostname, subdomain // immutable
		return false, client.IgnoreNotFound(s.c.client.Update(ctx, out))
	}
	return false, nil
}

func (s *syncer) eachCondemned(ctx context.Context, replicas, condemned []*corev1.Pod) (bool, error) {
	var errs []error
	for i, p := range condemned {
		if p.DeletionTimestamp != nil {
			if !s.parallel() {
				return true, nil
			}
			continue
		}
		// In order, none goes while another is unwell, but for that one itself.
		if !s.parallel() && i > 0 && !s.healthy(condemned[i-1]) {
			return true, nil
		}
		if err := s.delete(ctx, p); err != nil {
			errs = append(errs, err)
		}
		if !s.parallel() {
			return true, errors.Join(errs...)
		}
	}
	return len(condemned) > 0 && s.parallel() && len(errs) > 0, errors.Join(errs...)
}

// roll replaces pods of another revision, the highest ordinal first, as many
// at a time as may be unavailable.
func (s *syncer) roll(ctx context.Context, replicas []*corev1.Pod) error {
	most := 1
	if r := s.set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.MaxUnavailable != nil {
		n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, int(*s.set.Spec.Replicas), false)
		if err != nil {
			return err
		}
		most = max(1, n)
	}
	unavailable := 0
	for _, p := range replicas {
		if p != nil && (p.DeletionTimestamp != nil || !s.available(p)) {
			unavailable++
		}
	}
	first := max(0, s.partition())
	for i := len(replicas) - 1; i >= first; i-- {
		p := replicas[i]
		if p == nil {
			return nil
		}
		old := revisionOf(p) != s.update.Name
		if old && p.DeletionTimestamp == nil {
			ailing := !s.available(p)
			if !ailing && unavailable >= most {
				return nil
			}
			if err := s.delete(ctx, p); err != nil {
				return err
			}
			if !ailing {
				unavailable++
			}
			if unavailable >= most {
				return nil
			}
			continue
		}
		if !s.healthy(p) && unavailable >= most {
			return nil
		}
	}
	return nil
}

func (s *syncer) create(ctx context.Context, p *corev1.Pod) (*corev1.Pod, error) {
	if err := s.createClaims(ctx, p); err != nil {
		s.c.runner.Recorder().Eventf(s.set, corev1.EventTypeWarning, "FailedCreate", "create Pod %s in StatefulSet %s failed error: %s", p.Name, s.set.Name, err)
		return nil, err
	}
	err := s.c.client.Create(ctx, p)
	switch {
	case apierrors.IsAlreadyExists(err):
		// The cache is behind, or somebody else's pod has the name; either way an
		// event will tell when that changes.
		return nil, err
	case err != nil:
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			s.c.runner.Recorder().Eventf(s.set, corev1.EventTypeWarning, "FailedCreate", "create Pod %s in StatefulSet %s failed error: %s", p.Name, s.set.Name, err)
		}
		return nil, err
	}
	s.c.runner.Recorder().Eventf(s.set, corev1.EventTypeNormal, "SuccessfulCreate", "create Pod %s in StatefulSet %s successful", p.Name, s.set.Name)
	s.count(p, 1)
	return p, nil
}

func (s *syncer) delete(ctx context.Context, p *corev1.Pod) error {
	err := s.c.client.Delete(ctx, p, client.Preconditions{UID: &p.UID})
	if pods.IsGone(err) {
		return nil
	}
	if err != nil {
		s.c.runner.Recorder().Eventf(s.set, corev1.EventTypeWarning, "FailedDelete", "delete Pod %s in StatefulSet %s failed error: %s", p.Name, s.set.Name, err)
		return err
	}
	s.c.runner.Recorder().Eventf(s.set, corev1.EventTypeNormal, "SuccessfulDelete", "delete Pod %s in StatefulSet %s successful", p.Name, s.set.Name)
	s.countRevision(revisionOf(p), -1)
	return nil
}
