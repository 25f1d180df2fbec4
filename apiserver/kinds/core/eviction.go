package core

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// maxDisruptedPods bounds the evictions of a budget that its controller has not seen yet.
const maxDisruptedPods = 2000

var (
	budgetGVK      = policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget")
	budgetResource = schema.GroupResource{Group: policyv1.GroupName, Resource: "poddisruptionbudgets"}
)

// eviction declares pods/eviction: a delete that disruption budgets can refuse.
func eviction(opts Options) *kind.Virtual {
	return &kind.Virtual{
		GVK:         policyv1.SchemeGroupVersion.WithKind("Eviction"),
		Resource:    "pods",
		Subresource: "eviction",
		Singular:    "eviction",
		Namespaced:  true,
		Create: func(ctx context.Context, namespace, name string, obj client.Object, dryRun bool) (runtime.Object, error) {
			e, ok := obj.(*policyv1.Eviction)
			if !ok {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", obj))
			}
			if name != e.Name {
				return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
			}
			options := metav1.DeleteOptions{}
			if e.DeleteOptions != nil {
				options = *e.DeleteOptions.DeepCopy()
			}
			if dryRun || len(options.DryRun) > 0 {
				dryRun = true
				options.DryRun = []string{metav1.DryRunAll}
			}
			ev := &evicting{opts: opts, namespace: namespace, name: name, options: options, dryRun: dryRun}
			if err := ev.run(ctx); err != nil {
				return nil, err
			}
			return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: http.StatusCreated}, nil
		},
	}
}

type evicting struct {
	opts            Options
	access          kind.Access
	namespace, name string
	options         metav1.DeleteOptions
	dryRun          bool
}

func (ev *evicting) run(ctx context.Context) error {
	var err error
	if ev.access, err = accessFrom(ctx); err != nil {
		return err
	}
	obj, err := ev.access.Get(ctx, podGVK, ev.namespace, ev.name)
	if err != nil {
		return err
	}
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("unexpected object: %T", obj))
	}
	if outsideBudgets(p) {
		// The pod must still be in the state that made the budgets no matter.
		ev.precondition(p)
		return ev.remove(ctx)
	}
	budget, err := ev.budgetOf(ctx, p)
	if err != nil {
		return err
	}
	if budget != nil {
		if ready(p) || !unhealthyMayGo(budget) {
			if err := ev.takeFrom(ctx, budget); err != nil {
				return err
			}
		} else {
			// It is only let go because it is not ready.
			ev.precondition(p)
		}
	}
	return ev.remove(ctx)
}

// outsideBudgets says whether a pod's end disrupts nothing.
func outsideBudgets(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodPending || p.DeletionTimestamp != nil
}

func ready(p *corev1.Pod) bool {
	for _, condition := range p.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// unhealthyMayGo says whether a pod that is not ready may be evicted without asking the budget.
func unhealthyMayGo(b *policyv1.PodDisruptionBudget) bool {
	if policy := b.Spec.UnhealthyPodEvictionPolicy; policy != nil && *policy == policyv1.AlwaysAllow {
		return true
	}
	return b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0
}

func (ev *evicting) precondition(p *corev1.Pod) {
	if ev.options.Preconditions == nil {
		ev.options.Preconditions = &metav1.Preconditions{}
	}
	if ev.options.Preconditions.ResourceVersion == nil {
		version := p.ResourceVersion
		ev.options.Preconditions.ResourceVersion = &version
	}
}

// budgetOf returns the budget that a pod counts for, nil if there is none.
func (ev *evicting) budgetOf(ctx context.Context, p *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	if len(p.Labels) == 0 {
		return nil, nil
	}
	objs, err := ev.access.List(ctx, budgetGVK, ev.namespace)
	if meta.IsNoMatchError(err) || runtime.IsNotRegisteredError(err) {
		// The server serves no budgets.
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found *policyv1.PodDisruptionBudget
	for _, obj := range objs {
		b, ok := obj.(*policyv1.PodDisruptionBudget)
		if !ok {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(p.Labels)) {
			continue // a budget that selects nothing cannot be in the way
		}
		if found != nil {
			return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Code: http.StatusInternalServerError,
				Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
			}}
		}
		found = b
	}
	return found, nil
}

