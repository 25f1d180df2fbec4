// Package sim plays a workload on a scheduling engine in virtual time: the engine, the queue and the plugins are those that schedule a live cluster. A day of a large
// cluster takes seconds to minutes, and the same options give the same event log, byte for byte.
//
// # A policy in an afternoon
//
// A policy is a plugin. This one prefers the nodes that have been given the fewest pods:
//
//	type FewestPods struct{}
//
//	func (FewestPods) Name() string { return "FewestPods" }
//
//	func (FewestPods) Score(pod *scheduler.Pod, node *scheduler.Node) int64 {
//		return max(scheduler.MaxScore-int64(node.Len()), 0)
//	}
//
// Compared with Kubernetes' default on a generated day, in ten lines:
//
//	day, err := trace.Borg(trace.Options{Nodes: 500, Pods: 50_000})
//	for _, p := range []sim.Options{
//		{Policy: "default", Engine: scheduler.EngineOptions{Profile: plugins.Default()}},
//		{Policy: "fewest pods", Engine: scheduler.EngineOptions{Profile: append(plugins.Default(), scheduler.Weighted{Plugin: FewestPods{}, Weight: 10})}},
//	} {
//		s, err := sim.New(day, p)
//		r, err := s.Run(ctx)
//		results = append(results, r)
//	}
//	err = sim.WriteHTML(file, results...)
//
// That plugin is asked about every node for every pod. Once the policy works, say what its answers depend on (scheduler.Scoped, scheduler.Signer), and they are
// computed once for pods that are alike and only for nodes that changed; package schedulertest finds out if what you said is wrong.
// examples/simulate does the same from the command line, and Engine.Explain shows why a single pod went where it went.
//
// # What is simulated
//
// A Workload is a sequence of Events: pods come, alone or in gangs, run for a time, end or fail; nodes are added, fail, recover, are drained and removed. Pods that are
// preempted, drained, lost with their node or that fail come again as new ones, as from a controller, and start from the beginning. Preemption, nominated nodes,
// priorities, back-off and hints are as in a live cluster. Package trace reads workloads from public traces and generates similar ones.
//
// A decision takes Options.DecisionTime of virtual time; binding, starting and being deleted take what Options say. There are no kubelets and no API server: what pods
// use, as opposed to what they request, is not simulated, nor are volumes bound by anybody. Pods that are equal but for their names stand in line behind
// the first of them that fits nowhere, unless Options.NoLines is set.
//
// # What is measured
//
// A Result has samples over time of utilization, fragmentation, skew, waiting, preemptions and losses, and a summary. WriteCSV, WriteSVG and WriteHTML write them for
// one run or several side by side. Options.Check verifies after every step, by rules that share no code with the engine, that no node is
// over its allocatable, no required rule is broken, and no pod is lost or placed twice.
package sim
