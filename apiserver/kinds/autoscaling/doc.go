// Package autoscaling declares the kind of API group autoscaling: HorizontalPodAutoscaler, version v2 and, by conversion, v1. What v1 has no
// fields for it carries in annotations, as in Kubernetes.
package autoscaling
