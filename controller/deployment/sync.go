package deployment

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/internal/pods"
	"github.com/keelson/keelson/controller/internal/template"
	"github.com/keelson/keelson/controller/internal/view"
)

// sync is one reconciliation of one Deployment.
type sync struct {
	client   client.Client
	recorder record.EventRecorder
	now      time.Time
	pods     *view.View[*corev1.Pod]

	d       *appsv1.Deployment
	before  *appsv1.DeploymentStatus
	sets    []*appsv1.ReplicaSet // all that the deployment owns
	current *appsv1.ReplicaSet   // the one of the present template, or nil
	old     []*appsv1.ReplicaSet // all others
	recheck time.Duration
}

func (s *sync) all() []*appsv1.ReplicaSet {
	if s.current == nil {
		return s.old
	}
	return append(slices.Clone(s.old), s.current)
}

func (s *sync) run(ctx context.Context) error {
	if s.d.DeletionTimestamp != nil {
		if err := s.revise(ctx, false); err != nil {
			return err
		}
		return s.syncStatus(ctx)
	}
	if err := s.pauseConditions(ctx); err != nil {
		return err
	}
	if err := s.revise(ctx, false); err != nil {
		return err
	}
	if s.d.Spec.Paused || s.resized() {
		if err := s.scaleAll(ctx); err != nil {
			return err
		}
		if s.d.Spec.Paused {
			if err := s.cleanup(ctx); err != nil {
				return err
			}
		}
		return s.syncStatus(ctx)
	}
	switch s.d.Spec.Strategy.Type {
	case appsv1.RecreateDeploymentStrategyType:
		return s.recreate(ctx)
	case appsv1.RollingUpdateDeploymentStrategyType, "":
		return s.roll(ctx)
	}
	return fmt.Errorf("unexpected deployment strategy type: %s", s.d.Spec.Strategy.Type)
}

// resized says whether the deployment's size has changed since its sets were
// last scaled.
func (s *sync) resized() bool {
	for _, rs := range active(s.all()) {
		if desired, ok := intAnnotation(rs, desiredReplicas); ok && desired != *s.d.Spec.Replicas {
			return true
		}
	}
	return false
}

// revise finds the set of the present template, or makes it, and keeps the
// revision annotations right.
func (s *sync) revise(ctx context.Context, create bool) error {
	slices.SortFunc(s.sets, byCreation)
	s.current, s.old = nil, nil
	for _, rs := range s.sets {
		// Of several sets with one template the oldest counts, for determinism.
		if s.current == nil && template.Equal(&rs.Spec.Template, &s.d.Spec.Template) {
			s.current = rs
		} else {
			s.old = append(s.old, rs)
		}
	}
	revision := maxRevision(s.old) + 1
	if s.current != nil {
		return s.reviseExisting(ctx, revision)
	}
	if !create {
		return nil
	}
	return s.createSet(ctx, revision)
}

func (s *sync) reviseExisting(ctx context.Context, revision int64) error {
	rs := s.current.DeepCopy()
	changed := annotateSet(s.d, rs, revision)
	if rs.Spec.MinReadySeconds != s.d.Spec.MinReadySeconds {
		rs.Spec.MinReadySeconds, changed = s.d.Spec.MinReadySeconds, true
	}
	if changed {
		if err := s.client.Update(ctx, rs); err != nil {
			return err
		}
		s.replaceSet(rs)
	}
	if err := s.setRevision(ctx, rs.Annotations[revisionAnnotation]); err != nil {
		return err
	}
	if hasDeadline(s.d) && condition(&s.d.Status, appsv1.DeploymentProgressing) == nil {
		s.setCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonFound, fmt.Sprintf("Found new replica set %q", rs.Name))
		return s.writeStatus(ctx)
	}
	return nil
}

// replaceSet puts a set that was written in the place of the one read.
func (s *sync) replaceSet(rs *appsv1.ReplicaSet) {
	for _, list := range [][]*appsv1.ReplicaSet{s.sets, s.old} {
		for i := range list {
			if list[i].UID == rs.UID {
				list[i] = rs
			}
		}
	}
	if s.current != nil && s.current.UID == rs.UID {
		s.current = rs
	}
}

