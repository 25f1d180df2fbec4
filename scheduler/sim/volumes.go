package sim

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/ephemeral"
	volumehelper "k8s.io/component-helpers/storage/volume"
)

// What binds claims to volumes, makes volumes and deletes them is simulated here: the controllers of kube-controller-manager and a CSI provisioner, in little. Claims of classes
// that bind immediately get the smallest volume that will do, or one that is made for them; the others get what the scheduler's plan for their first pod says.

// setVolume adds or replaces a volume.
func (s *Simulation) setVolume(pv *corev1.PersistentVolume) {
	s.stamp(pv)
	s.objects.volumes[pv.Name] = pv
	s.changed(s.engine.SetVolume(pv))
}

// setClaim adds or replaces a claim.
func (s *Simulation) setClaim(claim *corev1.PersistentVolumeClaim) {
	s.stamp(claim)
	s.objects.claims[keyOf(claim)] = claim
	s.changed(s.engine.SetClaim(claim))
}

// claimCame has a claim wait for a volume, or for a pod.
func (s *Simulation) claimCame(claim *corev1.PersistentVolumeClaim) {
	if old := s.objects.claims[keyOf(claim)]; old != nil && claim.UID == "" {
		claim.UID = old.UID
	}
	s.setClaim(claim)
	s.objects.unbound = append(s.objects.unbound, keyOf(claim))
	s.settleClaims()
}

// settleClaims looks for volumes for the claims that wait for no pod.
func (s *Simulation) settleClaims() {
	s.objects.unbound = slices.DeleteFunc(s.objects.unbound, func(key string) bool {
		claim := s.objects.claims[key]
		return claim == nil || isBound(claim) || s.settle(claim)
	})
}

func isBound(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeName != "" && metav1.HasAnnotation(claim.ObjectMeta, volumehelper.AnnBindCompleted)
}

// settle reports whether a claim need not be looked at again: its volume was found, is being made, or is found by the scheduler.
func (s *Simulation) settle(claim *corev1.PersistentVolumeClaim) bool {
	class := s.objects.classes[volumehelper.GetPersistentVolumeClaimClass(claim)]
	delayed := class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	if delayed && claim.Spec.VolumeName == "" {
		return true
	}
	if pv := s.volumeFor(claim); pv != nil {
		s.bindClaim(pv, claim)
		return true
	}
	if claim.Spec.VolumeName != "" || class == nil || class.Provisioner == "" || class.Provisioner == volumehelper.NotSupportedProvisioner {
		return false
	}
	s.makeVolume(claim)
	return true
}

// volumeFor is the smallest volume that a claim can have, wherever it is, or the one that it names.
func (s *Simulation) volumeFor(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	if name := claim.Spec.VolumeName; name != "" {
		pv := s.objects.volumes[name]
		if pv == nil || pv.Spec.ClaimRef != nil && !volumehelper.IsVolumeBoundToClaim(pv, claim) {
			return nil
		}
		return pv
	}
	var all []*corev1.PersistentVolume
	for _, pv := range s.objects.volumes {
		if pv.Spec.ClaimRef == nil || volumehelper.IsVolumeBoundToClaim(pv, claim) {
			all = append(all, pv)
		}
	}
	slices.SortFunc(all, func(a, b *corev1.PersistentVolume) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	pv, err := volumehelper.FindMatchingVolume(claim, all, nil, nil, false, false)
	if err != nil {
		return nil // its selector is invalid
	}
	return pv
}

// bindClaim binds a volume and a claim to each other.
func (s *Simulation) bindClaim(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) {
	pv, claim = pv.DeepCopy(), claim.DeepCopy()
	pv.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}
	pv.Status.Phase = corev1.VolumeBound
	claim.Spec.VolumeName, claim.Status.Phase = pv.Name, corev1.ClaimBound
	claim.Status.AccessModes, claim.Status.Capacity = pv.Spec.AccessModes, pv.Spec.Capacity
	metav1.SetMetaDataAnnotation(&claim.ObjectMeta, volumehelper.AnnBindCompleted, "yes")
	s.setVolume(pv)
	s.setClaim(claim)
	s.log.bound(claim)
}

// makeVolume has a volume made for a claim, which takes its time.
func (s *Simulation) makeVolume(claim *corev1.PersistentVolumeClaim) {
	if !s.objects.making[claim.UID] {
		s.objects.making[claim.UID] = true
		s.planClaim(s.opts.ProvisionDelay, keyOf(claim), claim.UID)
	}
}

