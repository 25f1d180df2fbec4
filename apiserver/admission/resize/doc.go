// Package resize is the admission plugin PersistentVolumeClaimResize: claims grow only if they are bound and their StorageClass allows it.
package resize
