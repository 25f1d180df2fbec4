package persistentvolume

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	volumehelper "k8s.io/component-helpers/storage/volume"
)

// syncOpen looks for a volume for a claim that has none yet.
func (c *Controller) syncOpen(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName != "" {
		return c.syncNamed(ctx, claim)
	}
	class, err := c.class(ctx, claim)
	if err != nil {
		return err
	}
	waits := class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	pv, err := c.findVolume(ctx, claim, waits)
	if err != nil {
		return err
	}
	if pv != nil {
		return c.bind(ctx, pv, claim)
	}
	if !volumehelper.PersistentVolumeClaimHasClass(claim) {
		first, err := c.defaultClass(ctx)
		if err != nil {
			return err
		}
		if first != nil {
			updated := claim.DeepCopy()
			updated.Spec.StorageClassName = &first.Name
			return c.client.Update(ctx, updated)
		}
	}
	switch {
	case waits && !volumehelper.IsDelayBindingProvisioning(claim):
		if err := c.sayWaiting(ctx, claim); err != nil {
			return err
		}
	case volumehelper.GetPersistentVolumeClaimClass(claim) != "":
		if claim, err = c.askProvisioner(ctx, claim, class); err != nil {
			return err
		}
	default:
		c.event(claim, corev1.EventTypeNormal, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
	}
	_, err = c.setClaimPhase(ctx, claim, corev1.ClaimPending, nil)
	return err
}

// class returns the claim's class, nil if there is none.
func (c *Controller) class(ctx context.Context, claim *corev1.PersistentVolumeClaim) (*storagev1.StorageClass, error) {
	name := volumehelper.GetPersistentVolumeClaimClass(claim)
	if name == "" {
		return nil, nil
	}
	class, err := c.classes.Get(ctx, "", name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return class, err
}

// findVolume prefers volumes with the fewest access modes beside those asked for, then the smallest. Of a class that waits only volumes
// that are meant for the claim are taken.
func (c *Controller) findVolume(ctx context.Context, claim *corev1.PersistentVolumeClaim, waits bool) (*corev1.PersistentVolume, error) {
	all, err := c.volumes.By(ctx, volumeClass, volumehelper.GetPersistentVolumeClaimClass(claim))
	if err != nil {
		return nil, err
	}
	byModes := map[string][]*corev1.PersistentVolume{}
	for _, pv := range all {
		if volumehelper.CheckAccessModes(claim, pv) {
			modes := modesKey(pv)
			byModes[modes] = append(byModes[modes], pv)
		}
	}
	groups := make([][]*corev1.PersistentVolume, 0, len(byModes))
	for _, g := range byModes {
		slices.SortFunc(g, func(a, b *corev1.PersistentVolume) int { return cmp.Compare(a.Name, b.Name) })
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b []*corev1.PersistentVolume) int {
		return cmp.Or(cmp.Compare(len(a[0].Spec.AccessModes), len(b[0].Spec.AccessModes)), cmp.Compare(modesKey(a[0]), modesKey(b[0])))
	})
	for _, g := range groups {
		pv, err := volumehelper.FindMatchingVolume(claim, g, nil, nil, waits, true)
		if pv != nil || err != nil {
			return pv, err
		}
	}
	return nil, nil
}

func modesKey(pv *corev1.PersistentVolume) string {
	modes := make([]string, len(pv.Spec.AccessModes))
	for i, m := range pv.Spec.AccessModes {
		modes[i] = string(m)
	}
	slices.Sort(modes)
	return strings.Join(modes, ",")
}

// sayWaiting tells what a claim waits for whose class waits for the first consumer.
func (c *Controller) sayWaiting(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	pods, err := c.pods.Namespace(ctx, claim.Namespace)
	if err != nil {
		return err
	}
	var names []string
	for _, p := range pods {
		if p.Spec.NodeName == "" && uses(p, claim) {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	switch len(names) {
	case 0:
		c.event(claim, corev1.EventTypeNormal, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
	case 1:
		c.event(claim, corev1.EventTypeNormal, "WaitForPodScheduled", fmt.Sprintf("waiting for pod %s to be scheduled", names[0]))
	default:
		c.event(claim, corev1.EventTypeNormal, "WaitForPodScheduled", fmt.Sprintf("waiting for pods %s to be scheduled", strings.Join(names, ",")))
	}
	return nil
}

func uses(p *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim.Name ||
			v.Ephemeral != nil && ephemeral.VolumeClaimName(p, &v) == claim.Name && ephemeral.VolumeIsForPod(p, claim) == nil
	})
}

// askProvisioner marks a claim for the provisioner of its class, and returns it.
func (c *Controller) askProvisioner(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) (*corev1.PersistentVolumeClaim, error) {
	switch {
	case class == nil:
		c.event(claim, corev1.EventTypeWarning, "ProvisioningFailed", fmt.Sprintf("storageclass.storage.k8s.io %q not found", volumehelper.GetPersistentVolumeClaimClass(claim)))
		return claim, nil
	case strings.HasPrefix(class.Provisioner, "kubernetes.io/"):
		c.event(claim, corev1.EventTypeWarning, "ProvisioningFailed", "no volume plugin matched name: "+class.Provisioner)
		return claim, nil
	}
	if claim.Annotations[volumehelper.AnnStorageProvisioner] != class.Provisioner {
		updated := claim.DeepCopy()
		metav1.SetMetaDataAnnotation(&updated.ObjectMeta, volumehelper.AnnBetaStorageProvisioner, class.Provisioner)
		metav1.SetMetaDataAnnotation(&updated.ObjectMeta, volumehelper.AnnStorageProvisioner, class.Provisioner)
		if err := c.client.Update(ctx, updated); err != nil {
			return nil, err
		}
		claim = updated
	}
	c.event(claim, corev1.EventTypeNormal, "ExternalProvisioning", fmt.Sprintf("Waiting for a volume to be created either by the external provisioner '%s' "+
		"or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.", class.Provisioner))
	return claim, nil
}

// syncNamed binds a claim to the volume that it names.
func (c *Controller) syncNamed(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	pv, err := c.volumes.Get(ctx, "", claim.Spec.VolumeName)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return err
	case pv.Spec.ClaimRef == nil:
		why := unfit(pv, claim)
		if why == "" {
			return c.bind(ctx, pv, claim)
		}
		c.event(claim, corev1.EventTypeWarning, "VolumeMismatch", fmt.Sprintf("Cannot bind to requested volume %q: %s", pv.Name, why))
	case volumehelper.IsVolumeBoundToClaim(pv, claim):
		return c.bind(ctx, pv, claim)
	default:
		c.event(claim, corev1.EventTypeWarning, "FailedBinding", fmt.Sprintf("volume %q already bound to a different claim.", pv.Name))
		if metav1.HasAnnotation(claim.ObjectMeta, volumehelper.AnnBoundByController) {
			return fmt.Errorf("invalid binding of claim %s/%s to volume %q: volume already claimed by %s/%s",
				claim.Namespace, claim.Name, pv.Name, pv.Spec.ClaimRef.Namespace, pv.Spec.ClaimRef.Name)
		}
	}
	_, err = c.setClaimPhase(ctx, claim, corev1.ClaimPending, nil)
	return err
}

// unfit says why a claim can't have the volume that it names, "" if it can.
func unfit(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) string {
	want, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], pv.Spec.Capacity[corev1.ResourceStorage]
	switch {
	case pv.DeletionTimestamp != nil:
		return fmt.Sprintf("the volume is marked for deletion %q", pv.Name)
	case has.Value() < want.Value():
		return "requested PV is too small"
	case volumehelper.GetPersistentVolumeClass(pv) != volumehelper.GetPersistentVolumeClaimClass(claim):
		return "storageClassName does not match"
	case value(pv.Spec.VolumeAttributesClassName) != value(claim.Spec.VolumeAttributesClassName):
		return "volumeAttributesClassName does not match"
	case volumehelper.CheckVolumeModeMismatches(&claim.Spec, &pv.Spec):
		return "incompatible volumeMode"
	case !volumehelper.CheckAccessModes(claim, pv):
		return "incompatible accessMode"
	}
	return ""
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// syncBound looks after a claim that was bound once.
func (c *Controller) syncBound(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName == "" {
		return c.lose(ctx, claim, "ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
	}
	pv, err := c.volumes.Get(ctx, "", claim.Spec.VolumeName)
	switch {
	case apierrors.IsNotFound(err):
		return c.lose(ctx, claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case err != nil:
		return err
	case pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID == claim.UID:
		return c.bind(ctx, pv, claim)
	}
	return c.lose(ctx, claim, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

func (c *Controller) lose(ctx context.Context, claim *corev1.PersistentVolumeClaim, reason, message string) error {
	if claim.Status.Phase == corev1.ClaimLost {
		return nil
	}
	if _, err := c.setClaimPhase(ctx, claim, corev1.ClaimLost, nil); err != nil {
		return err
	}
	c.event(claim, corev1.EventTypeWarning, reason, message)
	return nil
}