// provisioned gives a claim the volume that was made for it.
func (s *Simulation) provisioned(key string, uid types.UID) {
	delete(s.objects.making, uid)
	claim := s.objects.claims[key]
	if claim == nil || claim.UID != uid || isBound(claim) {
		return
	}
	pv := &corev1.PersistentVolume{}
	pv.Name = "pvc-" + string(uid)
	pv.Spec = corev1.PersistentVolumeSpec{
		Capacity: claim.Spec.Resources.Requests.DeepCopy(), AccessModes: claim.Spec.AccessModes, VolumeMode: claim.Spec.VolumeMode,
		StorageClassName: volumehelper.GetPersistentVolumeClaimClass(claim), PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
	}
	if class := s.objects.classes[pv.Spec.StorageClassName]; class != nil {
		if class.ReclaimPolicy != nil {
			pv.Spec.PersistentVolumeReclaimPolicy = *class.ReclaimPolicy
		}
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: class.Provisioner, VolumeHandle: pv.Name}
		if terms := s.reach(class, claim.Annotations[volumehelper.AnnSelectedNode]); len(terms) > 0 {
			pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: terms}}}}
		}
	}
	s.bindClaim(pv, claim)
}

// reach is where a new volume can be reached from: from nodes that are like the selected one in what the driver's CSINode says its topology is, by default
// in its zone; without a selected node, where the class allows volumes.
func (s *Simulation) reach(class *storagev1.StorageClass, node string) (terms []corev1.NodeSelectorRequirement) {
	n := s.nodes[node]
	if n == nil {
		if len(class.AllowedTopologies) > 0 {
			for _, e := range class.AllowedTopologies[0].MatchLabelExpressions {
				terms = append(terms, corev1.NodeSelectorRequirement{Key: e.Key, Operator: corev1.NodeSelectorOpIn, Values: e.Values})
			}
		}
		return terms
	}
	keys := []string{corev1.LabelTopologyZone}
	if c := s.objects.csiNodes[node]; c != nil {
		for i := range c.Spec.Drivers {
			if c.Spec.Drivers[i].Name == class.Provisioner {
				keys = c.Spec.Drivers[i].TopologyKeys
			}
		}
	}
	for _, k := range keys {
		if v, ok := n.obj.Labels[k]; ok {
			terms = append(terms, corev1.NodeSelectorRequirement{Key: k, Operator: corev1.NodeSelectorOpIn, Values: []string{v}})
		}
	}
	return terms
}

// bindVolumes carries out the plan for a placed pod's claims, and returns how long the pod waits for that.
func (s *Simulation) bindVolumes(p *pod) (wait time.Duration) {
	if !p.shape.claims {
		return 0
	}
	plan := s.engine.VolumePlan(p.spod.Object.UID)
	if plan.Empty() {
		return 0
	}
	for _, m := range plan.Bind {
		if claim := s.objects.claims[keyOf(m.Claim)]; claim != nil && !isBound(claim) {
			s.bindClaim(m.Volume, claim)
		}
	}
	for _, planned := range plan.Provision {
		wait = s.opts.ProvisionDelay
		claim := s.objects.claims[keyOf(planned)]
		if claim == nil || isBound(claim) {
			continue
		}
		if claim.Annotations[volumehelper.AnnSelectedNode] != plan.Node {
			claim = claim.DeepCopy()
			metav1.SetMetaDataAnnotation(&claim.ObjectMeta, volumehelper.AnnSelectedNode, plan.Node)
			s.setClaim(claim)
		}
		s.makeVolume(claim)
	}
	s.engine.VolumesBound(p.spod.Object.UID)
	return wait
}

// makeClaims makes the claims of a new pod's ephemeral volumes.
func (s *Simulation) makeClaims(p *pod) {
	obj := p.spod.Object
	for i := range obj.Spec.Volumes {
		v := &obj.Spec.Volumes[i]
		if v.Ephemeral == nil || v.Ephemeral.VolumeClaimTemplate == nil {
			continue
		}
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: *v.Ephemeral.VolumeClaimTemplate.ObjectMeta.DeepCopy(), Spec: *v.Ephemeral.VolumeClaimTemplate.Spec.DeepCopy()}
		claim.Namespace, claim.Name = obj.Namespace, ephemeral.VolumeClaimName(obj, v)
		claim.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(obj, corev1.SchemeGroupVersion.WithKind("Pod"))}
		s.claimCame(claim)
	}
}

// dropClaims deletes those of a pod that goes.
func (s *Simulation) dropClaims(p *pod) {
	if !p.shape.claims || p.spod == nil {
		return
	}
	p.spod.EachClaim(func(name string, inline bool) bool {
		if inline {
			s.deleteClaim(p.Namespace + "/" + name)
		}
		return true
	})
}

// deleteClaim deletes a claim, and its volume if it isn't to be kept.
func (s *Simulation) deleteClaim(key string) {
	claim := s.objects.claims[key]
	if claim == nil {
		return
	}
	delete(s.objects.claims, key)
	s.engine.DeleteClaim(claim.Namespace, claim.Name)
	pv := s.objects.volumes[claim.Spec.VolumeName]
	if pv == nil || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID {
		return
	}
	if pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
		delete(s.objects.volumes, pv.Name)
		s.engine.DeleteVolume(pv.Name)
		return
	}
	pv = pv.DeepCopy()
	pv.Status.Phase = corev1.VolumeReleased
	s.setVolume(pv)
}
