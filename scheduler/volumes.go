package scheduler

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
)

// storage is what the view knows of volumes and of those who provide them. Claims and volumes are as the API has them; what pods that are on
// their way to be bound will do to them lies over that.
type storage struct {
	claims     shared[string, *corev1.PersistentVolumeClaim] // by namespace/name
	volumes    shared[string, *corev1.PersistentVolume]
	classes    map[string]*storagev1.StorageClass
	csiNodes   shared[string, *storagev1.CSINode]
	drivers    map[string]*storagev1.CSIDriver
	capacities shared[string, *storagev1.CSIStorageCapacity] // by namespace/name

	assumedClaims  map[string]*corev1.PersistentVolumeClaim
	assumedVolumes map[string]*corev1.PersistentVolume
	plans          map[types.UID]*VolumePlan

	reaches reaches
}

func newStorage() storage {
	return storage{
		classes: map[string]*storagev1.StorageClass{}, drivers: map[string]*storagev1.CSIDriver{},
		assumedClaims: map[string]*corev1.PersistentVolumeClaim{}, assumedVolumes: map[string]*corev1.PersistentVolume{},
		plans: map[types.UID]*VolumePlan{},
	}
}

// fork leaves out what is made when it is asked for.
func (s *storage) fork() storage {
	return storage{
		claims: s.claims.fork(), volumes: s.volumes.fork(), classes: maps.Clone(s.classes), csiNodes: s.csiNodes.fork(), drivers: maps.Clone(s.drivers),
		capacities: s.capacities.fork(), assumedClaims: maps.Clone(s.assumedClaims), assumedVolumes: maps.Clone(s.assumedVolumes), plans: maps.Clone(s.plans),
	}
}

// SetClaim adds or replaces a PersistentVolumeClaim and returns the change, for Hinters.
func (e *Engine) SetClaim(obj *corev1.PersistentVolumeClaim) ClusterChange {
	s, key := &e.view.storage, obj.Namespace+"/"+obj.Name
	old := s.claims.of(key)
	s.claims.set(key, obj)
	if a := s.assumedClaims[key]; a != nil && a.ResourceVersion != obj.ResourceVersion {
		delete(s.assumedClaims, key)
	}
	e.view.attached.claimSet(e.view, key, old, obj)
	return ClusterChange{Claim: obj, OldClaim: old}
}

// DeleteClaim forgets a PersistentVolumeClaim.
func (e *Engine) DeleteClaim(namespace, name string) {
	s, key := &e.view.storage, namespace+"/"+name
	old := s.claims.of(key)
	s.claims.delete(key)
	delete(s.assumedClaims, key)
	e.view.attached.claimSet(e.view, key, old, nil)
}

// SetVolume adds or replaces a PersistentVolume and returns the change, for Hinters.
func (e *Engine) SetVolume(obj *corev1.PersistentVolume) ClusterChange {
	s := &e.view.storage
	old := s.volumes.of(obj.Name)
	s.volumes.set(obj.Name, obj)
	if a := s.assumedVolumes[obj.Name]; a != nil && a.ResourceVersion != obj.ResourceVersion {
		delete(s.assumedVolumes, obj.Name)
	}
	e.view.volumeMoved(obj.Name)
	e.view.attached.volumeSet(e.view, obj.Name, old, obj)
	return ClusterChange{Volume: obj, OldVolume: old}
}

// DeleteVolume forgets a PersistentVolume.
func (e *Engine) DeleteVolume(name string) {
	s := &e.view.storage
	old := s.volumes.of(name)
	if old == nil {
		return
	}
	s.volumes.delete(name)
	delete(s.assumedVolumes, name)
	e.view.volumeMoved(name)
	e.view.attached.volumeSet(e.view, name, old, nil)
}

// SetStorageClass adds or replaces a StorageClass and returns the change, for Hinters.
func (e *Engine) SetStorageClass(obj *storagev1.StorageClass) ClusterChange {
	old := e.view.storage.classes[obj.Name]
	e.view.storage.classes[obj.Name] = obj
	if old == nil || old.Provisioner != obj.Provisioner {
		e.view.attached.classSet(e.view, obj.Name)
	}
	return ClusterChange{StorageClass: obj, OldStorageClass: old}
}

// DeleteStorageClass forgets a StorageClass.
func (e *Engine) DeleteStorageClass(name string) {
	delete(e.view.storage.classes, name)
	e.view.attached.classSet(e.view, name)
}