func (s *sync) createSet(ctx context.Context, revision int64) error {
	d := s.d
	t := *d.Spec.Template.DeepCopy()
	hash := template.Hash(d.Spec.Template, d.Status.CollisionCount)
	if t.Labels == nil {
		t.Labels = map[string]string{}
	}
	t.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	selector := d.Spec.Selector.DeepCopy()
	if selector.MatchLabels == nil {
		selector.MatchLabels = map[string]string{}
	}
	selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	zero := int32(0)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: d.Name + "-" + hash, Namespace: d.Namespace, Labels: t.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, kind)},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &zero, MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: t},
	}
	size := newSetSize(d, append(slices.Clone(s.old), rs), rs)
	rs.Spec.Replicas = &size
	annotateSet(d, rs, revision)
	annotateSize(rs, *d.Spec.Replicas, *d.Spec.Replicas+maxSurge(d))

	existed := false
	err := s.client.Create(ctx, rs)
	switch {
	case apierrors.IsAlreadyExists(err):
		existed = true
		found := &appsv1.ReplicaSet{}
		if err := s.client.Get(ctx, client.ObjectKeyFromObject(rs), found); err != nil {
			return err
		}
		if !metav1.IsControlledBy(found, d) || !template.Equal(&found.Spec.Template, &d.Spec.Template) {
			// Another set has the name this template hashes to.
			n := int32(0)
			if d.Status.CollisionCount != nil {
				n = *d.Status.CollisionCount
			}
			n++
			d.Status.CollisionCount = &n
			if err := s.writeStatus(ctx); err != nil {
				return err
			}
			return err
		}
		rs = found
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return err
	case err != nil:
		msg := fmt.Sprintf("Failed to create new replica set %q: %v", rs.Name, err)
		s.recorder.Event(d, corev1.EventTypeWarning, reasonCreateError, msg)
		if hasDeadline(d) {
			s.setCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonCreateError, msg)
			// The failure to create matters more than one to say so.
			_ = s.writeStatus(ctx)
		}
		return err
	}
	if !existed && size > 0 {
		s.recorder.Eventf(d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", rs.Name, size)
	}
	s.sets = append(s.sets, rs)
	s.current = rs
	if err := s.setRevision(ctx, fmt.Sprint(revision)); err != nil {
		return err
	}
	if !existed && hasDeadline(d) {
		s.setCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonNew, fmt.Sprintf("Created new replica set %q", rs.Name))
		return s.writeStatus(ctx)
	}
	return nil
}

