package scheduler_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is an API server with a scheduler, which has no more rights than Kubernetes gives it.
type cluster struct {
	*testing.T
	client    client.Client
	server    *apiserver.Server
	admin     user.Info
	scheduler *scheduler.Scheduler
	// refuse makes that many bindings fail.
	refuse atomic.Int32
	// single hides that the client can bind pods in batches; answer, if not nil, is what answers a batch; sizes are those of batches, 1 for a single binding.
	single bool
	answer func(ctx context.Context, bindings []corev1.Binding) []error
	mu     sync.Mutex
	sizes  []int
}

// batching is the scheduler's client, which binds in batches as that of the server does.
type batching struct {
	client.Client
	k    *cluster
	next scheduler.BatchBinder
}

func (b batching) BindPods(ctx context.Context, bindings []corev1.Binding) []error {
	b.k.sized(len(bindings))
	if b.k.answer != nil {
		return b.k.answer(ctx, bindings)
	}
	out := make([]error, len(bindings))
	for i := range bindings {
		if b.k.refuse.Add(-1) >= 0 {
			out[i] = errRefused
		} else {
			out[i] = b.next.BindPods(ctx, bindings[i:i+1])[0]
		}
	}
	return out
}

func (k *cluster) sized(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sizes = append(k.sizes, n)
}

var errRefused = errors.New("refused by the test")

func newCluster(t *testing.T) *cluster {
	return newClusterWith(t, scheduler.Options{Profile: plugins.Default()})
}

func newClusterWith(t *testing.T, opts scheduler.Options) *cluster {
	t.Helper()
	k := &cluster{T: t}
	k.start(opts)
	return k
}

