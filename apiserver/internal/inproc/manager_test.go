package inproc_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/core/coretest"
	"github.com/keelson/keelson/apiserver/internal/inproc"
)

// TestManager runs an unmodified controller-runtime manager, whose reconciler labels every pod.
func TestManager(t *testing.T) {
	co := coretest.Start(t, core.Options{})
	c := newClient(t, co)
	mgr, err := manager.New(&rest.Config{Host: "in.process"}, manager.Options{
		Scheme: co.Scheme(), Logger: logr.Discard(),
		Metrics:        metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return c.RESTMapper(), nil },
		NewCache: func(*rest.Config, cache.Options) (cache.Cache, error) {
			return inproc.NewCache(co, admin, inproc.CacheOptions{}), nil
		},
		NewClient: func(_ *rest.Config, o client.Options) (client.Client, error) { return c, nil },
	})
	must(t, err)
	skip := true
	ctl, err := controller.New("labels", mgr, controller.Options{
		SkipNameValidation: &skip,
		Reconciler: reconcile.Func(func(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
			var p corev1.Pod
			if err := mgr.GetCache().Get(ctx, r.NamespacedName, &p); err != nil {
				return reconcile.Result{}, client.IgnoreNotFound(err)
			}
			if p.Labels["seen"] == "yes" {
				return reconcile.Result{}, nil
			}
			metav1.SetMetaDataLabel(&p.ObjectMeta, "seen", "yes")
			return reconcile.Result{}, mgr.GetClient().Update(ctx, &p)
		}),
	})
	must(t, err)
	must(t, ctl.Watch(source.Kind(mgr.GetCache(), &corev1.Pod{}, &handler.TypedEnqueueRequestForObject[*corev1.Pod]{})))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("manager: %v", err)
		}
	}()
	for i := range 20 {
		must(t, c.Create(ctx, pod("ns", fmt.Sprint("p", i), "")))
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var l corev1.PodList
		must(t, c.List(ctx, &l, client.MatchingLabels{"seen": "yes"}))
		if len(l.Items) == 20 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d of 20 pods were reconciled", len(l.Items))
		}
	}
}
