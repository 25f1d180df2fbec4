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
// A decision takes Options.DecisionTime of virtual time; binding, starting and being deleted take what Options say. Volumes are bound, and made after a delay, as
// the controllers of volumes do, for claims of pods' own and for others that events bring; namespaces have labels. Plugins are asked and told up to
// Permit, which may allow or reject, but have nobody wait: there is no API server and no kubelet. New refuses plugins with PreBind, Bind or PostBind unless they are
// left out there, by Weighted.Except. What pods use, as opposed to what they request, is not simulated.
// Parts of GPUs are shared by package gpushare's plugin.
//
// # Who waits
//
// A pod that fits nowhere keeps none from being tried but those that are equal to it: pods of the same template, namespace and priority, which would be refused for the
// same reasons, stand in line behind the first of them. It has the back-off and the hints of kube-scheduler; when it is placed, or room is being made for it,
// the next in line is tried at once. In a live cluster each of them would be tried after a change, in the same order, each with a back-off of its own: so in a simulation
// a pod of a line may be placed up to ten seconds earlier, and much fewer decisions are made. Pods of gangs and pods with volumes stand in no line.
// A plugin that tells equal pods apart, by their names for example, wants Options.NoLines.
//
// # What is measured
//
// A Result has samples over time of utilization, fragmentation, skew, waiting, preemptions and losses, and a summary. WriteCSV, WriteSVG and WriteHTML write them for
// one run or several side by side. Options.Check verifies after every step, by rules that share no code with the engine, that no node is
// over its allocatable, no required rule is broken, and no pod is lost or placed twice.
package sim
