package persistentvolume

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	volumehelper "k8s.io/component-helpers/storage/volume"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller"
)

// syncVolume keeps a volume's phase, and releases it when its claim is gone.
func (c *Controller) syncVolume(ctx context.Context, pv *corev1.PersistentVolume) error {
	ref := pv.Spec.ClaimRef
	if ref == nil || ref.UID == "" {
		_, err := c.setVolumePhase(ctx, pv, corev1.VolumeAvailable)
		return err
	}
	claim, err := c.claimOf(ctx, pv)
	if err != nil {
		return err
	}
	switch {
	case claim == nil:
		return c.release(ctx, pv)
	case claim.Spec.VolumeName == "":
		if volumehelper.CheckVolumeModeMismatches(&claim.Spec, &pv.Spec) {
			c.event(pv, corev1.EventTypeWarning, "VolumeMismatch", fmt.Sprintf("Cannot bind PersistentVolume to requested PersistentVolumeClaim %q due to incompatible volumeMode.", claim.Name))
			c.event(claim, corev1.EventTypeWarning, "VolumeMismatch", fmt.Sprintf("Cannot bind PersistentVolume %q to requested PersistentVolumeClaim due to incompatible volumeMode.", pv.Name))
			return nil
		}
		c.runner.Enqueue(controller.RequestFor(claim))
		return nil
	case claim.Spec.VolumeName == pv.Name:
		_, err := c.setVolumePhase(ctx, pv, corev1.VolumeBound)
		return err
	case metav1.HasAnnotation(pv.ObjectMeta, volumehelper.AnnDynamicallyProvisioned) && pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		return c.release(ctx, pv) // made for a claim that found another meanwhile
	}
	return c.unbind(ctx, pv)
}

// claimOf returns the claim that the volume is bound to, nil if it is gone. Before that is believed, the server is asked.
func (c *Controller) claimOf(ctx context.Context, pv *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	ref := pv.Spec.ClaimRef
	claim, err := c.claims.Get(ctx, ref.Namespace, ref.Name)
	if err == nil && claim.UID == ref.UID {
		return claim, nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	fresh := &corev1.PersistentVolumeClaim{}
	err = c.client.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, fresh)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	case fresh.UID != ref.UID:
		return nil, nil // another of the same name
	}
	return fresh, nil
}

func (c *Controller) release(ctx context.Context, pv *corev1.PersistentVolume) error {
	if pv.Status.Phase != corev1.VolumeReleased && pv.Status.Phase != corev1.VolumeFailed {
		updated, err := c.setVolumePhase(ctx, pv, corev1.VolumeReleased)
		if err != nil {
			return err
		}
		pv = updated
	}
	switch pv.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimRetain:
		return nil
	case corev1.PersistentVolumeReclaimDelete:
		if madeElsewhere(pv) {
			return nil
		}
		return c.fail(ctx, pv, "VolumeFailedDelete", fmt.Sprintf("error getting deleter volume plugin for volume %q: no volume plugin matched", pv.Name))
	case corev1.PersistentVolumeReclaimRecycle:
		return c.fail(ctx, pv, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
	}
	return c.fail(ctx, pv, "VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy")
}

// madeElsewhere reports whether a driver outside of the cluster deletes the volume.
func madeElsewhere(pv *corev1.PersistentVolume) bool {
	by := pv.Annotations[volumehelper.AnnDynamicallyProvisioned]
	return by != "" && !strings.HasPrefix(by, "kubernetes.io/") || metav1.HasAnnotation(pv.ObjectMeta, volumehelper.AnnMigratedTo) || pv.Spec.CSI != nil
}

func (c *Controller) fail(ctx context.Context, pv *corev1.PersistentVolume, reason, message string) error {
	if pv.Status.Phase == corev1.VolumeFailed {
		return nil
	}
	updated, err := c.setVolumePhase(ctx, pv, corev1.VolumeFailed)
	if err != nil {
		return err
	}
	c.event(updated, corev1.EventTypeWarning, reason, message)
	return nil
}

