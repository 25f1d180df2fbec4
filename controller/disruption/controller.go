package disruption

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	pdbhelper "k8s.io/component-helpers/apps/poddisruptionbudget"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/internal/pods"
	"github.com/keelson/keelson/controller/internal/view"
	"github.com/keelson/keelson/controller/resources"
)

const (
	// deletionTimeout is how long an evicted pod may take to begin to go before
	// the eviction counts as failed.
	deletionTimeout = 2 * time.Minute
	// stalePodTimeout is how long a pod may be marked to be disrupted without
	// being deleted.
	stalePodTimeout = 2 * time.Minute

	podPrefix = "pod/"
)

// Options configures a Controller.
type Options struct {
	controller.Common
}

// Controller reconciles PodDisruptionBudgets.
type Controller struct {
	client      client.WithWatch
	runner      *controller.Runner
	budgets     *view.View[*policyv1.PodDisruptionBudget]
	pods        *view.View[*corev1.Pod]
	sets        *view.View[*appsv1.ReplicaSet]
	deployments *view.View[*appsv1.Deployment]
	stateful    *view.View[*appsv1.StatefulSet]
}

// New makes a Controller. It starts nothing.
func New(c client.WithWatch, cc cache.Cache, o Options) (*Controller, error) {
	ctl := &Controller{client: c}
	nothing := func(context.Context, client.Object) []controller.Request { return nil }
	r, err := controller.New("disruption", c, cc, ctl, controller.Options{
		Common:    o.Common,
		Component: "controllermanager",
		Setup: func(ctx context.Context) error {
			return view.StartAll(ctx, ctl.budgets, ctl.pods, ctl.sets, ctl.deployments, ctl.stateful)
		},
		Sources: []controller.Source{
			controller.For(&policyv1.PodDisruptionBudget{}),
			controller.Mapped(&corev1.Pod{}, ctl.budgetsOf),
			controller.Mapped(&appsv1.ReplicaSet{}, nothing),
			controller.Mapped(&appsv1.Deployment{}, nothing),
			controller.Mapped(&appsv1.StatefulSet{}, nothing),
		},
	})
	if err != nil {
		return nil, err
	}
	ctl.runner = r
	ctl.budgets = view.New(c, cc, &policyv1.PodDisruptionBudget{})
	ctl.pods = view.New(c, cc, &corev1.Pod{}, view.Label())
	ctl.sets = view.New(c, cc, &appsv1.ReplicaSet{})
	ctl.deployments = view.New(c, cc, &appsv1.Deployment{})
	ctl.stateful = view.New(c, cc, &appsv1.StatefulSet{})
	return ctl, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx) }

// budgetsOf returns the budgets that select a pod, and the pod itself when it
// is marked to be disrupted.
func (c *Controller) budgetsOf(ctx context.Context, o client.Object) []controller.Request {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return nil
	}
	var out []controller.Request
	if cond := pods.Condition(p, corev1.DisruptionTarget); cond != nil && cond.Status == corev1.ConditionTrue && pods.IsActive(p) {
		out = append(out, controller.Request{NamespacedName: types.NamespacedName{Namespace: p.Namespace, Name: podPrefix + p.Name}})
	}
	all, err := c.budgets.Namespace(ctx, p.Namespace)
	if err != nil {
		c.runner.Logger().Error(err, "listing PodDisruptionBudgets")
	}
	for _, b := range all {
		s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && s.Matches(labels.Set(p.Labels)) {
			out = append(out, controller.RequestFor(b))
		}
	}
	return out
}

// Reconcile brings the status of one budget up to date.
func (c *Controller) Reconcile(ctx context.Context, req controller.Request) (controller.Result, error) {
	if name, ok := strings.CutPrefix(req.Name, podPrefix); ok {
		return c.reconcilePod(ctx, req.Namespace, name)
	}
	cached, err := c.budgets.Get(ctx, req.Namespace, req.Name)
	if err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	b := cached.DeepCopy()
	next, err := c.sync(ctx, b)
	if err == nil {
		return controller.Result{RequeueAfter: next}, nil
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	// Without knowing, none may go.
	b = cached.DeepCopy()
	b.Status.DisruptionsAllowed = 0
	b.Status.ObservedGeneration = b.Generation
	meta.SetStatusCondition(&b.Status.Conditions, metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: err.Error(), ObservedGeneration: b.Generation,
	})
	return controller.Result{}, errors.Join(err, c.write(ctx, cached, b))
}

