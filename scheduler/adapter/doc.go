// Package adapter runs plugins written for k8s.io/kube-scheduler/framework, unchanged.
//
//	fw, err := adapter.New(adapter.Options{ClientSet: clientset, Informers: factory})
//	...
//	p, err := fw.Plugin(ctx, coscheduling.New, &config.CoschedulingArgs{})
//	...
//	profile := append(plugins.Default(), scheduler.Weighted{Plugin: p})
//
// All plugins of one profile should come from one Framework: they share the CycleState of a decision, and their Handle.
//
// Supported are PreEnqueue, PreFilter, Filter, PostFilter, PreScore, Score with NormalizeScore, Reserve, Permit, PreBind, Bind, PostBind and
// EnqueueExtensions. Instead of calling PreFilterExtensions the scheduler calls PreFilter again where pods are added or removed on trial. The
// plugins' answers are never cached, so such a plugin makes every decision look at every node.
//
// A PostFilter that makes room finds its victims as in kube-scheduler: it takes pods off snapshots of nodes, and asks Handle.RunFilterPluginsWithNominatedPods. It
// evicts them itself.
//
// What a Handle can't give is an error when the plugin is made, if it asks for it then. Later, methods that return a Status return an error, and
// others return nil and log. The lister of nodes is that of the decision under way: use it in PreFilter, Filter, PostFilter, PreScore, Score,
// Reserve and Permit alone. A QueueSort plugin's order is not used: pods are ordered by priority and age. Hints are not told of
// pods that come to the queue; call Handle.Activate as plugins for groups do.
//
// PostFilter and Reserve are called under the scheduler's lock: nothing is scheduled while they do I/O.
package adapter
