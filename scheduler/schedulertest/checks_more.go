package schedulertest

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler"
)

// checkExplained compares decisions with explanations, for which the plugin is asked about each node, and sums over domains are made anew.
func checkExplained(newPlugin func() scheduler.Plugin, o Options) error {
	for seed := range uint64(o.Clusters) {
		c := newCluster(o, seed)
		e, err := c.engine(newPlugin())
		if err != nil {
			return err
		}
		var classes []*corev1.Pod
		for range 3 {
			classes = append(classes, c.pod())
		}
		for step := range o.Events {
			c.event(e)
			pod := scheduler.NewPod(pick(c.r, classes...))
			x, d := e.Explain(pod), e.Decide(pod)
			if x.Rejection != nil {
				if d.Fits() {
					return failure(seed, step, "the pod goes to %s, but it is explained that it fits nowhere: %v", d.Node, x.Rejection.Reasons)
				}
				continue
			}
			feasible, best := 0, int64(0)
			for i := range x.Nodes {
				if n := &x.Nodes[i]; n.Feasible {
					feasible, best = feasible+1, max(best, n.Score)
				}
			}
			if feasible != d.Feasible || d.Fits() && best != d.Score {
				return failure(seed, step, "decided among %d nodes for %d points, but asked about each node there are %d, the best with %d", d.Feasible, d.Score, feasible, best)
			}
		}
	}
	return nil
}

// checkReserve looks whether Unreserve undoes what Reserve did, and bears with being called without it.
func checkReserve(newPlugin func() scheduler.Plugin, o Options) error {
	if r, ok := newPlugin().(scheduler.ReservePlugin); !ok || !scheduler.PointsOf(r).Has(scheduler.AtReserve) {
		return nil
	}
	for seed := range uint64(o.Clusters) {
		c := newCluster(o, seed)
		e, err := c.engine(newPlugin())
		if err != nil {
			return err
		}
		var probes []*scheduler.Pod
		for range 4 {
			probes = append(probes, scheduler.NewPod(c.pod()))
		}
		decide := func() (out []outcome) {
			for _, p := range probes {
				d := e.Decide(p)
				out = append(out, outcomeOf(&d))
			}
			return out
		}
		for step := range o.Events {
			c.event(e)
			pod := scheduler.NewPod(c.pod())
			before := decide()
			d := e.Decide(pod)
			if !d.Fits() {
				continue
			}
			e.Assign(pod, d.Node)
			if err := e.Reserve(pod, d.Node); err == nil {
				e.Unreserve(pod, d.Node)
			}
			e.Remove(pod.Object.UID)
			e.Unreserve(pod, d.Node)
			for i, after := range decide() {
				if !reflect.DeepEqual(before[i], after) {
					return failure(seed, step, "after Reserve and Unreserve for another pod on %s, %+v is decided: it was %+v", d.Node, after, before[i])
				}
			}
		}
	}
	return nil
}
