package plugins

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// VolumeRestrictions keeps a pod waiting while another has its claim whose access mode is ReadWriteOncePod.
type VolumeRestrictions struct{}

// Name implements scheduler.Plugin.
func (VolumeRestrictions) Name() string { return "VolumeRestrictions" }

// Prepare implements scheduler.ClusterPlugin.
func (VolumeRestrictions) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, _ *scheduler.Rejection) {
	taken := false
	eachClaim(pod.Object, func(name string, ephemeral bool) bool {
		claim := view.Claim(pod.Object.Namespace, name)
		taken = !ephemeral && claim != nil && slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) &&
			view.ClaimUsers(claim.Namespace, name) > 0
		return !taken
	})
	if taken {
		r := scheduler.RejectFull("node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode")
		j.Filter = func(*scheduler.Node) *scheduler.Rejection { return r }
	}
	return j, nil
}

// Hint implements scheduler.Hinter.
func (VolumeRestrictions) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) (helps bool) {
	if c.FreedPod == nil || c.FreedPod.Object.Namespace != pod.Object.Namespace {
		return false
	}
	eachClaim(c.FreedPod.Object, func(freed string, _ bool) bool {
		eachClaim(pod.Object, func(name string, _ bool) bool {
			helps = helps || name == freed
			return !helps
		})
		return !helps
	})
	return helps
}
