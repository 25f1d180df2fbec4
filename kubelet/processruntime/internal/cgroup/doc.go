// Package cgroup limits and measures a container by control groups, of version 1, version 2 or both mounted beside each other.
package cgroup
