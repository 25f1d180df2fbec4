package plugins

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/keelson/keelson/scheduler"
)

// VolumeBinding lets pods wait for their claims to be bound, and keeps them to nodes from which the bound volumes can be reached. It binds
// no claims itself: those of a storage class that waits for its first consumer are waited for, too, until somebody else binds them.
type VolumeBinding struct{}

// Name implements scheduler.Plugin.
func (VolumeBinding) Name() string { return "VolumeBinding" }

// eachClaim calls f with the name of each of the pod's claims until it returns false.
func eachClaim(pod *corev1.Pod, f func(name string, ephemeral bool) bool) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		var name string
		ephemeral := v.Ephemeral != nil
		switch {
		case v.PersistentVolumeClaim != nil:
			name = v.PersistentVolumeClaim.ClaimName
		case ephemeral:
			name = pod.Name + "-" + v.Name
		default:
			continue
		}
		if !f(name, ephemeral) {
			return
		}
	}
}

// Prepare implements scheduler.ClusterPlugin.
func (VolumeBinding) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, r *scheduler.Rejection) {
	obj := pod.Object
	var volumes []boundVolume
	immediate, delayed := false, false
	eachClaim(obj, func(name string, ephemeral bool) bool {
		claim := view.Claim(obj.Namespace, name)
		if why := unusable(obj, claim, name, ephemeral); why != "" {
			r = scheduler.Reject(why)
			return false
		}
		switch {
		case bound(claim):
			volumes = append(volumes, newBoundVolume(view.Volume(claim.Spec.VolumeName)))
		case waitsForConsumer(view, claim):
			delayed = true
		default:
			immediate = true
		}
		return true
	})
	switch {
	case r != nil:
		return j, r
	case immediate:
		return j, scheduler.Reject("pod has unbound immediate PersistentVolumeClaims")
	case delayed:
		return j, scheduler.Reject("pod has unbound PersistentVolumeClaims that wait for a first consumer, which this scheduler does not bind")
	case len(volumes) == 0:
		return j, nil
	}
	j.Filter = func(n *scheduler.Node) *scheduler.Rejection {
		var reasons []string
		for i := range volumes {
			why := volumes[i].reject(n.Object)
			if why != "" && (len(reasons) == 0 || reasons[0] != why && len(reasons) < 2) {
				reasons = append(reasons, why)
			}
		}
		if len(reasons) == 0 {
			return nil
		}
		return scheduler.Reject(reasons...)
	}
	return j, nil
}

// unusable says why the pod can't have the claim, "" if it can.
func unusable(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim, name string, ephemeral bool) string {
	switch {
	case claim == nil && ephemeral:
		return fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
	case claim == nil:
		return fmt.Sprintf("persistentvolumeclaim %q not found", name)
	case claim.Status.Phase == corev1.ClaimLost:
		return fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
	case claim.DeletionTimestamp != nil:
		return fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
	case ephemeral && !metav1.IsControlledBy(claim, pod):
		return fmt.Sprintf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", claim.Namespace, name, pod.Namespace, pod.Name)
	}
	return ""
}

func bound(claim *corev1.PersistentVolumeClaim) bool {
	_, completed := claim.Annotations["pv.kubernetes.io/bind-completed"]
	return claim.Spec.VolumeName != "" && (completed || claim.Status.Phase == corev1.ClaimBound)
}

func waitsForConsumer(view *scheduler.View, claim *corev1.PersistentVolumeClaim) bool {
	if claim.Spec.VolumeName != "" || claim.Spec.StorageClassName == nil {
		return false
	}
	class := view.StorageClass(*claim.Spec.StorageClassName)
	return class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// boundVolume is a volume with its node affinity.
type boundVolume struct {
	exists   bool
	invalid  bool
	selector *nodeaffinity.NodeSelector // nil: any node
}

func newBoundVolume(v *corev1.PersistentVolume) (b boundVolume) {
	if v == nil {
		return b
	}
	b.exists = true
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		sel, err := nodeaffinity.NewNodeSelector(a.Required)
		b.selector, b.invalid = sel, err != nil
	}
	return b
}

func (b *boundVolume) reject(n *corev1.Node) string {
	switch {
	case !b.exists:
		return "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
	case b.invalid || b.selector != nil && !b.selector.Match(n):
		return "node(s) didn't match PersistentVolume's node affinity"
	}
	return ""
}

// Hint implements scheduler.Hinter.
func (VolumeBinding) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) (helps bool) {
	switch {
	case c.Claim != nil:
		if c.Claim.Namespace == pod.Object.Namespace {
			eachClaim(pod.Object, func(name string, _ bool) bool {
				helps = helps || name == c.Claim.Name
				return !helps
			})
		}
		return helps
	case c.Node != nil:
		return c.OldNode == nil || !maps.Equal(c.Node.Object.Labels, c.OldNode.Object.Labels)
	}
	return c.Volume != nil || c.StorageClass != nil
}
