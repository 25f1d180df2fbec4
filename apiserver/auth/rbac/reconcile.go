package rbac

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/auth/rbac/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/auth/rbac/aggregation"
)

const (
	// Writes of Reconcile that run at once: enough to share a store's fsyncs.
	reconcileParallelism = 32
	reconcileAttempts    = 5
)

// Reconcile makes the objects of b exist, in the namespaces kube-system and kube-public, which it makes too. Of those that exist it adds what is missing and
// removes nothing, unless their AutoUpdateAnnotation says "false"; a binding to another role is replaced. Lastly it fills the aggregated roles. It
// returns the joined errors of all objects that failed.
func Reconcile(ctx context.Context, c client.Client, b Bootstrap) error {
	for _, name := range []string{metav1.NamespaceSystem, metav1.NamespacePublic} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := c.Create(ctx, namespace); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("rbac: namespace %s: %w", name, err)
		}
	}
	var work []func() error
	for _, o := range b.ClusterRoles {
		work = append(work, func() error { return ensure(ctx, c, o, &rbacv1.ClusterRole{}) })
	}
	for _, o := range b.ClusterRoleBindings {
		work = append(work, func() error { return ensure(ctx, c, o, &rbacv1.ClusterRoleBinding{}) })
	}
	for _, o := range b.Roles {
		work = append(work, func() error { return ensure(ctx, c, o, &rbacv1.Role{}) })
	}
	for _, o := range b.RoleBindings {
		work = append(work, func() error { return ensure(ctx, c, o, &rbacv1.RoleBinding{}) })
	}
	errs := make([]error, len(work))
	var group errgroup.Group
	group.SetLimit(reconcileParallelism)
	for i, f := range work {
		group.Go(func() error {
			errs[i] = f()
			return nil
		})
	}
	_ = group.Wait() // the functions put their errors in errs
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return aggregation.All(ctx, c)
}

// ensure creates want, or adds what is missing to what exists; existing is an empty object to read into.
func ensure(ctx context.Context, c client.Client, want, existing client.Object) error {
	var err error
	for range reconcileAttempts {
		if err = ensureOnce(ctx, c, want, existing); err == nil {
			return nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
			break
		}
	}
	return fmt.Errorf("rbac: %T %s: %w", want, client.ObjectKeyFromObject(want), err)
}

func ensureOnce(ctx context.Context, c client.Client, want, existing client.Object) error {
	err := c.Get(ctx, client.ObjectKeyFromObject(want), existing)
	if apierrors.IsNotFound(err) {
		return c.Create(ctx, want.DeepCopyObject().(client.Object))
	}
	if err != nil {
		return err
	}
	if existing.GetAnnotations()[AutoUpdateAnnotation] == "false" {
		return nil
	}
	// What a client read may be shared with its cache.
	merged := existing.DeepCopyObject().(client.Object)
	replace, err := merge(merged, want)
	if err != nil {
		return err
	}
	if replace {
		uid := existing.GetUID()
		if err := c.Delete(ctx, existing, client.Preconditions{UID: &uid}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		return c.Create(ctx, want.DeepCopyObject().(client.Object))
	}
	if apiequality.Semantic.DeepEqual(merged, existing) {
		return nil
	}
	return c.Update(ctx, merged)
}

// merge adds to have what want has more; replace tells that have cannot be changed into want.
func merge(have, want client.Object) (replace bool, err error) {
	have.SetLabels(mergeMaps(want.GetLabels(), have.GetLabels()))
	have.SetAnnotations(mergeMaps(want.GetAnnotations(), have.GetAnnotations()))
	switch h := have.(type) {
	case *rbacv1.ClusterRole:
		w := want.(*rbacv1.ClusterRole)
		if w.AggregationRule != nil {
			if h.AggregationRule == nil {
				h.AggregationRule = &rbacv1.AggregationRule{}
			}
			h.AggregationRule.ClusterRoleSelectors = mergeSelectors(h.AggregationRule.ClusterRoleSelectors, w.AggregationRule.ClusterRoleSelectors)
			return false, nil
		}
		h.Rules = mergeRules(h.Rules, w.Rules)
	case *rbacv1.Role:
		h.Rules = mergeRules(h.Rules, want.(*rbacv1.Role).Rules)
	case *rbacv1.ClusterRoleBinding:
		w := want.(*rbacv1.ClusterRoleBinding)
		if h.RoleRef != w.RoleRef {
			return true, nil
		}
		h.Subjects = mergeSubjects(h.Subjects, w.Subjects)
	case *rbacv1.RoleBinding:
		w := want.(*rbacv1.RoleBinding)
		if h.RoleRef != w.RoleRef {
			return true, nil
		}
		h.Subjects = mergeSubjects(h.Subjects, w.Subjects)
	default:
		return false, fmt.Errorf("unexpected type %T", have)
	}
	return false, nil
}

func mergeMaps(defaults, chosen map[string]string) map[string]string {
	if len(defaults) == 0 {
		return chosen
	}
	out := map[string]string{}
	for k, v := range defaults {
		out[k] = v
	}
	for k, v := range chosen {
		out[k] = v
	}
	return out
}

func mergeRules(have, want []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	_, missing := validation.Covers(have, want)
	return append(have, missing...)
}

func mergeSelectors(have, want []metav1.LabelSelector) []metav1.LabelSelector {
	for _, w := range want {
		found := false
		for _, h := range have {
			found = found || apiequality.Semantic.DeepEqual(h, w)
		}
		if !found {
			have = append(have, w)
		}
	}
	return have
}

func mergeSubjects(have, want []rbacv1.Subject) []rbacv1.Subject {
	for _, w := range want {
		found := false
		for _, h := range have {
			found = found || h == w
		}
		if !found {
			have = append(have, w)
		}
	}
	return have
}