func (k *cluster) start(opts scheduler.Options) {
	t := k.T
	t.Helper()
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := apiserver.New(st, apiserver.Options{DisableAdmission: []string{"ServiceAccount"}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 3)
	srvCtx, stopServer := context.WithCancel(context.Background())
	go func() { ended <- srv.Run(srvCtx) }()
	ctx, cancel := context.WithCancel(context.Background())
	running := 1
	t.Cleanup(func() {
		cancel()
		for ; running > 1; running-- {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		stopServer()
		<-ended
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := srv.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.client, k.server, k.admin = srv.Client(apiserver.Admin), srv, apiserver.Admin
	me := &user.DefaultInfo{Name: "system:kube-scheduler", Groups: []string{user.AllAuthenticated}}
	own := srv.Client(me)
	var c client.Client = interceptor.NewClient(own, interceptor.Funcs{
		SubResourceCreate: func(ctx context.Context, c client.Client, sub string, obj, body client.Object, opts ...client.SubResourceCreateOption) error {
			k.sized(1)
			if k.refuse.Add(-1) >= 0 {
				return errRefused
			}
			return c.SubResource(sub).Create(ctx, obj, body, opts...)
		},
	})
	if !k.single {
		c = batching{c, k, own.(scheduler.BatchBinder)}
	}
	cache := srv.Cache(me)
	s, err := scheduler.New(c, cache, opts)
	if err != nil {
		t.Fatal(err)
	}
	k.scheduler = s
	running = 3
	go func() { ended <- cache.Start(ctx) }()
	go func() { ended <- s.Run(ctx) }()
}

func (k *cluster) must(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

func (k *cluster) addNode(name, zone string) {
	k.Helper()
	n := testNode(name, zone)
	status := n.Status
	k.must(k.client.Create(k.Context(), n))
	n.Status = status
	k.must(k.client.Status().Update(k.Context(), n))
	n.Spec.Taints = nil // as the node lifecycle controller does for nodes that are ready
	k.must(k.client.Update(k.Context(), n))
}

func (k *cluster) addPod(name string, mods ...podMod) *corev1.Pod {
	k.Helper()
	p := testPod(name, "web", mods...)
	p.Namespace, p.UID = metav1.NamespaceDefault, ""
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "web", Resources: corev1.ResourceRequirements{Requests: quantities("100m", "")}}}
	k.must(k.client.Create(k.Context(), p))
	return p
}

// wait polls a pod until ok says so.
func (k *cluster) wait(p *corev1.Pod, what string, ok func() bool) {
	k.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		k.must(k.client.Get(k.Context(), client.ObjectKeyFromObject(p), p))
		if ok() {
			return
		}
	}
	k.Fatalf("%s: not %s: node %q, conditions %+v", p.Name, what, p.Spec.NodeName, p.Status.Conditions)
}

func (k *cluster) bound(p *corev1.Pod) {
	k.Helper()
	k.wait(p, "bound", func() bool { return p.Spec.NodeName != "" })
}

func (k *cluster) waiting(p *corev1.Pod, message string) {
	k.Helper()
	k.wait(p, "waiting with "+message, func() bool {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable && strings.HasPrefix(c.Message, message) {
				return true
			}
		}
		return false
	})
}

func (k *cluster) event(p *corev1.Pod, reason, message string) {
	k.Helper()
	k.wait(p, reason+" event", func() bool {
		var list corev1.EventList
		k.must(k.client.List(k.Context(), &list, client.InNamespace(p.Namespace)))
		for _, e := range list.Items {
			if e.InvolvedObject.Name == p.Name && e.Reason == reason && strings.HasPrefix(e.Message, message) {
				return true
			}
		}
		return false
	})
}

func TestScheduler(t *testing.T) {
	t.Run("a node wakes pods", func(t *testing.T) {
		k := newCluster(t)
		p := k.addPod("p")
		k.waiting(p, "no nodes available to schedule pods")
		k.event(p, "FailedScheduling", "no nodes available to schedule pods")
		k.addNode("n", "")
		k.bound(p)
		k.event(p, "Scheduled", "Successfully assigned default/p to n")
	})
	t.Run("a pod's end wakes those it kept away", func(t *testing.T) {
		k := newCluster(t)
		k.addNode("n", "a")
		first := k.addPod("first", away(term("web", zoneKey)))
		k.bound(first)
		second := k.addPod("second")
		k.waiting(second, "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.")
		k.must(k.client.Delete(k.Context(), first, client.GracePeriodSeconds(0)))
		k.bound(second)
	})
	t.Run("pods are spread", func(t *testing.T) {
		k := newCluster(t)
		k.addNode("a", "a")
		k.addNode("b", "b")
		on := map[string]int{}
		for _, name := range []string{"1", "2", "3", "4", "5", "6"} {
			p := k.addPod(name, spreadOver("web", zoneKey))
			k.bound(p)
			on[p.Spec.NodeName]++
		}
		if on["a"] != 3 || on["b"] != 3 {
			t.Error(on)
		}
	})
	t.Run("a claim wakes the pod that waits for it", func(t *testing.T) {
		k := newCluster(t)
		k.addNode("n", "")
		p := k.addPod("p", claiming("c"))
		k.waiting(p, `0/1 nodes are available: persistentvolumeclaim "c" not found.`)
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}}
		claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		claim.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
		k.must(k.client.Create(k.Context(), claim))
		k.waiting(p, "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.")
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}}
		pv.Spec.AccessModes, pv.Spec.Capacity = claim.Spec.AccessModes, claim.Spec.Resources.Requests
		pv.Spec.HostPath = &corev1.HostPathVolumeSource{Path: "/v"}
		k.must(k.client.Create(k.Context(), pv))
		claim.Spec.VolumeName, claim.Annotations = "v", map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
		k.must(k.client.Update(k.Context(), claim))
		claim.Status.Phase = corev1.ClaimBound
		k.must(k.client.Status().Update(k.Context(), claim))
		k.bound(p)
	})
	t.Run("a binding that fails is tried again", func(t *testing.T) {
		k := newCluster(t)
		k.refuse.Store(1)
		k.addNode("n", "")
		p := k.addPod("p")
		k.event(p, "FailedScheduling", "binding rejected: refused by the test")
		k.bound(p)
	})
}
