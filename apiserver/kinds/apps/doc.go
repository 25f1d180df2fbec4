// Package apps declares the kinds of API group apps: Deployment, ReplicaSet, StatefulSet, DaemonSet and
// ControllerRevision, version v1.
package apps
