// Customreconciler runs a reconciler of its own beside the built-in controllers: it gives every namespace a ConfigMap.
//
//	go run ./examples/customreconciler
package main

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/examples/internal/compose"
)

// welcome is the reconciler; it would run in any controller-runtime manager too.
type welcome struct{ client.Client }

// Reconcile implements controller.Reconciler.
func (w welcome) Reconcile(ctx context.Context, r controller.Request) (controller.Result, error) {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.Name, Name: "welcome"}, Data: map[string]string{"namespace": r.Name}}
	return controller.Result{}, client.IgnoreAlreadyExists(w.Create(ctx, cm))
}

func main() {
	compose.Main("customreconciler", run)
}

func run(ctx context.Context) error {
	return compose.Demo(ctx, compose.Options{}, func(ctx context.Context, c *compose.Cluster) error {
		api, cache := c.Server.Client(apiserver.Admin), c.Server.Cache(apiserver.Admin)
		runner, err := controller.New("welcome", api, cache, welcome{api}, controller.Options{Sources: []controller.Source{controller.For(&corev1.Namespace{})}})
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		wg.Go(func() { _ = cache.Start(ctx) })
		wg.Go(func() { _ = runner.Run(ctx) })
		if err := api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "new"}}); err != nil {
			return err
		}
		var cm corev1.ConfigMap
		err = compose.Poll(ctx, func() (bool, error) {
			err := api.Get(ctx, types.NamespacedName{Namespace: "new", Name: "welcome"}, &cm)
			return err == nil, client.IgnoreNotFound(err)
		})
		if err == nil {
			fmt.Printf("namespace new was given ConfigMap %s by the reconciler\n", cm.Name)
		}
		return err
	})
}
