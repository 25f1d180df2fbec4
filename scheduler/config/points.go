package config

import (
	"slices"

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

// extensions are the points of Kubernetes' plugins that are there.
var extensions = map[string][]string{
	"SchedulingGates":                 {"preEnqueue"},
	prioritySort:                      {"queueSort"},
	"NodeName":                        {"preFilter", "filter"},
	"NodeUnschedulable":               {"preFilter", "filter"},
	"TaintToleration":                 {"preFilter", "filter", "preScore", "score"},
	"NodeAffinity":                    {"preFilter", "filter", "preScore", "score"},
	"NodePorts":                       {"preFilter", "filter"},
	"NodeResourcesFit":                {"preFilter", "filter", "preScore", "score", "placementScore"},
	"VolumeRestrictions":              {"preFilter", "filter"},
	"NodeVolumeLimits":                {"preFilter", "filter"},
	"VolumeBinding":                   {"preFilter", "filter", "preScore", "score", "reserve", "preBind"},
	"VolumeZone":                      {"preFilter", "filter"},
	"PodTopologySpread":               {"preFilter", "filter", "preScore", "score"},
	"InterPodAffinity":                {"preFilter", "filter", "preScore", "score"},
	"DefaultPreemption":               {"preEnqueue", "postFilter", "podGroupPostFilter"},
	"NodeResourcesBalancedAllocation": {"preScore", "score"},
	"ImageLocality":                   {"score"},
	defaultBinder:                     {"bind"},
}

// inseparable are plugins that need what they prepare at one point when they are asked at another: with the one alone kube-scheduler fails each pod, and
// ours prepare it all the same.
var inseparable = []struct {
	pre, main string
	plugins   []string
}{
	{"preFilter", "filter", []string{"NodePorts", "NodeResourcesFit", "VolumeRestrictions", "VolumeBinding", "PodTopologySpread", "InterPodAffinity"}},
	{"preScore", "score", []string{"TaintToleration", "PodTopologySpread", "InterPodAffinity"}},
}

// points are those at which a plugin is asked.
func (b *profileBuilder) points(name string) scheduler.Points {
	return scheduler.PointsOf(b.made[name])
}

// extends reports whether a plugin can be enabled at a point.
func (b *profileBuilder) extends(name string, at point) bool {
	if points, ok := extensions[name]; ok && b.own[name] == nil {
		return slices.Contains(points, at.name)
	}
	if at.name == "preScore" { // part of score
		return b.points(name).Has(scheduler.AtScore)
	}
	return at.at != 0 && b.points(name).Has(at.at)
}
