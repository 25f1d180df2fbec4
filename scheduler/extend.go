package scheduler

import (
	"context"

	corev1 "k8s.io/api/core/v1"
)

// Extender has a say in a Scheduler's decisions from outside, such as an HTTP service: see scheduler/extender. It is asked between two steps of the
// engine, about the nodes that all plugins find feasible. Its methods are called by several goroutines.
type Extender interface {
	// Name identifies it in logs.
	Name() string
	// Interested reports whether it is to be asked about a pod.
	Interested(pod *corev1.Pod) bool
	// Ignorable: where it fails, it is as if it hadn't been asked. Else the pod is tried again later.
	Ignorable() bool
	// Filter returns the nodes it rejects, by name. It may keep or change nothing of what it is given.
	Filter(ctx context.Context, pod *corev1.Pod, nodes []*corev1.Node) (map[string]*Rejection, error)
	// Prioritize returns what is added to the nodes' scores, by name. Where it fails, it is as if it hadn't been asked.
	Prioritize(ctx context.Context, pod *corev1.Pod, nodes []*corev1.Node) (map[string]int64, error)
}

// Preempter is an Extender that has a say in preemption, too.
type Preempter interface {
	Extender
	// Preempt returns the proposal, with the victims that the extender wants of those proposed, or nil if the node is not to be used.
	Preempt(ctx context.Context, pod *corev1.Pod, p *Preemption) (*Preemption, error)
}

// Binder is an Extender that binds pods.
type Binder interface {
	Extender
	// Bind reports whether it handled the pod; else it is bound as usual.
	Bind(ctx context.Context, pod *corev1.Pod, node string) (handled bool, err error)
}
