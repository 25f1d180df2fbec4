// Embedded runs two clusters in one process: the first is used by client-go without a socket, the second by a
// controller-runtime manager. Both stop cleanly.
//
//	go run ./examples/embedded
package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/store/memstore"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "embedded:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var clusters []*apiserver.Server
	for range 2 {
		s, err := memstore.New(memstore.Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		srv, err := apiserver.New(s, apiserver.Options{})
		if err != nil {
			return err
		}
		began := time.Now()
		wg.Go(func() { _ = srv.Run(ctx) })
		if err := srv.WaitReady(ctx); err != nil {
			return err
		}
		fmt.Printf("API server ready in %v\n", time.Since(began).Round(time.Millisecond))
		clusters = append(clusters, srv)
	}
	if err := useClientGo(ctx, clusters[0]); err != nil {
		return err
	}
	return useManager(ctx, clusters[1])
}

func useClientGo(ctx context.Context, srv *apiserver.Server) error {
	c, err := kubernetes.NewForConfig(srv.RESTConfig(apiserver.Admin))
	if err != nil {
		return err
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "made-by-client-go"}}
	cm, err = c.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{})
	if err == nil {
		fmt.Println("cluster 1: client-go created", cm.Name, "at resourceVersion", cm.ResourceVersion)
	}
	return err
}

func useManager(ctx context.Context, srv *apiserver.Server) error {
	log.SetLogger(ctrl.Log.WithSink(nil))
	m, err := ctrl.NewManager(srv.RESTConfig(apiserver.Admin), ctrl.Options{Metrics: server.Options{BindAddress: "0"}})
	if err != nil {
		return err
	}
	seen := make(chan string, 100)
	err = ctrl.NewControllerManagedBy(m).For(&corev1.Namespace{}).Complete(reconcile.Func(func(_ context.Context, r reconcile.Request) (reconcile.Result, error) {
		seen <- r.Name
		return reconcile.Result{}, nil
	}))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- m.Start(ctx) }()
	fmt.Println("cluster 2: a controller-runtime manager reconciles namespace", <-seen)
	stop()
	return <-done
}
