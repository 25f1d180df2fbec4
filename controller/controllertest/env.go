package controllertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Env is one test's cluster in virtual time.
type Env struct {
	*testing.T
	Ctx     context.Context
	Cluster *Cluster
	Client  client.WithWatch
	Cache   cache.Cache

	wg sync.WaitGroup
}

// Run runs f in a bubble of virtual time (testing/synctest) with a cluster
// holding objs and a running cache. When f returns, everything started ends.
func Run(t *testing.T, f func(*Env), objs ...client.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cluster := NewCluster(objs...)
		e := &Env{T: t, Ctx: ctx, Cluster: cluster, Client: cluster.Client()}
		cc, err := NewCache(e.Client)
		if err != nil {
			t.Fatal(err)
		}
		e.Cache = cc
		e.Start(cc.Start)
		defer e.wg.Wait()
		defer cancel()
		f(e)
	})
}

// Start runs a function, such as a controller's Run, beside the test until it ends.
func (e *Env) Start(run func(context.Context) error) {
	e.wg.Go(func() {
		if err := run(e.Ctx); err != nil && !errors.Is(err, context.Canceled) {
			e.Errorf("a started function failed: %v", err)
		}
	})
}

// Settle lets everything work until it only waits for the distant future: two
// virtual seconds cover immediate retries.
func (e *Env) Settle() { e.Advance(2 * time.Second) }

// Advance lets virtual time pass, then waits until nothing moves.
func (e *Env) Advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Check fails the test on an error.
func (e *Env) Check(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// Create creates objects, in the order given.
func (e *Env) Create(objs ...client.Object) {
	e.Helper()
	for _, o := range objs {
		if err := e.Client.Create(e.Ctx, o); err != nil {
			e.Fatalf("creating %T %s: %v", o, o.GetName(), err)
		}
	}
}

// Events returns "reason: message" of all events recorded, oldest first.
func (e *Env) Events() []string {
	var out []string
	for _, ev := range All[*corev1.Event](e.Cluster) {
		out = append(out, fmt.Sprintf("%s: %s", ev.Reason, ev.Message))
	}
	return out
}

// Pods starts a kubelet of sorts: it calls f with every pod that was created
// or changed and stores the status f returns, if any. It ends deletions of
// pods that wait for their grace period. Faults of React do not touch it.
func (e *Env) Pods(f func(*corev1.Pod) *corev1.PodStatus) {
	w, err := e.Client.Watch(e.Ctx, &corev1.PodList{}, &client.ListOptions{})
	e.Check(err)
	e.wg.Go(func() {
		defer w.Stop()
		for ev := range w.ResultChan() {
			pod, ok := ev.Object.(*corev1.Pod)
			if !ok || ev.Type == watch.Deleted {
				continue
			}
			if pod.DeletionTimestamp != nil {
				e.Cluster.finishPod(pod)
				continue
			}
			if s := f(pod.DeepCopy()); s != nil {
				e.Cluster.setPodStatus(pod, s)
			}
		}
	})
}

// Bind puts a pod on a node, as a scheduler does, unless it is gone by now.
func (c *Cluster) Bind(pod *corev1.Pod, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gvk := corev1.SchemeGroupVersion.WithKind("Pod")
	cur, ok := c.objects[gvk][client.ObjectKeyFromObject(pod)]
	if !ok || cur.GetUID() != pod.UID {
		return
	}
	bound := cur.DeepCopyObject().(*corev1.Pod)
	bound.Spec.NodeName = node
	c.store(gvk, bound)
}

// Ready is a status for Pods that makes every pod run and be ready.
func Ready(pod *corev1.Pod) *corev1.PodStatus {
	if pod.Status.Phase != "" && pod.Status.Phase != corev1.PodPending {
		return nil
	}
	return ReadyStatus("10.0.0.1")
}
