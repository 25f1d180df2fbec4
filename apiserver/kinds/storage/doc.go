// Package storage declares kinds of API group storage.k8s.io, version v1: StorageClass, and those that stock schedulers and kubelets read: CSIDriver,
// CSINode, CSIStorageCapacity and VolumeAttachment.
package storage
