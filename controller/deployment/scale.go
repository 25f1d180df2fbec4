package deployment

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	maxInt32 = math.MaxInt32

	revisionAnnotation = "deployment.kubernetes.io/revision"
	revisionHistory    = "deployment.kubernetes.io/revision-history"
	desiredReplicas    = "deployment.kubernetes.io/desired-replicas"
	maxReplicas        = "deployment.kubernetes.io/max-replicas"

	// maxHistoryLength bounds the revision-history annotation, in bytes.
	maxHistoryLength = 2000
)

// notCopied are annotations of a Deployment that its sets don't get.
var notCopied = []string{
	corev1.LastAppliedConfigAnnotation, revisionAnnotation, revisionHistory, desiredReplicas, maxReplicas,
	appsv1.DeprecatedRollbackTo,
}

func size(rs *appsv1.ReplicaSet) int32 {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return *rs.Spec.Replicas
}

func total(sets []*appsv1.ReplicaSet) (n int32) {
	for _, rs := range sets {
		n += size(rs)
	}
	return n
}

func active(sets []*appsv1.ReplicaSet) (out []*appsv1.ReplicaSet) {
	for _, rs := range sets {
		if size(rs) > 0 {
			out = append(out, rs)
		}
	}
	return out
}

// fenceposts resolves maxSurge (up) and maxUnavailable (down); both being zero
// would never move, so then one may be unavailable.
func fenceposts(d *appsv1.Deployment) (surge, unavailable int32) {
	r := d.Spec.Strategy.RollingUpdate
	quarter := intstr.FromString("25%")
	up, down := &quarter, &quarter
	if r != nil && r.MaxSurge != nil {
		up = r.MaxSurge
	}
	if r != nil && r.MaxUnavailable != nil {
		down = r.MaxUnavailable
	}
	u, err1 := intstr.GetScaledValueFromIntOrPercent(up, int(*d.Spec.Replicas), true)
	n, err2 := intstr.GetScaledValueFromIntOrPercent(down, int(*d.Spec.Replicas), false)
	if err1 != nil || err2 != nil || u == 0 && n == 0 {
		n = max(n, 1)
	}
	return int32(u), int32(n)
}

func rolling(d *appsv1.Deployment) bool {
	return d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType
}

func maxSurge(d *appsv1.Deployment) int32 {
	if !rolling(d) {
		return 0
	}
	n, _ := fenceposts(d)
	return n
}

func maxUnavailable(d *appsv1.Deployment) int32 {
	if !rolling(d) || *d.Spec.Replicas == 0 {
		return 0
	}
	_, n := fenceposts(d)
	return min(n, *d.Spec.Replicas)
}

// newSetSize is how far the set of the present template may grow now.
func newSetSize(d *appsv1.Deployment, all []*appsv1.ReplicaSet, rs *appsv1.ReplicaSet) int32 {
	want := *d.Spec.Replicas
	if !rolling(d) {
		return want
	}
	room := want + maxSurge(d) - total(all)
	if room <= 0 {
		return size(rs)
	}
	return size(rs) + min(room, want-size(rs))
}

func intAnnotation(rs *appsv1.ReplicaSet, key string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[key], 10, 32)
	return int32(n), err == nil
}

