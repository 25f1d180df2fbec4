package daemonset

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/internal/pods"
)

// After the nth failure of a pod on a node its next waits 1s*2^n, at most 15
// minutes.
const (
	failureBase = time.Second
	failureMax  = 15 * time.Minute
)

// syncer is one reconciliation of one DaemonSet.
type syncer struct {
	c       *Controller
	control pods.Control
	ds      *appsv1.DaemonSet
	now     time.Time
	hash    string
	nodes   []*corev1.Node
	on      map[string][]*corev1.Pod // by node, oldest first
	recheck time.Duration
}

func newSyncer(c *Controller, ds *appsv1.DaemonSet, nodes []*corev1.Node, owned []*corev1.Pod, hash string) *syncer {
	s := &syncer{
		c: c, control: pods.Control{Client: c.client, Recorder: c.runner.Recorder()},
		ds: ds, now: c.runner.Clock().Now(), hash: hash, nodes: nodes, on: map[string][]*corev1.Pod{},
	}
	for _, p := range owned {
		n := nodeOf(p)
		s.on[n] = append(s.on[n], p)
	}
	for _, ps := range s.on {
		slices.SortFunc(ps, func(a, b *corev1.Pod) int {
			if a.Spec.NodeName != "" && b.Spec.NodeName == "" {
				return -1
			}
			if a.Spec.NodeName == "" && b.Spec.NodeName != "" {
				return 1
			}
			return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
		})
	}
	return s
}

func (s *syncer) wake(d time.Duration) {
	if d > 0 && (s.recheck == 0 || d < s.recheck) {
		s.recheck = d
	}
}

func (s *syncer) updated(p *corev1.Pod) bool {
	return p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == s.hash
}

func (s *syncer) available(p *corev1.Pod) bool {
	if d := pods.AvailableIn(p, s.ds.Spec.MinReadySeconds, s.now); d > 0 {
		s.wake(d)
	}
	return p.DeletionTimestamp == nil && pods.IsAvailable(p, s.ds.Spec.MinReadySeconds, s.now)
}

// manage makes pods for nodes that lack one, and deletes those that are not
// wanted or have ended.
func (s *syncer) manage(ctx context.Context) error {
	var need []string
	var surplus []*corev1.Pod
	known := map[string]bool{}
	surge, _, err := s.budget()
	if err != nil {
		return err
	}
	for _, n := range s.nodes {
		known[n.Name] = true
		run, goOn := shouldRun(s.ds, n, s.c.runner.Logger())
		ps := s.on[n.Name]
		switch {
		case run && len(ps) == 0:
			need = append(need, n.Name)
		case !goOn:
			surplus = append(surplus, ps...)
		default:
			again, remove := s.onNode(n.Name, ps, surge)
			surplus = append(surplus, remove...)
			if again {
				need = append(need, n.Name)
			}
		}
	}
	// Pods that were never bound to a node that is gone; podgc has the others.
	for node, ps := range s.on {
		if known[node] {
			continue
		}
		for _, p := range ps {
			if p.Spec.NodeName == "" {
				surplus = append(surplus, p)
			}
		}
	}
	return s.apply(ctx, need, surplus)
}

// onNode looks at the pods of a node that may have one: those that have ended
// are replaced, after a while; of several that run one is kept, or while an
// update surges one old and one new.
func (s *syncer) onNode(node string, ps []*corev1.Pod, surge int) (again bool, remove []*corev1.Pod) {
	var running []*corev1.Pod
	for _, p := range ps {
		switch {
		case p.DeletionTimestamp != nil:
		case p.Status.Phase == corev1.PodFailed:
			if wait := s.failed(node); wait > 0 {
				s.wake(wait)
				continue
			}
			s.control.Recorder.Eventf(s.ds, corev1.EventTypeWarning, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", p.Namespace, p.Name, node)
			remove = append(remove, p)
		case p.Status.Phase == corev1.PodSucceeded:
			s.control.Recorder.Eventf(s.ds, corev1.EventTypeNormal, "SucceededDaemonPod", "Found succeeded daemon pod %s/%s on node %s, will try to delete it", p.Namespace, p.Name, node)
			remove = append(remove, p)
		default:
			running = append(running, p)
		}
	}
	if surge == 0 {
		if len(running) > 1 {
			remove = append(remove, running[1:]...)
		}
		return false, remove
	}
	var oldest, newest *corev1.Pod
	for _, p := range running {
		slot := &oldest
		if s.updated(p) {
			slot = &newest
		}
		if *slot == nil {
			*slot = p
		} else {
			remove = append(remove, p)
		}
	}
	if oldest != nil && newest != nil && s.available(newest) {
		remove = append(remove, oldest)
	}
	// An old pod that is on its way out needs no surge: the new one comes now.
	terminatingOnly := len(running) == 0 && len(remove) == 0 && len(ps) > 0 && !slices.ContainsFunc(ps, pods.IsFinished)
	return terminatingOnly, remove
}

// failed notes a failure on a node, unless the wait for the last one is not
// over; then it returns the rest of that.
func (s *syncer) failed(node string) time.Duration {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	key := failureKey{s.ds.UID, node}
	f := s.c.failures[key]
	if wait := f.until.Sub(s.now); wait > 0 {
		return wait
	}
	// A long time without one starts anew.
	if f.delay == 0 || s.now.Sub(f.until) > 2*failureMax {
		f.delay = failureBase
	} else {
		f.delay = min(failureMax, 2*f.delay)
	}
	f.until = s.now.Add(f.delay)
	s.c.failures[key] = f
	return 0
}

func (s *syncer) apply(ctx context.Context, need []string, surplus []*corev1.Pod) error {
	need = need[:min(len(need), s.c.burst)]
	surplus = surplus[:min(len(surplus), s.c.burst)]
	if len(need)+len(surplus) == 0 {
		return nil
	}
	key := client.ObjectKeyFromObject(s.ds)
	uids := make([]types.UID, 0, len(surplus))
	for _, p := range surplus {
		if p.DeletionTimestamp == nil {
			uids = append(uids, p.UID)
		}
	}
	s.c.expect.Create(key, len(need))
	s.c.expect.Delete(key, uids...)
	var failed atomic.Int32
	done, createErr := pods.SlowStart(len(need), 1, func(i int) error {
		err := s.control.Create(ctx, newPod(s.ds, need[i], s.hash), s.ds)
		if err != nil {
			s.c.expect.Created(key, 1)
			failed.Add(1)
		}
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			failed.Add(-1)
			return nil
		}
		return err
	})
	s.c.expect.Created(key, len(need)-done-int(failed.Load()))
	errs := pods.Parallel(len(surplus), func(i int) error {
		p := surplus[i]
		if p.DeletionTimestamp != nil {
			return nil
		}
		err := s.control.Delete(ctx, p, s.ds)
		if err != nil {
			s.c.expect.Deleted(key, p.UID)
		}
		if pods.IsGone(err) {
			return nil
		}
		return err
	})
	return errors.Join(append(errs, createErr)...)
}

