package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// watched is a kind of objects that is followed.
type watched struct {
	obj      client.Object
	handlers toolscache.ResourceEventHandlerFuncs
}

// storageKinds are those that say where volumes are, and who makes them. A server may do without any of them.
func (s *Scheduler) storageKinds() []watched {
	e := s.engine
	return []watched{
		{&corev1.PersistentVolumeClaim{}, following(s,
			func(o *corev1.PersistentVolumeClaim) ClusterChange { defer s.volumesMoved(); return e.SetClaim(o) },
			func(o *corev1.PersistentVolumeClaim) ClusterChange {
				e.DeleteClaim(o.Namespace, o.Name)
				s.volumesMoved()
				return ClusterChange{}
			})},
		{&corev1.PersistentVolume{}, following(s,
			func(o *corev1.PersistentVolume) ClusterChange { defer s.volumesMoved(); return e.SetVolume(o) },
			func(o *corev1.PersistentVolume) ClusterChange {
				e.DeleteVolume(o.Name)
				s.volumesMoved()
				return ClusterChange{}
			})},
		{&storagev1.StorageClass{}, following(s,
			func(o *storagev1.StorageClass) ClusterChange { return e.SetStorageClass(o) },
			func(o *storagev1.StorageClass) ClusterChange { e.DeleteStorageClass(o.Name); return ClusterChange{} })},
		{&storagev1.CSINode{}, following(s,
			func(o *storagev1.CSINode) ClusterChange { return e.SetCSINode(o) },
			func(o *storagev1.CSINode) ClusterChange { e.DeleteCSINode(o.Name); return ClusterChange{} })},
		{&storagev1.CSIDriver{}, following(s,
			func(o *storagev1.CSIDriver) ClusterChange { return e.SetCSIDriver(o) },
			func(o *storagev1.CSIDriver) ClusterChange { return e.DeleteCSIDriver(o.Name) })},
		{&storagev1.CSIStorageCapacity{}, following(s,
			func(o *storagev1.CSIStorageCapacity) ClusterChange { return e.SetStorageCapacity(o) },
			func(o *storagev1.CSIStorageCapacity) ClusterChange {
				e.DeleteStorageCapacity(o)
				return ClusterChange{}
			})},
		{&storagev1.VolumeAttachment{}, following(s,
			func(o *storagev1.VolumeAttachment) ClusterChange { e.SetVolumeAttachment(o); return ClusterChange{} },
			func(o *storagev1.VolumeAttachment) ClusterChange { return e.DeleteVolumeAttachment(o.Name) })},
	}
}
