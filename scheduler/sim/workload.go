package sim

import (
	"fmt"
	"iter"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Workload is what happens to a cluster. Package trace reads and generates workloads; Events makes one of a slice.
type Workload struct {
	Name string
	// Events yields all events in order of time, the same ones each time it is called. An error ends the simulation. It may be called from several
	// goroutines, for simulations side by side.
	Events func() iter.Seq2[Event, error]
	// Pods is about how many pods there are, for who shows progress; 0 if it is not known.
	Pods int
}

// EventKind says what happens.
type EventKind int

// The kinds of events. A pod that is lost with its node, drained or preempted is submitted again, as a controller does, and starts from the beginning.
const (
	// Submit brings Event.Pods.
	Submit EventKind = iota
	// Cancel ends the pod Event.Name ("namespace/name"), wherever it is. If there is none (any more), nothing happens.
	Cancel
	// AddNode brings Event.Node, or changes the node of that name.
	AddNode
	// FailNode takes the node Event.Name away with all that runs there, until RecoverNode.
	FailNode
	// RecoverNode brings a failed node back, and makes a drained one schedulable again.
	RecoverNode
	// DrainNode makes a node unschedulable and evicts its pods.
	DrainNode
	// RemoveNode takes a node away for good.
	RemoveNode
	// SetObject adds or replaces Event.Object: a Namespace, StorageClass, PersistentVolume, PersistentVolumeClaim, CSINode, CSIDriver, CSIStorageCapacity or
	// PodDisruptionBudget.
	SetObject
	// DeleteObject takes the object of that kind, namespace and name away, if it is there.
	DeleteObject
)

// String is the kind as it appears in logs.
func (k EventKind) String() string {
	names := []string{"submit", "cancel", "node-add", "node-fail", "node-recover", "node-drain", "node-remove", "set", "delete"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("event-%d", int(k))
	}
	return names[k]
}

// Event is one thing that happens.
type Event struct {
	// At is the time since the simulation's start.
	At   time.Duration
	Kind EventKind
	// Pods come with Submit. The slice may be used again for the next event; what it points to stays.
	Pods []Pod
	// Min makes the pods of a Submit a gang: at least that many of them are placed at once, or none.
	Min int
	// Node comes with AddNode and is not modified.
	Node *corev1.Node
	// Name of the node, or "namespace/name" of the pod.
	Name string
	// Object comes with SetObject and DeleteObject and is not modified.
	Object client.Object
}

// Pod is a pod of a workload.
type Pod struct {
	Namespace, Name string
	// Template has the rest: labels, priority, spec. It is shared by pods and not modified; the fewer templates there are, the less memory and time
	// a simulation needs.
	Template *corev1.Pod
	// Run is how long the pod runs once it has started; 0 for ever.
	Run time.Duration
	// Fails: it ends in failure.
	Fails bool
	// Retries is how often it is submitted again when it fails.
	Retries int
}

// Events makes a workload of a slice, which it sorts by time.
func Events(name string, events []Event) Workload {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b Event) int { return int(min(max(a.At-b.At, -1), 1)) })
	pods := 0
	for _, e := range events {
		pods += len(e.Pods)
	}
	return Workload{Name: name, Pods: pods, Events: func() iter.Seq2[Event, error] {
		return func(yield func(Event, error) bool) {
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
		}
	}}
}

// Merge makes one workload of several. Of events at the same time, those of the workload that is named first come first.
func Merge(name string, of ...Workload) Workload {
	m := Workload{Name: name}
	for _, w := range of {
		m.Pods += w.Pods
	}
	m.Events = func() iter.Seq2[Event, error] {
		return func(yield func(Event, error) bool) { merge(of, yield) }
	}
	return m
}

func merge(of []Workload, yield func(Event, error) bool) {
	type source struct {
		next func() (Event, error, bool)
		head Event
	}
	var sources []*source
	for _, w := range of {
		next, stop := iter.Pull2(w.Events())
		defer stop()
		s := &source{next: next}
		e, err, ok := next()
		if err != nil {
			yield(Event{}, err)
			return
		}
		if ok {
			s.head = e
			sources = append(sources, s)
		}
	}
	for len(sources) > 0 {
		first := 0
		for i, s := range sources {
			if s.head.At < sources[first].head.At {
				first = i
			}
		}
		s := sources[first]
		if !yield(s.head, nil) {
			return
		}
		e, err, ok := s.next()
		switch {
		case err != nil:
			yield(Event{}, err)
			return
		case ok:
			s.head = e
		default:
			sources = slices.Delete(sources, first, first+1)
		}
	}
}
