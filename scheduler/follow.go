package scheduler

import (
	"context"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	resourcehelper "k8s.io/component-helpers/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// follow registers the handlers that keep engine and queue current; stop removes them.
func (s *Scheduler) follow(ctx context.Context) (synced []toolscache.InformerSynced, stop func(), err error) {
	var undo []func()
	stop = func() {
		for _, f := range undo {
			f()
		}
	}
	for _, w := range append([]watched{
		{&corev1.Node{}, toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { s.nodeSet(nil, o.(*corev1.Node)) },
			UpdateFunc: func(old, now any) { s.nodeSet(old.(*corev1.Node), now.(*corev1.Node)) },
			DeleteFunc: func(o any) { s.nodeGone(last(o).(*corev1.Node)) },
		}},
		{&corev1.Namespace{}, following(s,
			func(o *corev1.Namespace) ClusterChange { return s.engine.SetNamespace(o) },
			func(o *corev1.Namespace) ClusterChange { s.engine.DeleteNamespace(o.Name); return ClusterChange{} })},
		{&policyv1.PodDisruptionBudget{}, following(s,
			func(o *policyv1.PodDisruptionBudget) ClusterChange { s.engine.SetPDB(o); return ClusterChange{} },
			func(o *policyv1.PodDisruptionBudget) ClusterChange {
				s.engine.DeletePDB(o.Namespace, o.Name)
				return ClusterChange{}
			})},
		{&corev1.Service{}, following(s,
			func(o *corev1.Service) ClusterChange { s.engine.SetService(o); return ClusterChange{} },
			func(o *corev1.Service) ClusterChange {
				s.engine.DeleteService(o.Namespace, o.Name)
				return ClusterChange{}
			})},
		{&corev1.ReplicationController{}, following(s,
			func(o *corev1.ReplicationController) ClusterChange {
				s.engine.SetReplicationController(o)
				return ClusterChange{}
			},
			func(o *corev1.ReplicationController) ClusterChange {
				s.engine.DeleteReplicationController(o.Namespace, o.Name)
				return ClusterChange{}
			})},
		{&appsv1.ReplicaSet{}, following(s,
			func(o *appsv1.ReplicaSet) ClusterChange { s.engine.SetReplicaSet(o); return ClusterChange{} },
			func(o *appsv1.ReplicaSet) ClusterChange {
				s.engine.DeleteReplicaSet(o.Namespace, o.Name)
				return ClusterChange{}
			})},
		{&appsv1.StatefulSet{}, following(s,
			func(o *appsv1.StatefulSet) ClusterChange { s.engine.SetStatefulSet(o); return ClusterChange{} },
			func(o *appsv1.StatefulSet) ClusterChange {
				s.engine.DeleteStatefulSet(o.Namespace, o.Name)
				return ClusterChange{}
			})},
		{&corev1.Pod{}, toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { s.podSet(nil, o.(*corev1.Pod)) },
			UpdateFunc: func(old, now any) { s.podSet(old.(*corev1.Pod), now.(*corev1.Pod)) },
			DeleteFunc: func(o any) { s.podGone(last(o).(*corev1.Pod)) },
		}},
	}, append(s.storageKinds(), s.groupKinds()...)...) {
		inf, err := s.cache.GetInformer(ctx, w.obj)
		if (meta.IsNoMatchError(err) || runtime.IsNotRegisteredError(err)) && !needed(w.obj) {
			continue // a server may do without the storage, policy and apps groups
		}
		if err != nil {
			return synced, stop, fmt.Errorf("scheduler: informer for %T: %w", w.obj, err)
		}
		reg, err := inf.AddEventHandler(w.handlers)
		if err != nil {
			return synced, stop, fmt.Errorf("scheduler: informer for %T: %w", w.obj, err)
		}
		undo = append(undo, func() { _ = inf.RemoveEventHandler(reg) })
		synced = append(synced, reg.HasSynced)
	}
	return synced, stop, nil
}

// needed reports whether nothing can be decided without that kind.
func needed(obj client.Object) bool {
	switch obj.(type) {
	case *corev1.Node, *corev1.Pod, *corev1.Namespace:
		return true
	}
	return false
}

func last(o any) any {
	if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		return gone.Obj
	}
	return o
}

// nodeSet ignores heartbeats: what plugins look at hasn't changed.
func (s *Scheduler) nodeSet(old, n *corev1.Node) {
	if old != nil && sameNode(old, n) {
		return
	}
	s.mu.Lock()
	s.helped(s.engine.SetNode(n))
	s.mu.Unlock()
	s.kick()
}

func sameNode(a, b *corev1.Node) bool {
	return a.Spec.Unschedulable == b.Spec.Unschedulable && slices.Equal(a.Spec.Taints, b.Spec.Taints) &&
		maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) &&
		equality.Semantic.DeepEqual(a.Status.Allocatable, b.Status.Allocatable) &&
		equality.Semantic.DeepEqual(a.Status.Images, b.Status.Images) &&
		slices.EqualFunc(a.Status.Conditions, b.Status.Conditions, func(x, y corev1.NodeCondition) bool { return x.Type == y.Type && x.Status == y.Status })
}

func (s *Scheduler) nodeGone(n *corev1.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.engine.DeleteNode(n.Name); c.OldNode != nil {
		s.volumesMoved()
		s.helped(c)
		s.kick()
	}
}

