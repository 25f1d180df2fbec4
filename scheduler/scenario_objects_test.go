package scheduler_test

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/keelson/keelson/scheduler"
)

// objectKind is a kind of objects, with what applies and what deletes them.
type objectKind struct {
	object client.Object
	set    func(client.Object) scheduler.ClusterChange
	remove func(client.Object) scheduler.ClusterChange
}

// kindOf makes an objectKind of functions for one type.
func kindOf[T client.Object](obj T, set func(T) scheduler.ClusterChange, remove func(T) scheduler.ClusterChange) objectKind {
	return objectKind{
		obj,
		func(o client.Object) scheduler.ClusterChange { return set(o.(T)) },
		func(o client.Object) scheduler.ClusterChange { return remove(o.(T)) },
	}
}

// silent is a function whose doing wakes nobody.
func silent[T any](f func(T)) func(T) scheduler.ClusterChange {
	return func(o T) scheduler.ClusterChange {
		f(o)
		return scheduler.ClusterChange{}
	}
}

// byName and byKey delete what has that name.
func byName[T client.Object](f func(name string)) func(T) scheduler.ClusterChange {
	return silent(func(o T) { f(o.GetName()) })
}

func byKey[T client.Object](f func(namespace, name string)) func(T) scheduler.ClusterChange {
	return silent(func(o T) { f(o.GetNamespace(), o.GetName()) })
}

func (s *scenario) kinds() map[string]objectKind {
	e := s.engine
	return map[string]objectKind{
		"node":                  kindOf(&corev1.Node{}, e.SetNode, func(o *corev1.Node) scheduler.ClusterChange { return e.DeleteNode(o.Name) }),
		"pod":                   kindOf(&corev1.Pod{}, s.setPod, s.removePod),
		"namespace":             kindOf(&corev1.Namespace{}, e.SetNamespace, byName[*corev1.Namespace](e.DeleteNamespace)),
		"service":               kindOf(&corev1.Service{}, silent(e.SetService), byKey[*corev1.Service](e.DeleteService)),
		"replicaset":            kindOf(&appsv1.ReplicaSet{}, silent(e.SetReplicaSet), byKey[*appsv1.ReplicaSet](e.DeleteReplicaSet)),
		"replicationcontroller": kindOf(&corev1.ReplicationController{}, silent(e.SetReplicationController), byKey[*corev1.ReplicationController](e.DeleteReplicationController)),
		"statefulset":           kindOf(&appsv1.StatefulSet{}, silent(e.SetStatefulSet), byKey[*appsv1.StatefulSet](e.DeleteStatefulSet)),
		"pdb":                   kindOf(&policyv1.PodDisruptionBudget{}, silent(e.SetPDB), byKey[*policyv1.PodDisruptionBudget](e.DeletePDB)),
		"podgroup":              kindOf(&schedulingv1beta1.PodGroup{}, e.SetPodGroup, byKey[*schedulingv1beta1.PodGroup](e.DeletePodGroup)),
		"pvc":                   kindOf(&corev1.PersistentVolumeClaim{}, e.SetClaim, byKey[*corev1.PersistentVolumeClaim](e.DeleteClaim)),
		"pv":                    kindOf(&corev1.PersistentVolume{}, e.SetVolume, byName[*corev1.PersistentVolume](e.DeleteVolume)),
		"storageclass":          kindOf(&storagev1.StorageClass{}, e.SetStorageClass, byName[*storagev1.StorageClass](e.DeleteStorageClass)),
		"csinode":               kindOf(&storagev1.CSINode{}, e.SetCSINode, byName[*storagev1.CSINode](e.DeleteCSINode)),
		"csidriver":             kindOf(&storagev1.CSIDriver{}, e.SetCSIDriver, func(o *storagev1.CSIDriver) scheduler.ClusterChange { return e.DeleteCSIDriver(o.Name) }),
		"csistoragecapacity":    kindOf(&storagev1.CSIStorageCapacity{}, e.SetStorageCapacity, silent(e.DeleteStorageCapacity)),
		"volumeattachment": kindOf(&storagev1.VolumeAttachment{}, silent(e.SetVolumeAttachment), func(o *storagev1.VolumeAttachment) scheduler.ClusterChange {
			return e.DeleteVolumeAttachment(o.Name)
		}),
	}
}

