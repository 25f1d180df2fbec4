package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Resources are amounts by resource: milli-units of cpu, units (bytes, pieces) of everything else.
type Resources map[corev1.ResourceName]int64

// Kubernetes counts a container without requests as this much when it scores nodes (not when it filters them).
const (
	DefaultMilliCPU = 100
	DefaultMemory   = 200 << 20
)

func resourcesOf(list corev1.ResourceList) Resources {
	out := make(Resources, len(list))
	for name, q := range list {
		if name == corev1.ResourceCPU {
			out[name] = q.MilliValue()
		} else {
			out[name] = q.Value()
		}
	}
	return out
}

func (r Resources) add(o Resources, sign int64) {
	for name, v := range o {
		r[name] += sign * v
	}
}

var nonMissing = corev1.ResourceList{
	corev1.ResourceCPU:    *resource.NewMilliQuantity(DefaultMilliCPU, resource.DecimalSI),
	corev1.ResourceMemory: *resource.NewQuantity(DefaultMemory, resource.BinarySI),
}

// requestsOf counts init, sidecar and pod-level requests and the overhead, and what a running pod's containers were
// really given while a resize is under way.
func requestsOf(pod *corev1.Pod) (requests, scored Resources) {
	opts := resourcehelper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
	requests = resourcesOf(resourcehelper.PodRequests(pod, opts))
	for name, v := range requests {
		if v == 0 {
			delete(requests, name)
		}
	}
	opts.NonMissingContainerRequests = nonMissing
	all := resourcesOf(resourcehelper.PodRequests(pod, opts))
	return requests, Resources{corev1.ResourceCPU: all[corev1.ResourceCPU], corev1.ResourceMemory: all[corev1.ResourceMemory]}
}