// setRevision writes the deployment's revision annotation if it differs.
func (s *sync) setRevision(ctx context.Context, revision string) error {
	if revision == "" || s.d.Annotations[revisionAnnotation] == revision {
		return nil
	}
	status := s.d.Status.DeepCopy()
	base := s.d.DeepCopy()
	if s.d.Annotations == nil {
		s.d.Annotations = map[string]string{}
	}
	s.d.Annotations[revisionAnnotation] = revision
	err := s.client.Patch(ctx, s.d, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	s.d.Status = *status
	return err
}

// cleanup deletes the oldest sets beyond the history limit.
func (s *sync) cleanup(ctx context.Context) error {
	limit := s.d.Spec.RevisionHistoryLimit
	if limit == nil || *limit == maxInt32 {
		return nil
	}
	old := slices.DeleteFunc(slices.Clone(s.old), func(rs *appsv1.ReplicaSet) bool { return rs.DeletionTimestamp != nil })
	surplus := len(old) - int(*limit)
	if surplus <= 0 {
		return nil
	}
	slices.SortFunc(old, func(a, b *appsv1.ReplicaSet) int {
		if n := cmp.Compare(revisionOf(a), revisionOf(b)); n != 0 {
			return n
		}
		return byCreation(a, b)
	})
	for _, rs := range old[:surplus] {
		if rs.Status.Replicas != 0 || size(rs) != 0 || rs.Generation > rs.Status.ObservedGeneration {
			continue
		}
		if err := s.client.Delete(ctx, rs); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// recreate deletes all old pods before it makes new ones.
func (s *sync) recreate(ctx context.Context) error {
	down := false
	for _, rs := range active(s.old) {
		if size(rs) > 0 {
			if err := s.scale(ctx, rs, 0); err != nil {
				return err
			}
			down = true
		}
	}
	if down {
		return s.syncRollout(ctx)
	}
	running, err := s.oldPodsRunning(ctx)
	if err != nil {
		return err
	}
	if running {
		return s.syncRollout(ctx)
	}
	if s.current == nil {
		if err := s.revise(ctx, true); err != nil {
			return err
		}
	}
	if err := s.scale(ctx, s.current, *s.d.Spec.Replicas); err != nil {
		return err
	}
	if complete(s.d, &s.d.Status) {
		if err := s.cleanup(ctx); err != nil {
			return err
		}
	}
	return s.syncRollout(ctx)
}

func (s *sync) oldPodsRunning(ctx context.Context) (bool, error) {
	for _, rs := range s.old {
		if rs.Status.Replicas > 0 {
			return true, nil
		}
		ps, err := s.pods.By(ctx, view.Controller(), view.OwnedBy(rs.UID))
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(ps, func(p *corev1.Pod) bool { return !pods.IsFinished(p) }) {
			return true, nil
		}
	}
	return false, nil
}

// roll takes one step of a rolling update: up if there is room, else down.
func (s *sync) roll(ctx context.Context) error {
	if s.current == nil {
		if err := s.revise(ctx, true); err != nil {
			return err
		}
	}
	want := *s.d.Spec.Replicas
	if size(s.current) != want {
		n := want
		if size(s.current) < want {
			n = newSetSize(s.d, s.all(), s.current)
		}
		if n != size(s.current) {
			if err := s.scale(ctx, s.current, n); err != nil {
				return err
			}
			return s.syncRollout(ctx)
		}
	}
	down, err := s.rollDown(ctx)
	if err != nil {
		return err
	}
	if !down && complete(s.d, &s.d.Status) {
		if err := s.cleanup(ctx); err != nil {
			return err
		}
	}
	return s.syncRollout(ctx)
}

// rollDown removes as many old pods as availability allows, those that are not
// available first.
func (s *sync) rollDown(ctx context.Context) (bool, error) {
	old := active(s.old)
	if total(old) == 0 {
		return false, nil
	}
	minAvailable := *s.d.Spec.Replicas - maxUnavailable(s.d)
	newUnavailable := size(s.current) - s.current.Status.AvailableReplicas
	budget := total(s.all()) - minAvailable - newUnavailable
	if budget <= 0 {
		return false, nil
	}
	slices.SortFunc(old, byCreation)
	down := int32(0)
	for i, rs := range old {
		unhealthy := min(budget-down, size(rs)-rs.Status.AvailableReplicas)
		if unhealthy <= 0 {
			continue
		}
		if err := s.scale(ctx, rs, size(rs)-unhealthy); err != nil {
			return false, err
		}
		old[i] = s.find(rs)
		down += unhealthy
	}
	available := int32(0)
	for _, rs := range s.all() {
		available += rs.Status.AvailableReplicas
	}
	spare := available - minAvailable
	for _, rs := range old {
		n := min(spare, size(rs))
		if n <= 0 {
			continue
		}
		if err := s.scale(ctx, rs, size(rs)-n); err != nil {
			return false, err
		}
		spare -= n
		down += n
	}
	return down > 0, nil
}

func (s *sync) find(rs *appsv1.ReplicaSet) *appsv1.ReplicaSet {
	for _, o := range s.all() {
		if o.UID == rs.UID {
			return o
		}
	}
	return rs
}

func byCreation(a, b *appsv1.ReplicaSet) int {
	if n := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); n != 0 {
		return n
	}
	return strings.Compare(a.Name, b.Name)
}