func (c *Controller) write(ctx context.Context, was, b *policyv1.PodDisruptionBudget) error {
	if equality.Semantic.DeepEqual(was.Status, b.Status) {
		return nil
	}
	return c.client.Status().Update(ctx, b)
}

func (c *Controller) sync(ctx context.Context, b *policyv1.PodDisruptionBudget) (time.Duration, error) {
	was := b.DeepCopy()
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return 0, reconcile.TerminalError(fmt.Errorf("selector: %w", err))
	}
	selected, err := c.selected(ctx, b, selector)
	if err != nil {
		return 0, err
	}
	if len(selected) == 0 {
		c.runner.Recorder().Event(b, corev1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	expected, desired, err := c.expected(ctx, b, selected)
	if err != nil {
		c.runner.Recorder().Eventf(b, corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
		return 0, err
	}
	now := c.runner.Clock().Now()
	disrupted, next := c.disrupted(b, selected, now)
	healthy := 0
	for _, p := range selected {
		if _, gone := disrupted[p.Name]; p.DeletionTimestamp == nil && !gone && pods.IsReady(p) {
			healthy++
		}
	}
	allowed := healthy - desired
	if expected <= 0 {
		allowed = 0
	}
	b.Status = policyv1.PodDisruptionBudgetStatus{
		CurrentHealthy: int32(healthy), DesiredHealthy: int32(desired), ExpectedPods: int32(expected), DisruptionsAllowed: int32(max(0, allowed)),
		DisruptedPods: disrupted, ObservedGeneration: b.Generation, Conditions: b.Status.Conditions,
	}
	pdbhelper.UpdateDisruptionAllowedCondition(b)
	return next, c.write(ctx, was, b)
}

func (c *Controller) selected(ctx context.Context, b *policyv1.PodDisruptionBudget, s labels.Selector) ([]*corev1.Pod, error) {
	var all []*corev1.Pod
	var err error
	narrowed := false
	if b.Spec.Selector != nil {
		for k, v := range b.Spec.Selector.MatchLabels {
			all, err = c.pods.By(ctx, view.Label(), view.LabelValue(b.Namespace, k, v))
			narrowed = true
			break
		}
	}
	if !narrowed {
		all, err = c.pods.Namespace(ctx, b.Namespace)
	}
	if err != nil {
		return nil, err
	}
	var out []*corev1.Pod
	for _, p := range all {
		if s.Matches(labels.Set(p.Labels)) && !pods.IsFinished(p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// expected returns how many pods there should be, and how many healthy.
func (c *Controller) expected(ctx context.Context, b *policyv1.PodDisruptionBudget, selected []*corev1.Pod) (int, int, error) {
	switch {
	case b.Spec.MaxUnavailable != nil:
		n, err := c.scale(ctx, selected)
		if err != nil {
			return 0, 0, err
		}
		down, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, n, true)
		if err != nil {
			return 0, 0, err
		}
		return n, max(0, n-down), nil
	case b.Spec.MinAvailable != nil && b.Spec.MinAvailable.Type == intstr.Int:
		return len(selected), b.Spec.MinAvailable.IntValue(), nil
	case b.Spec.MinAvailable != nil:
		n, err := c.scale(ctx, selected)
		if err != nil {
			return 0, 0, err
		}
		up, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MinAvailable, n, true)
		return n, up, err
	}
	return len(selected), 0, nil
}

// scale sums what the controllers of pods want.
func (c *Controller) scale(ctx context.Context, selected []*corev1.Pod) (int, error) {
	sum := 0
	seen := map[types.UID]bool{}
	for _, p := range selected {
		ref := metav1.GetControllerOfNoCopy(p)
		if ref == nil || seen[ref.UID] {
			continue
		}
		seen[ref.UID] = true
		uid, n, err := c.scaleOf(ctx, p.Namespace, ref)
		if err != nil {
			return 0, err
		}
		if uid != ref.UID && seen[uid] {
			continue // a deployment of several sets
		}
		seen[uid] = true
		sum += n
	}
	return sum, nil
}

func (c *Controller) scaleOf(ctx context.Context, namespace string, ref *metav1.OwnerReference) (types.UID, int, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return "", 0, err
	}
	if gv.Group == appsv1.GroupName {
		switch ref.Kind {
		case "ReplicaSet":
			rs, err := c.sets.Get(ctx, namespace, ref.Name)
			if err != nil || rs.UID != ref.UID {
				return ref.UID, 0, client.IgnoreNotFound(err)
			}
			if name, ok := controller.ControllerName(rs, schema.GroupKind{Group: appsv1.GroupName, Kind: "Deployment"}); ok {
				d, err := c.deployments.Get(ctx, namespace, name)
				if err == nil && metav1.IsControlledBy(rs, d) {
					return d.UID, replicas(d.Spec.Replicas), nil
				}
				return rs.UID, 0, client.IgnoreNotFound(err)
			}
			return rs.UID, replicas(rs.Spec.Replicas), nil
		case "StatefulSet":
			s, err := c.stateful.Get(ctx, namespace, ref.Name)
			if err != nil || s.UID != ref.UID {
				return ref.UID, 0, client.IgnoreNotFound(err)
			}
			return s.UID, replicas(s.Spec.Replicas), nil
		}
	}
	owner := resources.NewMetadata(gv.WithKind(ref.Kind))
	owner.Namespace, owner.Name = namespace, ref.Name
	scale := &autoscalingv1.Scale{}
	if err := c.client.SubResource("scale").Get(ctx, owner, scale); err != nil {
		if apierrors.IsNotFound(err) {
			return "", 0, fmt.Errorf("%s does not implement the scale subresource", gv.WithKind(ref.Kind).GroupKind())
		}
		return "", 0, err
	}
	return ref.UID, int(scale.Spec.Replicas), nil
}

func replicas(n *int32) int {
	if n == nil {
		return 1
	}
	return int(*n)
}

// disrupted keeps those of the evicted pods that have not begun to go yet, and
// says when to look at them again.
func (c *Controller) disrupted(b *policyv1.PodDisruptionBudget, selected []*corev1.Pod, now time.Time) (map[string]metav1.Time, time.Duration) {
	out := map[string]metav1.Time{}
	var next time.Duration
	for _, p := range selected {
		at, ok := b.Status.DisruptedPods[p.Name]
		if p.DeletionTimestamp != nil || !ok {
			continue
		}
		left := at.Add(deletionTimeout).Sub(now)
		if left <= 0 {
			c.runner.Recorder().Eventf(p, corev1.EventTypeWarning, "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", b.Namespace, b.Name)
			continue
		}
		if next == 0 || left < next {
			next = left
		}
		out[p.Name] = at
	}
	if len(out) == 0 {
		return nil, next
	}
	return out, next
}

// reconcilePod takes back the mark of a pod that was to be disrupted but is
// not being deleted.
func (c *Controller) reconcilePod(ctx context.Context, namespace, name string) (controller.Result, error) {
	p, err := c.pods.Get(ctx, namespace, name)
	if err != nil {
		return controller.Result{}, client.IgnoreNotFound(err)
	}
	cond := pods.Condition(p, corev1.DisruptionTarget)
	if !pods.IsActive(p) || cond == nil || cond.Status != corev1.ConditionTrue {
		return controller.Result{}, nil
	}
	now := c.runner.Clock().Now()
	if left := cond.LastTransitionTime.Add(stalePodTimeout).Sub(now); left > 0 {
		return controller.Result{RequeueAfter: left}, nil
	}
	out := p.DeepCopy()
	pods.SetCondition(&out.Status, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(now)})
	return controller.Result{}, client.IgnoreNotFound(c.client.Status().Patch(ctx, out, client.StrategicMergeFrom(p)))
}