// following keeps one kind of objects current in the engine.
func following[T any](s *Scheduler, set, gone func(T) ClusterChange) toolscache.ResourceEventHandlerFuncs {
	tell := func(o T, change func(T) ClusterChange) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if c := change(o); c != (ClusterChange{}) {
			s.helped(c)
			s.kick()
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { tell(o.(T), set) },
		UpdateFunc: func(_, now any) { tell(now.(T), set) },
		DeleteFunc: func(o any) { tell(last(o).(T), gone) },
	}
}

// podSet sorts a pod into the engine (assigned), the queue (ours, to be assigned), or neither.
func (s *Scheduler) podSet(old, obj *corev1.Pod) {
	if obj.Status.Phase == corev1.PodSucceeded || obj.Status.Phase == corev1.PodFailed {
		s.podGone(obj)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if obj.Spec.NodeName != "" {
		s.queue.remove(obj.UID)
		s.engine.forgetNomination(obj.UID)
		if old != nil && s.engine.Assigned(obj.UID) == obj.Spec.NodeName && sameAssigned(old, obj) {
			s.engine.refreshed(obj)
			if old.Spec.NodeName == "" { // our own decision, which others may have waited for
				s.helped(ClusterChange{AssignedPod: s.engine.pods.of(obj.UID).pod})
				s.kick()
			}
			return
		}
		was := s.engine.Remove(obj.UID)
		pod := NewPod(obj)
		s.engine.Assign(pod, obj.Spec.NodeName)
		if was != nil && !was.Requests.Equal(&pod.Requests) {
			s.helped(ClusterChange{FreedPod: was})
		} else if was == nil {
			s.helped(ClusterChange{AssignedPod: pod})
		} else {
			s.helped(ClusterChange{AssignedPod: pod, OldPod: was})
		}
		s.kick()
		return
	}
	if s.recorders[schedulerName(obj)] == nil {
		return
	}
	if obj.DeletionTimestamp != nil {
		s.pendingGone(obj)
		return
	}
	if s.engine.Assigned(obj.UID) != "" {
		return // decided, and on its way to be bound
	}
	w := s.queue.pods[obj.UID]
	changed := old != nil && !samePending(old, obj)
	if old != nil && !changed && w != nil {
		pod := *w.pod
		pod.Object = obj // a new status, such as our own condition
		w.pod = &pod
	} else {
		s.queue.add(NewPod(obj), s.opts.Clock.Now(), changed)
		w = s.queue.pods[obj.UID]
	}
	s.followNomination(old, w.pod)
	s.kick()
}

// followNomination heeds what the API says of a pod's nominated node. Its saying nothing may be from before our own nomination.
func (s *Scheduler) followNomination(old *corev1.Pod, pod *Pod) {
	node := pod.Object.Status.NominatedNodeName
	if node == "" && (old == nil || old.Status.NominatedNodeName == "") {
		node = s.engine.Nominated(pod.key())
	}
	s.engine.Nominate(pod, node)
}

// pendingGone forgets a pod that waits. If room was made for it, that is there for others now.
func (s *Scheduler) pendingGone(obj *corev1.Pod) {
	w := s.queue.pods[obj.UID]
	s.queue.remove(obj.UID)
	nominated := s.engine.forgetNomination(obj.UID)
	if w == nil {
		return
	}
	if nominated {
		s.helped(ClusterChange{FreedPod: w.pod})
	}
	s.kick() // its group may have waited for it
}

func samePending(a, b *corev1.Pod) bool {
	return a.Generation == b.Generation && maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) &&
		equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

// sameAssigned reports that nothing changed of an assigned pod that anybody's placement depends on.
func sameAssigned(a, b *corev1.Pod) bool {
	return a.Generation == b.Generation && maps.Equal(a.Labels, b.Labels) && a.DeletionTimestamp.Equal(b.DeletionTimestamp) && a.Status.StartTime.Equal(b.Status.StartTime) &&
		sameAllocated(a.Status.ContainerStatuses, b.Status.ContainerStatuses) && sameAllocated(a.Status.InitContainerStatuses, b.Status.InitContainerStatuses) &&
		equality.Semantic.DeepEqual(a.Status.AllocatedResources, b.Status.AllocatedResources) && equality.Semantic.DeepEqual(a.Status.Resources, b.Status.Resources) &&
		resourcehelper.IsPodResizeInfeasible(a) == resourcehelper.IsPodResizeInfeasible(b)
}

func sameAllocated(a, b []corev1.ContainerStatus) bool {
	return slices.EqualFunc(a, b, func(x, y corev1.ContainerStatus) bool {
		return equality.Semantic.DeepEqual(x.AllocatedResources, y.AllocatedResources) && equality.Semantic.DeepEqual(x.Resources, y.Resources)
	})
}

func (s *Scheduler) podGone(obj *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	node := s.engine.Assigned(obj.UID)
	reserved := s.queue.pods[obj.UID] != nil // and not known to be bound
	s.pendingGone(obj)
	if was := s.engine.Remove(obj.UID); was != nil {
		if reserved {
			s.engine.Unreserve(was, node)
			s.permits.refuse(obj.UID, &Rejection{})
		}
		s.volumesMoved()
		s.helped(ClusterChange{FreedPod: was})
		s.kick()
	}
}

// helped wakes the pods that a change may make fit. The caller holds mu.
func (s *Scheduler) helped(c ClusterChange) {
	s.changes++
	s.queue.wakeIf(s.opts.Clock.Now(), c.event(), func(w *waiting) bool { return s.engine.Hint(w.pod, w.plugins, c) })
}