// unbind takes back what bind did to a volume. One that a user meant for the claim stays meant for it.
func (c *Controller) unbind(ctx context.Context, pv *corev1.PersistentVolume) error {
	updated := pv.DeepCopy()
	if metav1.HasAnnotation(pv.ObjectMeta, volumehelper.AnnBoundByController) {
		updated.Spec.ClaimRef = nil
		delete(updated.Annotations, volumehelper.AnnBoundByController)
	} else {
		updated.Spec.ClaimRef.UID = ""
	}
	if err := c.client.Update(ctx, updated); err != nil {
		return err
	}
	_, err := c.setVolumePhase(ctx, updated, corev1.VolumeAvailable)
	return err
}

// bind settles a volume and a claim for each other, in four steps of which each may have been taken before.
func (c *Controller) bind(ctx context.Context, pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	bound, dirty, err := volumehelper.GetBindVolumeToClaim(pv, claim)
	if err != nil {
		return err
	}
	if dirty {
		if err := c.client.Update(ctx, bound); err != nil {
			return err
		}
	}
	if bound, err = c.setVolumePhase(ctx, bound, corev1.VolumeBound); err != nil {
		return err
	}
	updated := claim.DeepCopy()
	if claim.Spec.VolumeName != pv.Name {
		updated.Spec.VolumeName = pv.Name
		metav1.SetMetaDataAnnotation(&updated.ObjectMeta, volumehelper.AnnBoundByController, "yes")
	}
	if !isBound(updated) {
		metav1.SetMetaDataAnnotation(&updated.ObjectMeta, volumehelper.AnnBindCompleted, "yes")
	}
	if updated.Spec.VolumeName != claim.Spec.VolumeName || len(updated.Annotations) != len(claim.Annotations) {
		if err := c.client.Update(ctx, updated); err != nil {
			return err
		}
	}
	_, err = c.setClaimPhase(ctx, updated, corev1.ClaimBound, bound)
	return err
}

func (c *Controller) setVolumePhase(ctx context.Context, pv *corev1.PersistentVolume, phase corev1.PersistentVolumePhase) (*corev1.PersistentVolume, error) {
	if pv.Status.Phase == phase {
		return pv, nil
	}
	updated := pv.DeepCopy()
	updated.Status.Phase, updated.Status.Message = phase, ""
	return updated, c.client.Status().Update(ctx, updated)
}

// setClaimPhase also sets what the claim really has: that of the volume, or nothing without one. The capacity is left alone once it is set, for
// a file system may be smaller than its volume.
func (c *Controller) setClaimPhase(ctx context.Context, claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase, pv *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	updated := claim.DeepCopy()
	s := &updated.Status
	if pv == nil {
		s.AccessModes, s.Capacity, s.CurrentVolumeAttributesClassName = nil, nil, nil
	} else {
		s.AccessModes = slices.Clone(pv.Spec.AccessModes)
		if s.Phase != phase {
			if _, ok := pv.Spec.Capacity[corev1.ResourceStorage]; !ok {
				return nil, fmt.Errorf("PersistentVolume %q is without a storage capacity", pv.Name)
			}
			s.Capacity = maps.Clone(pv.Spec.Capacity)
		}
		if s.Phase == corev1.ClaimPending {
			s.CurrentVolumeAttributesClassName = pv.Spec.VolumeAttributesClassName
		}
	}
	same := s.Phase == phase && slices.Equal(s.AccessModes, claim.Status.AccessModes) && (s.Capacity == nil) == (claim.Status.Capacity == nil) &&
		value(s.CurrentVolumeAttributesClassName) == value(claim.Status.CurrentVolumeAttributesClassName)
	if same {
		return claim, nil
	}
	s.Phase = phase
	return updated, c.client.Status().Update(ctx, updated)
}

func (c *Controller) event(about client.Object, kind, reason, message string) {
	c.runner.Recorder().Event(about, kind, reason, message)
}
