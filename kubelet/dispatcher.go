package kubelet

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// Dispatcher hands the pods of one informer to kubelets, each its own node's: an event costs one look-up however
// many kubelets there are. Start it with Run before the kubelets or beside them.
type Dispatcher struct {
	cache cache.Cache
	only  string // a node name, if the dispatcher serves one kubelet only

	mu     sync.Mutex
	pods   map[string]map[types.UID]*corev1.Pod // by node
	subs   map[string]func(*corev1.Pod, bool)   // by node
	synced chan struct{}
}

// NewDispatcher makes a dispatcher over a cache that has all pods, or those of the nodes that will be served.
func NewDispatcher(c cache.Cache) (*Dispatcher, error) {
	if c == nil {
		return nil, errors.New("kubelet: NewDispatcher expects a cache")
	}
	return &Dispatcher{cache: c, pods: map[string]map[types.UID]*corev1.Pod{}, subs: map[string]func(*corev1.Pod, bool){}, synced: make(chan struct{})}, nil
}

// Run hands out pods until ctx ends, which is no error.
func (d *Dispatcher) Run(ctx context.Context) error {
	informer, err := d.cache.GetInformer(ctx, &corev1.Pod{})
	if err != nil {
		return fmt.Errorf("kubelet: pods: %w", err)
	}
	reg, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { d.event(obj, false) },
		UpdateFunc: func(_, obj any) { d.event(obj, false) },
		DeleteFunc: func(obj any) {
			if t, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
				obj = t.Obj
			}
			d.event(obj, true)
		},
	})
	if err != nil {
		return fmt.Errorf("kubelet: pods: %w", err)
	}
	defer func() { _ = informer.RemoveEventHandler(reg) }()
	if !toolscache.WaitForCacheSync(ctx.Done(), reg.HasSynced) {
		return nil
	}
	close(d.synced)
	<-ctx.Done()
	return nil
}

func (d *Dispatcher) event(obj any, deleted bool) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" || d.only != "" && pod.Spec.NodeName != d.only {
		return
	}
	node := pod.Spec.NodeName
	d.mu.Lock()
	defer d.mu.Unlock()
	pods := d.pods[node]
	if deleted {
		delete(pods, pod.UID)
		if len(pods) == 0 {
			delete(d.pods, node)
		}
	} else {
		if pods == nil {
			pods = map[types.UID]*corev1.Pod{}
			d.pods[node] = pods
		}
		pods[pod.UID] = pod
	}
	if f := d.subs[node]; f != nil {
		f(pod, deleted)
	}
}

// subscribe calls f with every pod of a node there is and every later change, one at a time. f must not block.
func (d *Dispatcher) subscribe(node string, f func(pod *corev1.Pod, deleted bool)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.subs[node] != nil {
		return fmt.Errorf("kubelet: two kubelets for node %q", node)
	}
	d.subs[node] = f
	for _, pod := range d.pods[node] {
		f(pod, false)
	}
	return nil
}

func (d *Dispatcher) unsubscribe(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.subs, node)
}
