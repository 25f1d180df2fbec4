// Package volumes makes pods' volumes in directories: emptyDir, hostPath, configMap, secret, downwardAPI, projected with service-account tokens, and
// claims bound to hostPath or local volumes. What is made of API objects is replaced atomically, so a reader sees the old or the new
// whole, and sub-paths are resolved without ever leaving their volume.
//
// It does not enforce the size of an emptyDir that is on disk, and attaches nothing.
package volumes
