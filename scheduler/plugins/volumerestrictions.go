package plugins

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// VolumeRestrictions keeps a pod waiting while another has its claim whose access mode is ReadWriteOncePod, and off nodes where another pod has
// a disk that can't be mounted twice.
type VolumeRestrictions struct{}

// Name implements scheduler.Plugin.
func (VolumeRestrictions) Name() string { return "VolumeRestrictions" }

// Points implements scheduler.Partial.
func (VolumeRestrictions) Points() scheduler.Points {
	return scheduler.AtPreFilter | scheduler.AtFilter
}

// Prepare implements scheduler.ClusterPlugin.
func (VolumeRestrictions) Prepare(pod *scheduler.Pod, view *scheduler.View) (j scheduler.Judgement, _ *scheduler.Rejection) {
	taken, missing := false, ""
	pod.EachClaim(func(name string, inline bool) bool {
		if inline {
			return true
		}
		claim := view.Claim(pod.Object.Namespace, name)
		if claim == nil {
			missing = name
			return false
		}
		taken = taken || slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) && view.ClaimUsers(claim.Namespace, name) > 0
		return true
	})
	if missing != "" {
		return j, scheduler.Reject(claimNotFound(missing))
	}
	disks := hasDisks(pod)
	if !taken && !disks {
		return j, nil
	}
	mounted := scheduler.RejectFull("node(s) had no available disk")
	inUse := scheduler.RejectFull("node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod")
	if !disks {
		j.Domains = &scheduler.DomainJudgement{ID: "in use", Filter: func(*scheduler.Place) *scheduler.Rejection { return inUse }}
		return j, nil
	}
	j.Filter = func(n *scheduler.Node) *scheduler.Rejection {
		clash := false
		n.Pods(func(other *scheduler.Pod) bool {
			clash = sameDisk(pod, other)
			return !clash
		})
		if clash {
			return mounted
		}
		if taken {
			return inUse
		}
		return nil
	}
	return j, nil
}

func hasDisks(pod *scheduler.Pod) bool {
	return slices.ContainsFunc(pod.Object.Spec.Volumes, func(v corev1.Volume) bool {
		return v.GCEPersistentDisk != nil || v.AWSElasticBlockStore != nil || v.ISCSI != nil || v.RBD != nil
	})
}

// sameDisk reports whether both pods mount a disk that only one may, unless all mount it read-only.
func sameDisk(a, b *scheduler.Pod) bool {
	return slices.ContainsFunc(a.Object.Spec.Volumes, func(v corev1.Volume) bool {
		return slices.ContainsFunc(b.Object.Spec.Volumes, func(o corev1.Volume) bool { return diskClash(&v, &o) })
	})
}

func diskClash(v, o *corev1.Volume) bool {
	switch {
	case v.GCEPersistentDisk != nil && o.GCEPersistentDisk != nil:
		return v.GCEPersistentDisk.PDName == o.GCEPersistentDisk.PDName && !(v.GCEPersistentDisk.ReadOnly && o.GCEPersistentDisk.ReadOnly)
	case v.AWSElasticBlockStore != nil && o.AWSElasticBlockStore != nil:
		return v.AWSElasticBlockStore.VolumeID == o.AWSElasticBlockStore.VolumeID
	case v.ISCSI != nil && o.ISCSI != nil:
		return v.ISCSI.IQN == o.ISCSI.IQN && !(v.ISCSI.ReadOnly && o.ISCSI.ReadOnly)
	case v.RBD != nil && o.RBD != nil:
		return v.RBD.RBDPool == o.RBD.RBDPool && v.RBD.RBDImage == o.RBD.RBDImage && !(v.RBD.ReadOnly && o.RBD.ReadOnly) &&
			slices.ContainsFunc(v.RBD.CephMonitors, func(m string) bool { return slices.Contains(o.RBD.CephMonitors, m) })
	}
	return false
}

// Hint implements scheduler.Hinter.
func (VolumeRestrictions) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) (helps bool) {
	switch {
	case c.Node == nil && c.OldNode != nil:
		return c.OldNode.Len() > 0 // its pods don't count any more
	case c.FreedPod != nil:
		if c.FreedPod.Object.Namespace != pod.Object.Namespace {
			return false
		}
		if sameDisk(pod, c.FreedPod) {
			return true
		}
		c.FreedPod.EachClaim(func(freed string, inline bool) bool {
			if !inline {
				pod.EachClaim(func(name string, inline bool) bool {
					helps = name == freed && !inline
					return !helps
				})
			}
			return !helps
		})
		return helps
	case c.Claim != nil:
		return c.OldClaim == nil && usesClaim(pod, c.Claim, false)
	}
	return c.Node != nil && c.OldNode == nil
}
