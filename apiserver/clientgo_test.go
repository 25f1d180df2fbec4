package apiserver_test

import (
	"context"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/store/memstore"
)

// TestStockClients runs a client-go informer, a leader election and a controller-runtime manager as they are, over TLS and in-process.
func TestStockClients(t *testing.T) {
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	srv, err := apiserver.New(s, apiserver.Options{Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = srv.Run(ctx) })
	if err := srv.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := srv.AdminKubeconfig()
	if err != nil {
		t.Fatal(err)
	}
	overTLS, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*rest.Config{"tls": overTLS, "in-process": srv.RESTConfig(apiserver.Admin)} {
		t.Run(name, func(t *testing.T) {
			c, err := kubernetes.NewForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			t.Run("informer", func(t *testing.T) { informer(ctx, t, c) })
			t.Run("leader election", func(t *testing.T) { elect(ctx, t, c, name) })
			t.Run("manager", func(t *testing.T) { manage(ctx, t, config) })
		})
	}
}

func informer(ctx context.Context, t *testing.T, c kubernetes.Interface) {
	ctx, cancel := context.WithCancel(ctx)
	f := informers.NewSharedInformerFactory(c, 0)
	defer f.Shutdown()
	defer cancel()
	events := make(chan string, 100)
	_, err := f.Core().V1().Namespaces().Informer().AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { events <- "add " + o.(*corev1.Namespace).Name },
		UpdateFunc: func(_, o any) { events <- "update " + o.(*corev1.Namespace).Name },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Start(ctx.Done())
	f.WaitForCacheSync(ctx.Done())
	ns, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "informed-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ns.Labels["x"] = "y"
	if _, err := c.CoreV1().Namespaces().Update(ctx, ns, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"add " + ns.Name, "update " + ns.Name} {
		for got := ""; got != want; {
			select {
			case got = <-events:
			case <-ctx.Done():
				t.Fatalf("no event %q", want)
			}
		}
	}
}

func elect(ctx context.Context, t *testing.T, c kubernetes.Interface, name string) {
	var wg sync.WaitGroup
	defer wg.Wait()
	leaders := make(chan string, 10)
	stop := map[string]context.CancelFunc{}
	defer func() {
		for _, f := range stop {
			f()
		}
	}()
	for _, id := range []string{"a", "b"} {
		own, cancel := context.WithCancel(ctx)
		stop[id] = cancel
		e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Namespace: "default", Name: "election-" + name}, Client: c.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: id},
			},
			LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 100 * time.Millisecond, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leaders <- id }, OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { e.Run(own) })
	}
	first := <-leaders
	stop[first]()
	select {
	case second := <-leaders:
		if second == first {
			t.Errorf("%s leads again", second)
		}
	case <-ctx.Done():
		t.Error("nobody took over")
	}
}

func manage(ctx context.Context, t *testing.T, c *rest.Config) {
	skip := true
	m, err := ctrl.NewManager(c, ctrl.Options{Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &skip}})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 100)
	err = ctrl.NewControllerManagedBy(m).For(&corev1.Namespace{}).Complete(reconcile.Func(func(_ context.Context, r reconcile.Request) (reconcile.Result, error) {
		seen <- r.Name
		return reconcile.Result{}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- m.Start(ctx) }()
	for name := ""; name != "kube-system"; {
		select {
		case name = <-seen:
		case <-ctx.Done():
			t.Fatal("kube-system was not reconciled")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