func (s *scenario) setPod(p *corev1.Pod) scheduler.ClusterChange {
	s.pods[p.Namespace+"/"+p.Name] = p
	if p.Spec.NodeName == "" {
		return scheduler.ClusterChange{}
	}
	pod := scheduler.NewPod(p)
	s.engine.Assign(pod, p.Spec.NodeName)
	return scheduler.ClusterChange{AssignedPod: pod}
}

func (s *scenario) removePod(p *corev1.Pod) scheduler.ClusterChange {
	delete(s.pods, p.Namespace+"/"+p.Name)
	s.queue.Remove(p.UID)
	s.engine.Nominate(scheduler.NewPod(p), "")
	return scheduler.ClusterChange{FreedPod: s.engine.Remove(p.UID)}
}

func (s *scenario) apply(line string) {
	kind, _, _ := strings.Cut(line, " ")
	s.changed(s.kinds()[kind].set(s.parse(line)))
}

func (s *scenario) remove(line string) {
	kind, rest, _ := strings.Cut(line, " ")
	k, ok := s.kinds()[kind]
	if !ok {
		s.Fatalf("%s: no such kind", line)
	}
	name := s.name(rest)
	k.object.SetName(name.Name)
	k.object.SetNamespace(name.Namespace)
	k.object.SetUID(types.UID(name.String()))
	s.changed(k.remove(k.object))
}

// parse reads an object's line.
func (s *scenario) parse(line string) client.Object {
	head, body, _ := strings.Cut(line, " : ")
	words := strings.Fields(head)
	k, ok := s.kinds()[words[0]]
	if !ok || len(words) < 2 {
		s.Fatalf("%s: want KIND NAME, with a kind of %v", line, slices.Sorted(maps.Keys(s.kinds())))
	}
	o := k.object
	if body != "" {
		if err := yaml.UnmarshalStrict(bytes.TrimSpace([]byte(body)), o); err != nil {
			s.Fatalf("%s: %v", line, err)
		}
	}
	name := s.name(words[1])
	o.SetName(name.Name)
	switch o.(type) {
	case *corev1.Node, *corev1.Namespace, *corev1.PersistentVolume, *storagev1.StorageClass, *storagev1.CSINode, *storagev1.CSIDriver, *storagev1.VolumeAttachment:
	default:
		o.SetNamespace(name.Namespace)
	}
	o.SetUID(types.UID(name.String()))
	amounts := corev1.ResourceList{}
	set := maps.Clone(o.GetLabels())
	if set == nil {
		set = map[string]string{}
	}
	for _, w := range words[2:] {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			s.Fatalf("%s: %s: want NAME=VALUE", line, w)
		}
		pod, isPod := o.(*corev1.Pod)
		group, isGroup := o.(*schedulingv1beta1.PodGroup)
		switch {
		case key == "cpu" || key == "memory" || key == "pods":
			amounts[corev1.ResourceName(key)] = resource.MustParse(value)
		case key == "zone":
			set[corev1.LabelTopologyZone] = value
		case isPod && key == "on":
			pod.Spec.NodeName = value
		case isPod && key == "group":
			pod.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &value}
		case isPod && key == "priority":
			pod.Spec.Priority = s.number(value)
		case isGroup && key == "priority":
			group.Spec.Priority = s.number(value)
		case isGroup && key == "min":
			group.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: *s.number(value)}
		default:
			set[key] = value
		}
	}
	switch o := o.(type) {
	case *corev1.Node:
		all := corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")}
		maps.Copy(all, o.Status.Allocatable)
		maps.Copy(all, amounts)
		o.Status.Allocatable = all
		if _, ok := set[corev1.LabelHostname]; !ok {
			set[corev1.LabelHostname] = o.Name
		}
	case *corev1.Pod:
		if len(o.Spec.Containers) == 0 {
			o.Spec.Containers = []corev1.Container{{Name: "c", Image: "c"}}
		}
		if len(amounts) > 0 {
			o.Spec.Containers[0].Resources.Requests = amounts
		}
	}
	o.SetLabels(set)
	return o
}

func (s *scenario) number(text string) *int32 {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		s.Fatal(err)
	}
	return ptr.To(int32(n))
}