func revisionOf(rs *appsv1.ReplicaSet) int64 {
	n, err := strconv.ParseInt(rs.Annotations[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func maxRevision(sets []*appsv1.ReplicaSet) (n int64) {
	for _, rs := range sets {
		n = max(n, revisionOf(rs))
	}
	return n
}

// annotateSet copies the deployment's annotations and raises the revision,
// remembering the one before; it says whether anything changed.
func annotateSet(d *appsv1.Deployment, rs *appsv1.ReplicaSet, revision int64) bool {
	a := maps.Clone(rs.Annotations)
	if a == nil {
		a = map[string]string{}
	}
	for k, v := range d.Annotations {
		if !slices.Contains(notCopied, k) {
			a[k] = v
		}
	}
	if was := revisionOf(rs); was < revision {
		a[revisionAnnotation] = strconv.FormatInt(revision, 10)
		if was > 0 {
			history := strings.Split(a[revisionHistory], ",")
			if a[revisionHistory] == "" {
				history = nil
			}
			history = append(history, strconv.FormatInt(was, 10))
			joined := strings.Join(history, ",")
			for len(joined) > maxHistoryLength && len(history) > 1 {
				history = history[1:]
				joined = strings.Join(history, ",")
			}
			a[revisionHistory] = joined
		}
	}
	if maps.Equal(a, rs.Annotations) {
		return false
	}
	rs.Annotations = a
	return true
}

// annotateSize notes the deployment's size, by which a later change of it is
// told from a rollout in progress.
func annotateSize(rs *appsv1.ReplicaSet, desired, most int32) bool {
	want := map[string]string{desiredReplicas: strconv.Itoa(int(desired)), maxReplicas: strconv.Itoa(int(most))}
	changed := false
	for k, v := range want {
		if rs.Annotations[k] != v {
			if rs.Annotations == nil {
				rs.Annotations = map[string]string{}
			}
			rs.Annotations[k], changed = v, true
		}
	}
	return changed
}

// scale gives a set a size, with an event when that changes.
func (s *sync) scale(ctx context.Context, rs *appsv1.ReplicaSet, n int32) error {
	out := rs.DeepCopy()
	from := size(rs)
	if !annotateSize(out, *s.d.Spec.Replicas, *s.d.Spec.Replicas+maxSurge(s.d)) && from == n {
		return nil
	}
	out.Spec.Replicas = &n
	if err := s.client.Update(ctx, out); err != nil {
		return err
	}
	s.replaceSet(out)
	if from != n {
		way := "up"
		if n < from {
			way = "down"
		}
		s.recorder.Eventf(s.d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", way, rs.Name, from, n)
	}
	return nil
}

// scaleAll follows a change of the deployment's size without rolling anything:
// one active set gets it all; of several, each its share, lest availability
// depend on how far a rollout has come.
func (s *sync) scaleAll(ctx context.Context) error {
	want := *s.d.Spec.Replicas
	if rs, only := s.activeOrLatest(); only {
		if rs == nil {
			return nil
		}
		return s.scale(ctx, rs, want)
	}
	if s.saturated() {
		for _, rs := range active(s.old) {
			if err := s.scale(ctx, rs, 0); err != nil {
				return err
			}
		}
		return nil
	}
	if !rolling(s.d) {
		return nil
	}
	sets := active(s.all())
	allowed := int32(0)
	if want > 0 {
		allowed = want + maxSurge(s.d)
	}
	add := allowed - total(sets)
	slices.SortFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		if n := cmp.Compare(size(b), size(a)); n != 0 {
			return n
		}
		if add > 0 {
			return byCreation(b, a)
		}
		return byCreation(a, b)
	})
	sizes := make([]int32, len(sets))
	added := int32(0)
	for i, rs := range sets {
		n := s.share(rs, add, added)
		sizes[i] = size(rs) + n
		added += n
	}
	for i, rs := range sets {
		if i == 0 {
			sizes[i] = max(0, sizes[i]+add-added)
		}
		if err := s.scale(ctx, rs, sizes[i]); err != nil {
			return err
		}
	}
	return nil
}

// activeOrLatest returns the only set with pods wanted, or when there is none
// the latest; only is false when there are several.
func (s *sync) activeOrLatest() (rs *appsv1.ReplicaSet, only bool) {
	a := active(s.all())
	switch {
	case len(a) == 1:
		return a[0], true
	case len(a) > 1:
		return nil, false
	case s.current != nil:
		return s.current, true
	case len(s.old) > 0:
		return slices.MaxFunc(s.old, byCreation), true
	}
	return nil, true
}

func (s *sync) saturated() bool {
	if s.current == nil {
		return false
	}
	desired, ok := intAnnotation(s.current, desiredReplicas)
	want := *s.d.Spec.Replicas
	return ok && desired == want && size(s.current) == want && s.current.Status.AvailableReplicas == want
}

// share is a set's part of the pods to add (or, below zero, to remove), in
// proportion to its size, of which added are given out already.
func (s *sync) share(rs *appsv1.ReplicaSet, add, added int32) int32 {
	if size(rs) == 0 || add == 0 || add == added {
		return 0
	}
	var part int32
	if *s.d.Spec.Replicas == 0 {
		part = -size(rs)
	} else {
		most := *s.d.Spec.Replicas + maxSurge(s.d)
		before, ok := intAnnotation(rs, maxReplicas)
		if !ok || before <= 0 {
			before = s.d.Status.Replicas
		}
		if before <= 0 {
			return 0
		}
		part = int32(math.Round(float64(size(rs))*float64(most)/float64(before))) - size(rs)
	}
	if add > 0 {
		return min(part, add-added)
	}
	return max(part, add-added)
}
