// Package extender lets HTTP services have a say in scheduling, as kube-scheduler's extenders do: with the messages of
// k8s.io/kube-scheduler/extender/v1, POSTed as JSON to a URL of one's own for each of filter, prioritize, preempt and bind.
//
//	x, err := extender.New("http://127.0.0.1:8888/scheduler", extender.Options{FilterVerb: "filter", PrioritizeVerb: "prioritize", Weight: 1})
//	...
//	s, err := scheduler.New(client, cache, scheduler.Options{Profile: plugins.Default(), Extenders: []scheduler.Extender{x}})
//
// A scheduler asks outside its engine, between two steps: the nodes that all plugins find feasible go out, the verdicts come in. While it waits
// for a verdict on a pod no other is decided, as in kube-scheduler, so a slow extender makes a slow scheduler. Of a pod group it is asked beside the others.
// The pods of a group are asked about in their order, each as if those before it were on their nodes.
//
// Only the names of the nodes that come back from filter count: changes an extender makes to the objects do not.
package extender
