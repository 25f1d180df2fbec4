package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/gpushare"
)

// policy is a profile with the name it has in the report.
type policy struct {
	flag, name string
	profile    scheduler.Profile
	gpus       gpushare.Scoring // "": GPUs, if there are any, are shared, but don't count in the score
	measures   []sim.Measure
}

// firstFit is what a policy of your own looks like: nodes come in the order of their names, as far as a score can say.
type firstFit struct{}

// Name implements scheduler.Plugin.
func (firstFit) Name() string { return "FirstFit" }

// Scope implements scheduler.Scoped: the score depends on the node alone, so that it is computed once.
func (firstFit) Scope() scheduler.Scope { return scheduler.ScopeNode }

// Sign implements scheduler.Signer: all pods get the same scores.
func (firstFit) Sign(_ *scheduler.Pod, to []byte) []byte { return to }

// Score implements scheduler.ScorePlugin.
func (firstFit) Score(_ *scheduler.Pod, node *scheduler.Node) int64 {
	return scheduler.MaxScore - int64(node.Index())*scheduler.MaxScore/(int64(node.Index())+1000)
}

func policies() ([]policy, error) {
	most, err := plugins.NewNodeResourcesFit(plugins.NodeResourcesFitOptions{Scoring: plugins.ScoringStrategy{Type: plugins.MostAllocated}})
	if err != nil {
		return nil, err
	}
	without := func(names ...string) (p scheduler.Profile) {
		for _, w := range plugins.Default() {
			if !strings.Contains(strings.Join(names, " "), w.Plugin.Name()) {
				p = append(p, w)
			}
		}
		return p
	}
	return []policy{
		{flag: "least", name: "least-allocated", profile: plugins.Default()},
		{flag: "most", name: "most-allocated", profile: append(without("NodeResourcesFit"), scheduler.Weighted{Plugin: most, Weight: 3})},
		{flag: "first", name: "first-fit", profile: append(without("NodeResourcesBalancedAllocation"), scheduler.Weighted{Plugin: firstFit{}, Weight: 100})},
		{flag: "nopreempt", name: "no-preemption", profile: without("DefaultPreemption")},
		{flag: "gpu-pack", name: "gpu-packing", profile: plugins.Default(), gpus: gpushare.Packing},
		{flag: "gpu-spread", name: "gpu-spreading", profile: plugins.Default(), gpus: gpushare.Spreading},
		{flag: "gpu-frag", name: "gpu-least-fragmentation", profile: plugins.Default(), gpus: gpushare.LeastFragmentation},
	}, nil
}

func policyNames() (names []string) {
	all, err := policies()
	if err != nil {
		return nil
	}
	for _, p := range all {
		names = append(names, p.flag)
	}
	return names
}

// withGPUs has pods share GPUs, device by device.
func (p policy) withGPUs() (policy, error) {
	gpus, err := gpushare.New(gpushare.Options{Scoring: p.gpus})
	if err != nil {
		return p, err
	}
	w := scheduler.Weighted{Plugin: gpus, Weight: 20}
	if p.gpus == "" {
		w.Except = scheduler.AtScore
	}
	p.profile, p.measures = append(slices.Clone(p.profile), w), gpus.Measures()
	return p, nil
}

// choose finds policies by their names, separated by commas.
func choose(list string) (chosen []policy, _ error) {
	all, err := policies()
	if err != nil {
		return nil, err
	}
next:
	for _, name := range strings.Split(list, ",") {
		for _, p := range all {
			if p.flag == name {
				chosen = append(chosen, p)
				continue next
			}
		}
		return nil, fmt.Errorf("-policies: %q: want some of %s", name, strings.Join(policyNames(), ", "))
	}
	return chosen, nil
}
