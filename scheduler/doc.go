// Package scheduler assigns pods to nodes.
//
// Engine is the pure core: it holds the cluster's state, is told of its changes, and decides one pod or a batch at a time. It does no
// I/O, starts no goroutine, reads no clock, and its randomness is seeded, so the same calls give the same decisions: in production, in a
// test and in a simulation.
//
// Scheduler is the runner: it feeds an Engine from a cache, keeps the pods that wait in a queue, and binds those that were placed.
//
// What decides is a Profile of plugins. A plugin is a Go type with one or more of the small interfaces in this package; a rule of your own
// takes ten lines:
//
//	type SameRack struct{}
//
//	func (SameRack) Name() string { return "SameRack" }
//
//	func (SameRack) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
//		if pod.Object.Labels["rack"] == node.Object.Labels["rack"] {
//			return nil
//		}
//		return scheduler.Reject("node(s) were in another rack")
//	}
//
// A rule that depends on what is on other nodes is a ClusterPlugin: it is given a View of the cluster once for each decision, whose counts
// of pods by node are kept up to date with every change. One that says what it has to say by topology domain (DomainJudgement) costs the same however
// many nodes there are.
//
// The built-in rules are in scheduler/plugins. For a pod that fits nowhere Engine.Preempt asks the PostFilterPlugins whose going would make room; the
// runner evicts those pods, gracefully, and nominates the pod for the node.
//
// # To try a policy
//
// Write a type with a Filter or a Score, as above. Package schedulertest finds out whether it keeps what it promises. Package scheduler/sim plays a trace, or a generated day
// of a large cluster, under several profiles and compares them in one report. Engine.Explain says why a pod goes where it goes, plugin by plugin, and Engine.Fit
// whether pods would fit, and where, changing nothing; Snapshot makes an engine of a live cluster to ask. To schedule with it, give the profile to New;
// examples/customscheduler and examples/scheduler do.
package scheduler
