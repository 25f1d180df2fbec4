// Package plugins holds the built-in scheduling rules, under the names kube-scheduler gives them.
package plugins

import "github.com/keelson/keelson/scheduler"

// Default is Kubernetes' default profile, as far as it is built in, with its weights.
func Default() scheduler.Profile {
	return scheduler.Profile{
		{Plugin: SchedulingGates{}},
		{Plugin: NodeName{}},
		{Plugin: NodeUnschedulable{}},
		{Plugin: TaintToleration{}, Weight: 3},
		{Plugin: NodeAffinity{}, Weight: 2},
		{Plugin: NodePorts{}},
		{Plugin: NodeResourcesFit{}},
		{Plugin: VolumeRestrictions{}},
		{Plugin: NodeVolumeLimits{}},
		{Plugin: VolumeBinding{}},
		{Plugin: VolumeZone{}},
		{Plugin: ResourceClaims{}},
		{Plugin: PodTopologySpread{}, Weight: 2},
		{Plugin: InterPodAffinity{}, Weight: 2},
		{Plugin: NodeResourcesBalancedAllocation{}},
		{Plugin: ImageLocality{}},
		{Plugin: DefaultPreemption{}},
		{Plugin: GangScheduling{}},
	}
}
