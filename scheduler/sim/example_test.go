package sim_test

import (
	"context"
	"fmt"
	"log"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/trace"
)

// FewestPods is a policy: it prefers nodes with few pods.
type FewestPods struct{}

// Name implements scheduler.Plugin.
func (FewestPods) Name() string { return "FewestPods" }

// Score implements scheduler.ScorePlugin.
func (FewestPods) Score(_ *scheduler.Pod, node *scheduler.Node) int64 {
	return max(scheduler.MaxScore-int64(node.Len()), 0)
}

// Two policies are compared on the same workload.
func Example() {
	day, err := trace.Borg(trace.Options{Nodes: 50, Pods: 1000, Load: 0.5})
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range []sim.Options{
		{Policy: "default", Engine: scheduler.EngineOptions{Profile: plugins.Default()}},
		{Policy: "fewest pods", Engine: scheduler.EngineOptions{Profile: append(plugins.Default(), scheduler.Weighted{Plugin: FewestPods{}, Weight: 10})}},
	} {
		s, err := sim.New(day, p)
		if err != nil {
			log.Fatal(err)
		}
		r, err := s.Run(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %d of %d pods finished, all waits known: %v\n", p.Policy, r.Summary.Finished, r.Summary.Submitted, r.Summary.Waits.Count == r.Summary.Placed)
	}
	// Output:
	// default: 938 of 1000 pods finished, all waits known: true
	// fewest pods: 938 of 1000 pods finished, all waits known: true
}
