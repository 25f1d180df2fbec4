package sim

import (
	"fmt"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/scheduler"
)

// objects are those of the cluster besides nodes and pods.
type objects struct {
	version    uint64
	namespaces map[string]map[string]string // labels
	classes    map[string]*storagev1.StorageClass
	csiNodes   map[string]*storagev1.CSINode
	claims     map[string]*corev1.PersistentVolumeClaim // by namespace/name
	volumes    map[string]*corev1.PersistentVolume
	// unbound are claims, in the order in which they came, that wait for a volume and for no pod.
	unbound []string
	making  map[types.UID]bool // a volume for that claim
}

func newObjects() objects {
	return objects{
		namespaces: map[string]map[string]string{}, classes: map[string]*storagev1.StorageClass{}, csiNodes: map[string]*storagev1.CSINode{},
		claims: map[string]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{}, making: map[types.UID]bool{},
	}
}

// stamp gives an object what the API would: another version, and if it has none a UID.
func (s *Simulation) stamp(o client.Object) {
	s.objects.version++
	o.SetResourceVersion(strconv.FormatUint(s.objects.version, 10))
	if o.GetUID() == "" {
		o.SetUID(types.UID("object-" + strconv.FormatUint(s.objects.version, 10)))
	}
}

func keyOf(o client.Object) string { return o.GetNamespace() + "/" + o.GetName() }

// changed wakes the pods that a change may help.
func (s *Simulation) changed(c scheduler.ClusterChange) { s.queue.Changed(c, instant(s.now)) }

// setObject adds or replaces an object that is neither node nor pod.
func (s *Simulation) setObject(obj client.Object) error {
	if obj == nil || obj.GetName() == "" {
		return fmt.Errorf("%v: want an object with a name", SetObject)
	}
	s.log.object(SetObject, obj)
	switch o := obj.(type) {
	case *corev1.Namespace:
		s.setNamespace(o.Name, o.Labels)
	case *storagev1.StorageClass:
		s.objects.classes[o.Name] = o
		s.changed(s.engine.SetStorageClass(o))
		s.settleClaims()
	case *storagev1.CSINode:
		s.objects.csiNodes[o.Name] = o
		s.changed(s.engine.SetCSINode(o))
	case *storagev1.CSIDriver:
		s.changed(s.engine.SetCSIDriver(o))
	case *storagev1.CSIStorageCapacity:
		s.changed(s.engine.SetStorageCapacity(o))
	case *policyv1.PodDisruptionBudget:
		s.engine.SetPDB(o)
	case *corev1.PersistentVolume:
		o = o.DeepCopy()
		if o.Status.Phase == "" && o.Spec.ClaimRef == nil {
			o.Status.Phase = corev1.VolumeAvailable
		}
		s.setVolume(o)
		s.settleClaims()
	case *corev1.PersistentVolumeClaim:
		s.claimCame(o.DeepCopy())
	default:
		return fmt.Errorf("%v: a %T can't be simulated: want one of those that EventKind names", SetObject, obj)
	}
	return nil
}

func (s *Simulation) deleteObject(obj client.Object) error {
	if obj == nil {
		return fmt.Errorf("%v: want an object", DeleteObject)
	}
	s.log.object(DeleteObject, obj)
	switch o := obj.(type) {
	case *corev1.Namespace:
		delete(s.objects.namespaces, o.Name)
		s.engine.DeleteNamespace(o.Name)
	case *storagev1.StorageClass:
		delete(s.objects.classes, o.Name)
		s.engine.DeleteStorageClass(o.Name)
	case *storagev1.CSINode:
		delete(s.objects.csiNodes, o.Name)
		s.engine.DeleteCSINode(o.Name)
	case *storagev1.CSIDriver:
		s.changed(s.engine.DeleteCSIDriver(o.Name))
	case *storagev1.CSIStorageCapacity:
		s.engine.DeleteStorageCapacity(o)
	case *policyv1.PodDisruptionBudget:
		s.engine.DeletePDB(o.Namespace, o.Name)
	case *corev1.PersistentVolume:
		delete(s.objects.volumes, o.Name)
		s.engine.DeleteVolume(o.Name)
	case *corev1.PersistentVolumeClaim:
		s.deleteClaim(keyOf(o))
	default:
		return fmt.Errorf("%v: a %T can't be simulated: want one of those that EventKind names", DeleteObject, obj)
	}
	return nil
}

// namespace makes sure that there is a namespace, with the label that all have.
func (s *Simulation) namespace(name string) {
	if s.objects.namespaces[name] == nil {
		s.setNamespace(name, nil)
	}
}

func (s *Simulation) setNamespace(name string, labels map[string]string) {
	all := map[string]string{}
	maps.Copy(all, labels)
	all[corev1.LabelMetadataName] = name
	s.objects.namespaces[name] = all
	ns := &corev1.Namespace{}
	ns.Name, ns.Labels = name, all
	s.changed(s.engine.SetNamespace(ns))
}
