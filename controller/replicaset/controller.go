package replicaset

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/claim"
	"github.com/keelson/keelson/controller/internal/expect"
	"github.com/keelson/keelson/controller/internal/pods"
	"github.com/keelson/keelson/controller/internal/view"
)

var kind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

// Options configures a Controller.
type Options struct {
	controller.Common
	// Burst bounds the pods created or deleted in one reconciliation; 0 means 500.
	Burst int
}

// Controller reconciles ReplicaSets.
type Controller struct {
	client client.WithWatch
	burst  int
	runner *controller.Runner
	sets   *view.View[*appsv1.ReplicaSet]
	pods   *view.View[*corev1.Pod]
	expect *expect.Expectations
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	if o.Burst < 0 {
		return nil, fmt.Errorf("replicaset: Options.Burst is %d, expected at least 1, or 0 for the default", o.Burst)
	}
	if o.Burst == 0 {
		o.Burst = 500
	}
	o.Common = o.Common.WithDefaults(5)
	ctl := &Controller{client: c, burst: o.Burst, expect: expect.New(o.Clock)}
	r, err := controller.New("replicaset", c, cc, ctl, controller.Options{
		Common: o.Common,
		Setup:  ctl.setup,
		Sources: []controller.Source{
			controller.For(&appsv1.ReplicaSet{}),
			{Object: &corev1.Pod{}, Handler: ctl.podHandler()},
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.sets = view.New(c, cc, &appsv1.ReplicaSet{}, view.Controller())
	ctl.pods = view.New(c, cc, &corev1.Pod{}, view.Controller())
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

func (c *Controller) setup(ctx context.Context) error {
	c.expect.Reset()
	return view.StartAll(ctx, c.sets, c.pods)
}

func (c *Controller) podHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q controller.Queue) {
			pod, ok := e.Object.(*corev1.Pod)
			if !ok {
				return
			}
			if pod.DeletionTimestamp != nil {
				c.podDeleted(pod, q)
				return
			}
			if req, ok := owner(pod); ok {
				c.expect.Created(req.NamespacedName, 1)
				q.Add(req)
				return
			}
			c.enqueueMatching(ctx, pod, q)
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q controller.Queue) {
			old, ok := e.ObjectOld.(*corev1.Pod)
			pod, ok2 := e.ObjectNew.(*corev1.Pod)
			if !ok || !ok2 || old.ResourceVersion == pod.ResourceVersion {
				return
			}
			if old.UID != pod.UID {
				c.podDeleted(old, q)
			}
			if pod.DeletionTimestamp != nil {
				// The deletion has been asked for; a controller needn't wait until it is over.
				c.podDeleted(pod, q)
				return
			}
			was, owned := owner(old)
			now, ownedNow := owner(pod)
			if owned && was != now {
				q.Add(was)
			}
			if ownedNow {
				q.Add(now)
				return
			}
			if owned || !labels.Equals(old.Labels, pod.Labels) {
				c.enqueueMatching(ctx, pod, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q controller.Queue) {
			if pod, ok := e.Object.(*corev1.Pod); ok {
				c.podDeleted(pod, q)
			}
		},
	}
}

func (c *Controller) podDeleted(pod *corev1.Pod, q controller.Queue) {
	if req, ok := owner(pod); ok {
		c.expect.Deleted(req.NamespacedName, pod.UID)
		q.Add(req)
	}
}

// enqueueMatching wakes the sets that could adopt an orphan.
func (c *Controller) enqueueMatching(ctx context.Context, pod *corev1.Pod, q controller.Queue) {
	if len(pod.Labels) == 0 {
		return
	}
	sets, err := c.sets.Namespace(ctx, pod.Namespace)
	if err != nil {
		c.runner.Logger().Error(err, "listing ReplicaSets")
		return
	}
	for _, rs := range sets {
		s, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
		if err == nil && !s.Empty() && s.Matches(labels.Set(pod.Labels)) {
			q.Add(controller.RequestFor(rs))
		}
	}
}

func owner(pod *corev1.Pod) (controller.Request, bool) {
	name, ok := controller.ControllerName(pod, kind.GroupKind())
	return controller.Request{NamespacedName: types.NamespacedName{Namespace: pod.Namespace, Name: name}}, ok
}

// Reconcile brings one ReplicaSet's pods and status up to date.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	rs, err := c.sets.Get(ctx, req.Namespace, req.Name)
	if apierrors.IsNotFound(err) {
		c.expect.Forget(req.NamespacedName)
		return controller.Result{}, nil
	}
	if err != nil {
		return controller.Result{}, err
	}
	settled := c.expect.Satisfied(req.NamespacedName)
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return controller.Result{}, reconcile.TerminalError(fmt.Errorf("selector: %w", err))
	}
	candidates, err := claim.Candidates(ctx, c.pods, rs)
	if err != nil {
		return controller.Result{}, err
	}
	var active, terminating []*corev1.Pod
	for _, p := range candidates {
		switch {
		case pods.IsActive(p):
			active = append(active, p)
		case pods.IsTerminating(p) && metav1.IsControlledBy(p, rs):
			terminating = append(terminating, p)
		}
	}
	claimer := claim.Claimer[*corev1.Pod]{Client: c.client, Owner: rs, Kind: kind, Selector: selector}
	owned, err := claimer.Claim(ctx, active)
	if err != nil {
		return controller.Result{}, err
	}
	var manageErr error
	if settled && rs.DeletionTimestamp == nil {
		owned, manageErr = c.manage(ctx, rs, owned)
	}
	now := c.runner.Clock().Now()
	status := newStatus(rs, owned, len(terminating), manageErr, now)
	if err := c.updateStatus(ctx, rs, status); err != nil {
		return controller.Result{}, err
	}
	if manageErr != nil {
		return controller.Result{}, manageErr
	}
	return controller.Result{RequeueAfter: next(rs, owned, settled, now)}, nil
}

// next is when pods will become available without any event saying so.
func next(rs *appsv1.ReplicaSet, owned []*corev1.Pod, settled bool, now time.Time) time.Duration {
	var soonest time.Duration
	if !settled {
		soonest = expect.Timeout()
	}
	for _, p := range owned {
		if d := pods.AvailableIn(p, rs.Spec.MinReadySeconds, now); d > 0 && (soonest == 0 || d < soonest) {
			soonest = d
		}
	}
	return soonest
}

// manage creates or deletes pods, and returns those left as far as known.
func (c *Controller) manage(ctx context.Context, rs *appsv1.ReplicaSet, owned []*corev1.Pod) ([]*corev1.Pod, error) {
	key := client.ObjectKeyFromObject(rs)
	control := pods.Control{Client: c.client, Recorder: c.runner.Recorder()}
	diff := len(owned) - int(replicas(rs))
	switch {
	case diff < 0:
		n := min(-diff, c.burst)
		c.expect.Create(key, n)
		ref := metav1.NewControllerRef(rs, kind)
		var failed atomic.Int32
		done, err := pods.SlowStart(n, 1, func(int) error {
			err := control.Create(ctx, pods.FromTemplate(&rs.Spec.Template, rs.Namespace, rs.Name, ref), rs)
			if err != nil {
				failed.Add(1)
				c.expect.Created(key, 1)
			}
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				failed.Add(-1)
				return nil
			}
			return err
		})
		// What was never tried will not be seen either.
		c.expect.Created(key, n-done-int(failed.Load()))
		return owned, err
	case diff > 0:
		victims := c.victims(ctx, rs, owned, min(diff, c.burst))
		uids := make([]types.UID, 0, len(victims))
		for _, p := range victims {
			uids = append(uids, p.UID)
		}
		c.expect.Delete(key, uids...)
		_, err := pods.SlowStart(len(victims), len(victims), func(i int) error {
			err := control.Delete(ctx, victims[i], rs)
			if err != nil {
				c.expect.Deleted(key, victims[i].UID)
			}
			if pods.IsGone(err) {
				return nil
			}
			return err
		})
		return owned, err
	}
	return owned, nil
}

