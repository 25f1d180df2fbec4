package plugins

import "github.com/keelson/keelson/scheduler"

// ResourceClaims keeps pods off all nodes that have spec.resourceClaims: dynamic resource allocation is not there, and without their devices they would
// fail where they are placed. A plugin that allocates claims takes its place.
type ResourceClaims struct{}

// Name implements scheduler.Plugin.
func (ResourceClaims) Name() string { return "ResourceClaims" }

// PreFilter implements scheduler.PreFilterPlugin.
func (ResourceClaims) PreFilter(pod *scheduler.Pod) *scheduler.Rejection {
	if len(pod.Object.Spec.ResourceClaims) > 0 {
		return scheduler.Reject("pod has resource claims, which this scheduler does not allocate")
	}
	return nil
}

// Hint implements scheduler.Hinter: a pod keeps its claims.
func (ResourceClaims) Hint(*scheduler.Pod, scheduler.ClusterChange) bool { return false }
