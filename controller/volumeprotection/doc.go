// Package volumeprotection keeps PersistentVolumeClaims from going while a pod on a node uses them, and PersistentVolumes while they are bound: by the
// finalizers kubernetes.io/pvc-protection and kubernetes.io/pv-protection.
//
//	ctl, err := volumeprotection.New(c, cache, volumeprotection.Options{})
//	...
//	err = ctl.Run(ctx)
package volumeprotection