// budget resolves maxSurge and maxUnavailable against the nodes wanted.
func (s *syncer) budget() (surge, unavailable int, err error) {
	if s.ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return 0, 0, nil
	}
	desired := 0
	for _, n := range s.nodes {
		if run, _ := shouldRun(s.ds, n, s.c.runner.Logger()); run {
			desired++
		}
	}
	one := intstr.FromInt32(1)
	maxUnavailable, maxSurge := &one, &intstr.IntOrString{}
	if r := s.ds.Spec.UpdateStrategy.RollingUpdate; r != nil {
		if r.MaxUnavailable != nil {
			maxUnavailable = r.MaxUnavailable
		}
		if r.MaxSurge != nil {
			maxSurge = r.MaxSurge
		}
	}
	if unavailable, err = intstr.GetScaledValueFromIntOrPercent(maxUnavailable, desired, true); err != nil {
		return 0, 0, err
	}
	if surge, err = intstr.GetScaledValueFromIntOrPercent(maxSurge, desired, true); err != nil {
		return 0, 0, err
	}
	if desired > 0 && unavailable == 0 && surge == 0 {
		unavailable = 1
	}
	return surge, unavailable, nil
}

// roll replaces pods of old revisions.
func (s *syncer) roll(ctx context.Context) error {
	if s.ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return nil
	}
	surge, most, err := s.budget()
	if err != nil {
		return err
	}
	var now, candidates []*corev1.Pod
	var create, createLater []string
	unavailable, surging := 0, 0
	for _, n := range s.nodes {
		run, goOn := shouldRun(s.ds, n, s.c.runner.Logger())
		if !run && !goOn {
			continue
		}
		var oldPod, newPod *corev1.Pod
		leaving := false
		for _, p := range s.on[n.Name] {
			switch {
			case p.DeletionTimestamp != nil || pods.IsFinished(p):
				leaving = true
			case s.updated(p):
				newPod = p
			default:
				oldPod = p
			}
		}
		switch {
		case surge == 0 && oldPod != nil && newPod == nil:
			if !s.available(oldPod) {
				now = append(now, oldPod)
				unavailable++
			} else {
				candidates = append(candidates, oldPod)
			}
		case surge == 0 && newPod != nil && oldPod == nil:
			if !s.available(newPod) {
				unavailable++
			}
		case surge == 0:
			if run {
				unavailable++
			}
		case oldPod != nil && newPod == nil && !leaving:
			// With a surge, the new pod is made first.
			if !s.available(oldPod) {
				create = append(create, n.Name)
			} else {
				createLater = append(createLater, n.Name)
			}
		case oldPod != nil && newPod != nil:
			surging++
		}
	}
	if surge == 0 {
		n := max(0, min(most-unavailable, len(candidates)))
		return s.apply(ctx, nil, append(now, candidates[:n]...))
	}
	n := max(0, min(surge-surging, len(createLater)))
	return s.apply(ctx, append(create, createLater[:n]...), nil)
}

func (s *syncer) writeStatus(ctx context.Context, collisions *int32) error {
	st := appsv1.DaemonSetStatus{ObservedGeneration: s.ds.Generation, CollisionCount: collisions, Conditions: s.ds.Status.Conditions}
	for _, n := range s.nodes {
		run, _ := shouldRun(s.ds, n, s.c.runner.Logger())
		var live []*corev1.Pod
		for _, p := range s.on[n.Name] {
			if p.DeletionTimestamp == nil {
				live = append(live, p)
			}
		}
		if !run {
			if len(s.on[n.Name]) > 0 {
				st.NumberMisscheduled++
			}
			continue
		}
		st.DesiredNumberScheduled++
		if len(s.on[n.Name]) == 0 {
			continue
		}
		st.CurrentNumberScheduled++
		if i := slices.IndexFunc(live, pods.IsReady); i >= 0 {
			st.NumberReady++
		}
		if slices.ContainsFunc(live, s.available) {
			st.NumberAvailable++
		}
		if slices.ContainsFunc(live, s.updated) {
			st.UpdatedNumberScheduled++
		}
	}
	st.NumberUnavailable = st.DesiredNumberScheduled - st.NumberAvailable
	if equality.Semantic.DeepEqual(st, s.ds.Status) {
		return nil
	}
	s.ds.Status = st
	return client.IgnoreNotFound(s.c.client.Status().Update(ctx, s.ds))
}
