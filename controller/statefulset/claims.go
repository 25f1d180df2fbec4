package statefulset

import (
	"context"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// createClaims makes those claims of an ordinal that do not exist.
func (s *syncer) createClaims(ctx context.Context, p *corev1.Pod) error {
	var errs []error
	for _, want := range claimsOf(s.set, ordinalOf(p)) {
		have, err := s.c.claims.Get(ctx, want.Namespace, want.Name)
		switch {
		case err == nil && have.DeletionTimestamp != nil:
			errs = append(errs, fmt.Errorf("pvc %s is being deleted", want.Name))
			continue
		case err == nil:
			continue
		case !apierrors.IsNotFound(err):
			errs = append(errs, err)
			continue
		}
		s.retain(want, nil)
		err = s.c.client.Create(ctx, want)
		if apierrors.IsAlreadyExists(err) {
			continue
		}
		if err != nil {
			s.c.runner.Recorder().Eventf(s.set, corev1.EventTypeWarning, "FailedCreate", "create Claim %s Pod %s in StatefulSet %s failed error: %s", want.Name, p.Name, s.set.Name, err)
			errs = append(errs, fmt.Errorf("failed to create PVC %s: %w", want.Name, err))
			continue
		}
		s.c.runner.Recorder().Eventf(s.set, corev1.EventTypeNormal, "SuccessfulCreate", "create Claim %s Pod %s in StatefulSet %s success", want.Name, p.Name, s.set.Name)
	}
	return errors.Join(errs...)
}

func (s *syncer) policy() (deleted, scaled bool) {
	p := s.set.Spec.PersistentVolumeClaimRetentionPolicy
	if p == nil {
		return false, false
	}
	return p.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType, p.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
}

// retain gives a claim the owners the retention policy wants: the set, to go
// with it, or a condemned pod, to go with that. It says whether they changed.
func (s *syncer) retain(pvc *corev1.PersistentVolumeClaim, condemned *corev1.Pod) bool {
	whenDeleted, whenScaled := s.policy()
	podOwns := condemned != nil && whenScaled
	setOwns := whenDeleted && !podOwns
	refs := slices.DeleteFunc(slices.Clone(pvc.OwnerReferences), func(r metav1.OwnerReference) bool {
		ofSet := r.Kind == kind.Kind && r.Name == s.set.Name
		parent, _, isPod := parentOf(r.Name)
		ofPod := r.Kind == "Pod" && isPod && parent == s.set.Name
		keepSet := setOwns && ofSet && r.UID == s.set.UID
		keepPod := podOwns && ofPod && r.UID == condemned.UID
		return (ofSet || ofPod) && !keepSet && !keepPod
	})
	has := func(uid any) bool {
		return slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return r.UID == uid })
	}
	if setOwns && !has(s.set.UID) {
		refs = append(refs, *metav1.NewControllerRef(s.set, kind))
	}
	if podOwns && !has(condemned.UID) {
		refs = append(refs, metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: condemned.Name, UID: condemned.UID})
	}
	if slices.EqualFunc(refs, pvc.OwnerReferences, func(a, b metav1.OwnerReference) bool { return a.UID == b.UID && a.Kind == b.Kind }) {
		return false
	}
	pvc.OwnerReferences = refs
	return true
}

// retainAll brings the owners of a pod's existing claims in line. The policy
// changes seldom, so mostly nothing is written.
func (s *syncer) retainAll(ctx context.Context, p *corev1.Pod, condemned bool) error {
	if s.set.Spec.PersistentVolumeClaimRetentionPolicy == nil {
		return nil
	}
	for _, want := range claimsOf(s.set, ordinalOf(p)) {
		have, err := s.c.claims.Get(ctx, want.Namespace, want.Name)
		if apierrors.IsNotFound(err) || err == nil && have.DeletionTimestamp != nil {
			continue
		}
		if err != nil {
			return err
		}
		out := have.DeepCopy()
		var owner *corev1.Pod
		if condemned {
			owner = p
		}
		if !s.retain(out, owner) {
			continue
		}
		if err := s.c.client.Update(ctx, out); err != nil {
			return client.IgnoreNotFound(err)
		}
	}
	return nil
}
