package scheduler

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Snapshot reads a cluster once and returns an engine in its state, for Explain, Fit and simulations, and the pods that wait for a node. Objects of the reader are
// kept and not modified. It only reads: it needs no more rights than to list what the scheduler watches.
func Snapshot(ctx context.Context, r client.Reader, opts EngineOptions) (*Engine, []*corev1.Pod, error) {
	e, err := NewEngine(opts)
	if err != nil {
		return nil, nil, err
	}
	var pending []*corev1.Pod
	for _, k := range []struct {
		list client.ObjectList
		// optional kinds may be missing: a server may do without the storage and apps groups.
		optional bool
		put      func(client.Object)
	}{
		{&corev1.NodeList{}, false, func(o client.Object) { e.SetNode(o.(*corev1.Node)) }},
		{&corev1.NamespaceList{}, false, func(o client.Object) { e.SetNamespace(o.(*corev1.Namespace)) }},
		{&corev1.PersistentVolumeClaimList{}, true, func(o client.Object) { e.SetClaim(o.(*corev1.PersistentVolumeClaim)) }},
		{&corev1.PersistentVolumeList{}, true, func(o client.Object) { e.SetVolume(o.(*corev1.PersistentVolume)) }},
		{&storagev1.StorageClassList{}, true, func(o client.Object) { e.SetStorageClass(o.(*storagev1.StorageClass)) }},
		{&corev1.ServiceList{}, true, func(o client.Object) { e.SetService(o.(*corev1.Service)) }},
		{&corev1.ReplicationControllerList{}, true, func(o client.Object) { e.SetReplicationController(o.(*corev1.ReplicationController)) }},
		{&appsv1.ReplicaSetList{}, true, func(o client.Object) { e.SetReplicaSet(o.(*appsv1.ReplicaSet)) }},
		{&appsv1.StatefulSetList{}, true, func(o client.Object) { e.SetStatefulSet(o.(*appsv1.StatefulSet)) }},
		{&storagev1.CSINodeList{}, true, func(o client.Object) { e.SetCSINode(o.(*storagev1.CSINode)) }},
		{&storagev1.CSIDriverList{}, true, func(o client.Object) { e.SetCSIDriver(o.(*storagev1.CSIDriver)) }},
		{&storagev1.CSIStorageCapacityList{}, true, func(o client.Object) { e.SetStorageCapacity(o.(*storagev1.CSIStorageCapacity)) }},
		{&storagev1.VolumeAttachmentList{}, true, func(o client.Object) { e.SetVolumeAttachment(o.(*storagev1.VolumeAttachment)) }},
		{&policyv1.PodDisruptionBudgetList{}, true, func(o client.Object) { e.SetPDB(o.(*policyv1.PodDisruptionBudget)) }},
		{&schedulingv1beta1.PodGroupList{}, true, func(o client.Object) { e.SetPodGroup(o.(*schedulingv1beta1.PodGroup)) }},
		{&corev1.PodList{}, false, func(o client.Object) { pending = e.snapshotPod(o.(*corev1.Pod), pending) }},
	} {
		err := r.List(ctx, k.list)
		if k.optional && (meta.IsNoMatchError(err) || apierrors.IsNotFound(err)) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("scheduler: snapshot: list %T: %w", k.list, err)
		}
		err = meta.EachListItem(k.list, func(o runtime.Object) error {
			k.put(o.(client.Object))
			return nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("scheduler: snapshot: %w", err)
		}
	}
	return e, pending, nil
}

// snapshotPod puts a pod where it belongs, and appends it to pending if it waits: then it counts for its group, and for the node it is nominated for.
func (e *Engine) snapshotPod(obj *corev1.Pod, pending []*corev1.Pod) []*corev1.Pod {
	switch {
	case obj.Status.Phase == corev1.PodSucceeded || obj.Status.Phase == corev1.PodFailed:
	case obj.Spec.NodeName != "":
		e.Assign(NewPod(obj), obj.Spec.NodeName)
	case obj.DeletionTimestamp == nil:
		pod := NewPod(obj)
		e.await(pod, 1)
		e.Nominate(pod, obj.Status.NominatedNodeName)
		return append(pending, obj)
	}
	return pending
}