// victims picks the pods to delete. Pods on nodes that hold many pods of the
// same owner's sets go first, so that a rollout keeps its spread.
func (c *Controller) victims(ctx context.Context, rs *appsv1.ReplicaSet, owned []*corev1.Pod, n int) []*corev1.Pod {
	if n >= len(owned) {
		return owned
	}
	onNode := map[string]int{}
	for _, p := range c.related(ctx, rs, owned) {
		if pods.IsActive(p) && p.Spec.NodeName != "" {
			onNode[p.Spec.NodeName]++
		}
	}
	ranked := make([]pods.Ranked, 0, len(owned))
	for _, p := range owned {
		ranked = append(ranked, pods.Ranked{Pod: p, OnNode: onNode[p.Spec.NodeName]})
	}
	pods.SortForDeletion(ranked, c.runner.Clock().Now())
	out := make([]*corev1.Pod, 0, n)
	for _, r := range ranked[:n] {
		out = append(out, r.Pod)
	}
	return out
}

// related returns the pods of all sets that rs's controller has.
func (c *Controller) related(ctx context.Context, rs *appsv1.ReplicaSet, owned []*corev1.Pod) []*corev1.Pod {
	ref := metav1.GetControllerOfNoCopy(rs)
	if ref == nil {
		return owned
	}
	sets, err := c.sets.By(ctx, view.Controller(), view.OwnedBy(ref.UID))
	if err != nil {
		return owned
	}
	var out []*corev1.Pod
	for _, s := range sets {
		ps, err := c.pods.By(ctx, view.Controller(), view.OwnedBy(s.UID))
		if err != nil {
			return owned
		}
		out = append(out, ps...)
	}
	return out
}

