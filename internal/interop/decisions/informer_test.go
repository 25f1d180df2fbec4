package decisions

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// informer tells kube-scheduler of objects at once, in the caller's goroutine, where client-go's own tells a moment later in goroutines of its own.
type informer struct {
	cache.SharedIndexInformer // of which nothing but the store is used
	handlers                  []cache.ResourceEventHandler
}

func (i *informer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	i.handlers = append(i.handlers, h)
	known := i.GetStore().List()
	slices.SortFunc(known, func(a, b any) int { return cmp.Compare(told(a), told(b)) })
	for _, o := range known {
		h.OnAdd(o, true)
	}
	return i.SharedIndexInformer.AddEventHandler(cache.ResourceEventHandlerFuncs{}) // for a registration
}

// told is when an object was told of: resource versions count.
func told(o any) int {
	n, _ := strconv.Atoi(o.(client.Object).GetResourceVersion())
	return n
}

func (i *informer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, _ time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandler(h)
}

func (i *informer) AddEventHandlerWithOptions(h cache.ResourceEventHandler, _ cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandler(h)
}

func (i *informer) HasSynced() bool { return true }

// GetIndexer is what listers read from: kube-scheduler counts PodDisruptionBudgets in the order in which they are listed, which is at random otherwise.
func (i *informer) GetIndexer() cache.Indexer { return inOrder{i.SharedIndexInformer.GetIndexer()} }

func (i *informer) GetStore() cache.Store { return i.GetIndexer() }

// inOrder lists by key.
type inOrder struct{ cache.Indexer }

func (x inOrder) List() []any { return byKey(x.Indexer.List()) }

func (x inOrder) Index(name string, obj any) ([]any, error) {
	out, err := x.Indexer.Index(name, obj)
	return byKey(out), err
}

func (x inOrder) ByIndex(name, value string) ([]any, error) {
	out, err := x.Indexer.ByIndex(name, value)
	return byKey(out), err
}

func byKey(objects []any) []any {
	key := func(o any) string { return client.ObjectKeyFromObject(o.(client.Object)).String() }
	slices.SortFunc(objects, func(a, b any) int { return cmp.Compare(key(a), key(b)) })
	return objects
}

func (i *informer) set(obj client.Object) error {
	old, known, err := i.GetStore().Get(obj)
	if err != nil {
		return err
	}
	if err := i.GetStore().Update(obj); err != nil {
		return err
	}
	for _, h := range i.handlers {
		if known {
			h.OnUpdate(old, obj)
		} else {
			h.OnAdd(obj, false)
		}
	}
	return nil
}

func (i *informer) remove(obj client.Object) error {
	old, known, err := i.GetStore().Get(obj)
	if err != nil || !known {
		return err
	}
	if err := i.GetStore().Delete(old); err != nil {
		return err
	}
	for _, h := range i.handlers {
		h.OnDelete(old)
	}
	return nil
}

// newInformers puts informers of that kind into a factory, for all that the cases have.
func newInformers(f informers.SharedInformerFactory) map[reflect.Type]*informer {
	out := map[reflect.Type]*informer{}
	for _, obj := range []client.Object{
		&corev1.Pod{}, &corev1.Node{}, &corev1.Namespace{}, &corev1.Service{}, &corev1.ReplicationController{}, &appsv1.ReplicaSet{}, &appsv1.StatefulSet{},
		&policyv1.PodDisruptionBudget{}, &corev1.PersistentVolume{}, &corev1.PersistentVolumeClaim{}, &storagev1.StorageClass{}, &storagev1.CSINode{},
		&storagev1.CSIDriver{}, &storagev1.CSIStorageCapacity{}, &storagev1.VolumeAttachment{}, &schedulingv1beta1.PodGroup{},
	} {
		i := &informer{SharedIndexInformer: cache.NewSharedIndexInformer(&cache.ListWatch{}, obj, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})}
		f.InformerFor(obj, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer { return i })
		out[reflect.TypeOf(obj)] = i
	}
	return out
}
