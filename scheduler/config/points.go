package config

import (
	configv1 "k8s.io/kube-scheduler/config/v1"

	"github.com/keelson/keelson/scheduler"
)

// point is an extension point of kube-scheduler's with what a profile says of it.
type point struct {
	// name in the file and kind in messages.
	name, kind string
	set        *configv1.PluginSet
	// at is where our engine asks; 0 for preScore, which is part of score, and for what isn't there.
	at scheduler.Points
}

// pointsOf lists all points but multiPoint.
func pointsOf(p *configv1.Plugins) []point {
	return []point{
		{"preEnqueue", "PreEnqueuePlugin", &p.PreEnqueue, scheduler.AtPreEnqueue},
		{"queueSort", "QueueSortPlugin", &p.QueueSort, 0},
		{"preFilter", "PreFilterPlugin", &p.PreFilter, scheduler.AtPreFilter},
		{"filter", "FilterPlugin", &p.Filter, scheduler.AtFilter},
		{"postFilter", "PostFilterPlugin", &p.PostFilter, scheduler.AtPostFilter},
		{"preScore", "PreScorePlugin", &p.PreScore, 0},
		{"score", "ScorePlugin", &p.Score, scheduler.AtScore},
		{"reserve", "ReservePlugin", &p.Reserve, scheduler.AtReserve},
		{"permit", "PermitPlugin", &p.Permit, scheduler.AtPermit},
		{"preBind", "PreBindPlugin", &p.PreBind, scheduler.AtPreBind},
		{"bind", "BindPlugin", &p.Bind, scheduler.AtBind},
		{"postBind", "PostBindPlugin", &p.PostBind, scheduler.AtPostBind},
		{"placementGenerate", "PlacementGeneratePlugin", &p.PlacementGenerate, 0},
		{"placementScore", "PlacementScorePlugin", &p.PlacementScore, 0},
		{"podGroupPostFilter", "PodGroupPostFilterPlugin", &p.PodGroupPostFilter, 0},
	}
}

// Kubernetes' plugins that are no plugins here, with the point they are at: the queue's order and the API's binding.
const (
	prioritySort  = "PrioritySort"
	defaultBinder = "DefaultBinder"
)

// unsupported are Kubernetes' plugins that aren't there. Files may disable them.
var unsupported = map[string]bool{
	"DynamicResources": true, "NodeDeclaredFeatures": true, "DeferredPodScheduling": true,
	"TopologyPlacementGenerator": true, "PodGroupPodsCount": true,
}

// scorers are Kubernetes' plugins that score: our ClusterPlugins could all.
var scorers = map[string]bool{
	"TaintToleration": true, "NodeAffinity": true, "NodeResourcesFit": true, "VolumeBinding": true, "PodTopologySpread": true,
	"InterPodAffinity": true, "NodeResourcesBalancedAllocation": true, "ImageLocality": true,
}

// prepares are Kubernetes' plugins that have two points which are one here, by the latter.
var prepares = map[string]map[string]bool{
	"filter": {
		"NodeAffinity": true, "NodePorts": true, "NodeResourcesFit": true, "VolumeRestrictions": true, "NodeVolumeLimits": true, "VolumeBinding": true,
		"VolumeZone": true, "PodTopologySpread": true, "InterPodAffinity": true,
	},
	"score": {
		"TaintToleration": true, "NodeAffinity": true, "NodeResourcesFit": true, "VolumeBinding": true, "PodTopologySpread": true, "InterPodAffinity": true,
		"NodeResourcesBalancedAllocation": true,
	},
}

// points are those at which a plugin can be asked.
func (b *profileBuilder) points(name string) scheduler.Points {
	can := scheduler.PointsOf(b.made[name])
	if b.builtin[name] && !scorers[name] {
		can &^= scheduler.AtScore
	}
	if b.builtin[name] && name == "ImageLocality" { // the only ClusterPlugin that doesn't filter
		can &^= scheduler.AtPreFilter | scheduler.AtFilter
	}
	return can
}

// extends reports whether a plugin can be enabled at a point. Who filters can pre-filter, too, and who scores pre-score: what Kubernetes' plugins
// prepare there, ours prepare by themselves.
func (b *profileBuilder) extends(name string, at point) bool {
	switch name {
	case prioritySort:
		return at.name == "queueSort"
	case defaultBinder:
		return at.name == "bind"
	}
	can := b.points(name)
	switch at.name {
	case "preFilter":
		return can&(scheduler.AtPreFilter|scheduler.AtFilter) != 0
	case "preScore":
		return can.Has(scheduler.AtScore)
	case "preEnqueue":
		return can.Has(scheduler.AtPreEnqueue) || name == "SchedulingGates"
	}
	return at.at != 0 && can.Has(at.at)
}
