// Package priority is the admission plugin Priority: it writes the priority of a pod's PriorityClass into the pod, and keeps the default
// class unique.
package priority