// SetCSINode adds or replaces a CSINode, with the limits of a node's volumes, and returns the change, for Hinters.
func (e *Engine) SetCSINode(obj *storagev1.CSINode) ClusterChange {
	old := e.view.storage.csiNodes.of(obj.Name)
	e.view.storage.csiNodes.set(obj.Name, obj)
	e.view.attached.limitsSet(e.view, obj.Name, obj)
	return ClusterChange{CSINode: obj, OldCSINode: old}
}

// DeleteCSINode forgets a CSINode.
func (e *Engine) DeleteCSINode(name string) {
	e.view.storage.csiNodes.delete(name)
	e.view.attached.limitsSet(e.view, name, nil)
}

// SetCSIDriver adds or replaces a CSIDriver and returns the change, for Hinters.
func (e *Engine) SetCSIDriver(obj *storagev1.CSIDriver) ClusterChange {
	old := e.view.storage.drivers[obj.Name]
	e.view.storage.drivers[obj.Name] = obj
	return ClusterChange{CSIDriver: obj, OldCSIDriver: old}
}

// DeleteCSIDriver forgets a CSIDriver and returns the change: it may have kept pods off nodes.
func (e *Engine) DeleteCSIDriver(name string) ClusterChange {
	old := e.view.storage.drivers[name]
	delete(e.view.storage.drivers, name)
	return ClusterChange{OldCSIDriver: old}
}

// SetStorageCapacity adds or replaces a CSIStorageCapacity and returns the change, for Hinters.
func (e *Engine) SetStorageCapacity(obj *storagev1.CSIStorageCapacity) ClusterChange {
	key := obj.Namespace + "/" + obj.Name
	old := e.view.storage.capacities.of(key)
	e.view.storage.capacities.set(key, obj)
	e.view.capacityMoved(old, obj)
	return ClusterChange{StorageCapacity: obj, OldStorageCapacity: old}
}

// DeleteStorageCapacity forgets a CSIStorageCapacity.
func (e *Engine) DeleteStorageCapacity(obj *storagev1.CSIStorageCapacity) {
	key := obj.Namespace + "/" + obj.Name
	old := e.view.storage.capacities.of(key)
	e.view.storage.capacities.delete(key)
	e.view.capacityMoved(old, nil)
}

// SetVolumeAttachment adds or replaces a VolumeAttachment: the volume counts against the limits of its node.
func (e *Engine) SetVolumeAttachment(obj *storagev1.VolumeAttachment) {
	e.view.attached.attachmentSet(e.view, obj.Name, obj)
}

// DeleteVolumeAttachment forgets a VolumeAttachment and returns the change, for Hinters.
func (e *Engine) DeleteVolumeAttachment(name string) ClusterChange {
	old := e.view.attached.attachments.of(name)
	e.view.attached.attachmentSet(e.view, name, nil)
	return ClusterChange{GoneAttachment: old}
}

// Claim returns a PersistentVolumeClaim, nil if there is none, with the node that was selected for it by a pod that is being bound.
func (v *View) Claim(namespace, name string) *corev1.PersistentVolumeClaim {
	key := namespace + "/" + name
	if a := v.storage.assumedClaims[key]; a != nil {
		return a
	}
	return v.storage.claims.of(key)
}

// Volume returns a PersistentVolume, nil if there is none, with the claim that it will be bound to by a pod that is being bound.
func (v *View) Volume(name string) *corev1.PersistentVolume {
	if a := v.storage.assumedVolumes[name]; a != nil {
		return a
	}
	return v.storage.volumes.of(name)
}

// StorageClass returns a StorageClass, nil if there is none.
func (v *View) StorageClass(name string) *storagev1.StorageClass { return v.storage.classes[name] }

// CSINode returns the CSINode of a node, nil if there is none.
func (v *View) CSINode(name string) *storagev1.CSINode { return v.storage.csiNodes.of(name) }

// CSIDriver returns a CSIDriver, nil if there is none.
func (v *View) CSIDriver(name string) *storagev1.CSIDriver { return v.storage.drivers[name] }

// ClaimUsers is the number of pods on nodes that use a PersistentVolumeClaim by its name. (The claims of ephemeral volumes are not counted.)
func (v *View) ClaimUsers(namespace, name string) int {
	if u := v.attached.users.of(namespace + "/" + name); u != nil {
		return u.direct
	}
	return 0
}
