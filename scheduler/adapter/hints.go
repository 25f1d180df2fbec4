package adapter

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/keelson/keelson/scheduler"
)

// happened is an event in the framework's words.
type happened struct {
	resource fwk.EventResource
	action   fwk.ActionType
	old, now any
}

// Hint implements scheduler.Hinter.
func (p *Plugin) Hint(pod *scheduler.Pod, c scheduler.ClusterChange) bool {
	if p.events == nil || p.failed.has(pod.Object.UID) {
		return true
	}
	h, ok := translate(c)
	if !ok {
		return true
	}
	for _, e := range p.events {
		if !matches(e.Event, h) {
			continue
		}
		if e.QueueingHintFn == nil {
			return true
		}
		if hint, err := e.QueueingHintFn(klog.New(p.f.opts.Logger.GetSink()), pod.Object, h.old, h.now); err != nil || hint == fwk.Queue {
			return true
		}
	}
	return false
}

func matches(e fwk.ClusterEvent, h happened) bool {
	resource := e.Resource == h.resource || e.Resource == fwk.WildCard || h.resource == fwk.AssignedPod && e.Resource == fwk.Pod
	return resource && e.ActionType&h.action != 0
}

// translate is false for what the framework has no word for.
func translate(c scheduler.ClusterChange) (happened, bool) {
	switch {
	case c.Node != nil && c.OldNode != nil:
		return happened{fwk.Node, nodeActions(c.OldNode, c.Node), c.OldNode.Object, c.Node.Object}, true
	case c.Node != nil:
		return happened{fwk.Node, fwk.Add, nil, c.Node.Object}, true
	case c.OldNode != nil:
		return happened{fwk.Node, fwk.Delete, c.OldNode.Object, nil}, true
	case c.FreedPod != nil:
		return happened{fwk.AssignedPod, fwk.Delete | fwk.UpdatePodScaleDown, c.FreedPod.Object, nil}, true
	case c.AssignedPod != nil && c.OldPod != nil:
		return happened{fwk.AssignedPod, fwk.UpdatePodLabel | fwk.UpdatePodScaleDown | fwk.UpdatePodScaleUp | fwk.UpdatePodToleration, c.OldPod.Object, c.AssignedPod.Object}, true
	case c.AssignedPod != nil:
		return happened{fwk.AssignedPod, fwk.Add, nil, c.AssignedPod.Object}, true
	}
	return storage(c)
}

func storage(c scheduler.ClusterChange) (happened, bool) {
	switch {
	case c.Claim != nil:
		return object(fwk.PersistentVolumeClaim, c.OldClaim, c.Claim)
	case c.Volume != nil:
		return object(fwk.PersistentVolume, c.OldVolume, c.Volume)
	case c.StorageClass != nil:
		return object(fwk.StorageClass, c.OldStorageClass, c.StorageClass)
	case c.CSINode != nil:
		return object(fwk.CSINode, c.OldCSINode, c.CSINode)
	case c.StorageCapacity != nil:
		return object(fwk.CSIStorageCapacity, c.OldStorageCapacity, c.StorageCapacity)
	case c.CSIDriver != nil:
		return object(fwk.CSIDriver, c.OldCSIDriver, c.CSIDriver)
	case c.OldCSIDriver != nil:
		return happened{fwk.CSIDriver, fwk.Delete, c.OldCSIDriver, nil}, true
	case c.GoneAttachment != nil:
		return happened{fwk.VolumeAttachment, fwk.Delete, c.GoneAttachment, nil}, true
	}
	return happened{}, false
}

func object[T any](resource fwk.EventResource, old, now *T) (happened, bool) {
	if old == nil {
		return happened{resource, fwk.Add, nil, now}, true
	}
	return happened{resource, fwk.Update, old, now}, true
}

func nodeActions(old, now *scheduler.Node) (a fwk.ActionType) {
	o, n := old.Object, now.Object
	add := func(changed bool, action fwk.ActionType) {
		if changed {
			a |= action
		}
	}
	add(!old.Allocatable.Equal(&now.Allocatable), fwk.UpdateNodeAllocatable)
	add(!maps.Equal(o.Labels, n.Labels), fwk.UpdateNodeLabel)
	add(o.Spec.Unschedulable != n.Spec.Unschedulable || !equality.Semantic.DeepEqual(o.Spec.Taints, n.Spec.Taints), fwk.UpdateNodeTaint)
	add(!equality.Semantic.DeepEqual(o.Status.Conditions, n.Status.Conditions), fwk.UpdateNodeCondition)
	add(!maps.Equal(o.Annotations, n.Annotations), fwk.UpdateNodeAnnotation)
	add(!slices.Equal(o.Status.DeclaredFeatures, n.Status.DeclaredFeatures), fwk.UpdateNodeDeclaredFeature)
	return a
}