// takeFrom takes one disruption from a budget.
func (ev *evicting) takeFrom(ctx context.Context, budget *policyv1.PodDisruptionBudget) error {
	_, err := ev.access.Update(ctx, budgetGVK, ev.namespace, budget.Name, ev.dryRun, func(obj client.Object) error {
		b, ok := obj.(*policyv1.PodDisruptionBudget)
		if !ok {
			return apierrors.NewInternalError(fmt.Errorf("unexpected object: %T", obj))
		}
		if err := mayDisrupt(b); err != nil {
			return err
		}
		b.Status.DisruptionsAllowed--
		if b.Status.DisruptionsAllowed == 0 {
			meta.SetStatusCondition(&b.Status.Conditions, metav1.Condition{
				Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason,
				ObservedGeneration: b.Generation, LastTransitionTime: metav1.NewTime(ev.opts.Clock.Now()),
			})
		}
		if b.Status.DisruptedPods == nil {
			b.Status.DisruptedPods = map[string]metav1.Time{}
		}
		b.Status.DisruptedPods[ev.name] = metav1.NewTime(ev.opts.Clock.Now())
		return nil
	})
	return err
}

func mayDisrupt(b *policyv1.PodDisruptionBudget) error {
	switch {
	case b.Status.ObservedGeneration < b.Generation:
		return tooMany(10, fmt.Sprintf("The disruption budget %s is still being processed by the server.", b.Name))
	case b.Status.DisruptionsAllowed < 0:
		return apierrors.NewForbidden(budgetResource, b.Name, fmt.Errorf("pdb disruptions allowed is negative"))
	case len(b.Status.DisruptedPods) > maxDisruptedPods:
		return apierrors.NewForbidden(budgetResource, b.Name, fmt.Errorf("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case b.Status.DisruptionsAllowed == 0:
		message := fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy)
		if c := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition); c != nil && c.Status == metav1.ConditionFalse && c.Reason == policyv1.SyncFailedReason {
			message = fmt.Sprintf("The disruption budget %s does not allow evicting pods currently because it failed sync: %v", b.Name, c.Message)
		}
		return tooMany(0, message)
	}
	return nil
}

func tooMany(retryAfter int, message string) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", retryAfter)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: message})
	return err
}

// remove notes on the pod why it ends, and deletes it.
func (ev *evicting) remove(ctx context.Context) error {
	noted, err := ev.access.Update(ctx, podGVK, ev.namespace, ev.name, ev.dryRun, func(obj client.Object) error {
		p, ok := obj.(*corev1.Pod)
		if !ok {
			return apierrors.NewInternalError(fmt.Errorf("unexpected object: %T", obj))
		}
		if want := ev.options.Preconditions; want != nil {
			if want.UID != nil && *want.UID != p.UID {
				return apierrors.NewConflict(podResource, p.Name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *want.UID, p.UID))
			}
			if want.ResourceVersion != nil && *want.ResourceVersion != p.ResourceVersion {
				return apierrors.NewConflict(podResource, p.Name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *want.ResourceVersion, p.ResourceVersion))
			}
		}
		setCondition(p, corev1.PodCondition{
			ObservedGeneration: p.Generation,
			Type:               corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
		}, metav1.NewTime(ev.opts.Clock.Now()))
		return nil
	})
	if err != nil {
		return err
	}
	if want := ev.options.Preconditions; want != nil && want.ResourceVersion != nil && !ev.dryRun {
		version := noted.GetResourceVersion()
		want.ResourceVersion = &version
	}
	return ev.access.Delete(ctx, podGVK, ev.namespace, ev.name, ev.options)
}