func replicas(rs *appsv1.ReplicaSet) int32 {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return *rs.Spec.Replicas
}

func newStatus(rs *appsv1.ReplicaSet, owned []*corev1.Pod, terminating int, manageErr error, now time.Time) appsv1.ReplicaSetStatus {
	s := *rs.Status.DeepCopy()
	s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas = int32(len(owned)), 0, 0, 0
	template := labels.Set(rs.Spec.Template.Labels).AsSelectorPreValidated()
	for _, p := range owned {
		if template.Matches(labels.Set(p.Labels)) {
			s.FullyLabeledReplicas++
		}
		if pods.IsReady(p) {
			s.ReadyReplicas++
			if pods.IsAvailable(p, rs.Spec.MinReadySeconds, now) {
				s.AvailableReplicas++
			}
		}
	}
	t := int32(terminating)
	s.TerminatingReplicas = &t
	failed := -1
	for i := range s.Conditions {
		if s.Conditions[i].Type == appsv1.ReplicaSetReplicaFailure {
			failed = i
		}
	}
	switch {
	case manageErr != nil && failed < 0:
		reason := "FailedCreate"
		if len(owned) > int(replicas(rs)) {
			reason = "FailedDelete"
		}
		s.Conditions = append(s.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
			LastTransitionTime: metav1.NewTime(now), Reason: reason, Message: manageErr.Error(),
		})
	case manageErr == nil && failed >= 0:
		s.Conditions = append(s.Conditions[:failed:failed], s.Conditions[failed+1:]...)
	}
	return s
}

// updateStatus writes the status unless it is what the set has already.
func (c *Controller) updateStatus(ctx context.Context, rs *appsv1.ReplicaSet, s appsv1.ReplicaSetStatus) error {
	s.ObservedGeneration = rs.Generation
	if equality.Semantic.DeepEqual(rs.Status, s) {
		return nil
	}
	out := rs.DeepCopy()
	out.Status = s
	err := c.client.Status().Update(ctx, out)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
