package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// SetClaim adds or replaces a PersistentVolumeClaim and returns the change, for Hinters.
func (e *Engine) SetClaim(obj *corev1.PersistentVolumeClaim) ClusterChange {
	e.view.claims[obj.Namespace+"/"+obj.Name] = obj
	return ClusterChange{Claim: obj}
}

// DeleteClaim forgets a PersistentVolumeClaim.
func (e *Engine) DeleteClaim(namespace, name string) { delete(e.view.claims, namespace+"/"+name) }

// SetVolume adds or replaces a PersistentVolume and returns the change, for Hinters.
func (e *Engine) SetVolume(obj *corev1.PersistentVolume) ClusterChange {
	e.view.volumes[obj.Name] = obj
	return ClusterChange{Volume: obj}
}

// DeleteVolume forgets a PersistentVolume.
func (e *Engine) DeleteVolume(name string) { delete(e.view.volumes, name) }

// SetStorageClass adds or replaces a StorageClass and returns the change, for Hinters.
func (e *Engine) SetStorageClass(obj *storagev1.StorageClass) ClusterChange {
	e.view.classes[obj.Name] = obj
	return ClusterChange{StorageClass: obj}
}

// DeleteStorageClass forgets a StorageClass.
func (e *Engine) DeleteStorageClass(name string) { delete(e.view.classes, name) }

// Claim returns a PersistentVolumeClaim, nil if there is none.
func (v *View) Claim(namespace, name string) *corev1.PersistentVolumeClaim {
	return v.claims[namespace+"/"+name]
}

// ClaimUsers is the number of pods on nodes that use a PersistentVolumeClaim by its name.
func (v *View) ClaimUsers(namespace, name string) int { return v.users[namespace+"/"+name] }

func (v *View) useClaims(p *Pod, sign int) {
	for i := range p.Object.Spec.Volumes {
		if c := p.Object.Spec.Volumes[i].PersistentVolumeClaim; c != nil {
			key := p.Object.Namespace + "/" + c.ClaimName
			if v.users[key] += sign; v.users[key] == 0 {
				delete(v.users, key)
			}
		}
	}
}

// Volume returns a PersistentVolume, nil if there is none.
func (v *View) Volume(name string) *corev1.PersistentVolume { return v.volumes[name] }

// StorageClass returns a StorageClass, nil if there is none.
func (v *View) StorageClass(name string) *storagev1.StorageClass { return v.classes[name] }
