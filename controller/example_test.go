package controller_test

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller"
	"github.com/keelson/keelson/controller/controllertest"
)

// A reconciler that greets every ConfigMap, run until its work is done. Any
// client and cache do; here they are those of a cluster in memory.
func Example() {
	c := controllertest.NewCluster(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "world"}}).Client()
	cache, err := controllertest.NewCache(c)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	greet := controller.Func(func(ctx context.Context, req controller.Request) (controller.Result, error) {
		cm := &corev1.ConfigMap{}
		if err := cache.Get(ctx, req.NamespacedName, cm); err != nil {
			return controller.Result{}, client.IgnoreNotFound(err)
		}
		fmt.Println("hello,", cm.Name)
		cancel()
		return controller.Result{}, nil
	})
	r, err := controller.New("greeter", c, cache, greet, controller.Options{
		Sources: []controller.Source{controller.For(&corev1.ConfigMap{})},
	})
	if err != nil {
		panic(err)
	}
	if err := controller.RunAll(ctx, cache.Start, r.Run); err != nil {
		panic(err)
	}
	// Output: hello, world
}
