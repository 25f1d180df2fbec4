// Customproxy is a data plane of its own for Services: it prints what it is told to do.
//
//	go run ./examples/customproxy
//
// A real one runs proxytest.Run on itself.
package main

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/examples/internal/compose"
	"github.com/keelson/keelson/proxy"
)

// printing is the backend.
type printing struct{ changes chan proxy.Change }

// Apply implements proxy.Backend.
func (p printing) Apply(ctx context.Context, c proxy.Change) error {
	for _, sp := range c.Set {
		fmt.Printf("%s: %s port %d → %v\n", sp.Key, sp.ClusterIP, sp.Port, sp.Internal)
	}
	for _, k := range c.Removed {
		fmt.Printf("%s is gone\n", k)
	}
	select {
	case p.changes <- c:
	case <-ctx.Done():
	}
	return nil
}

// Close implements proxy.Backend.
func (printing) Close() error { return nil }

func main() {
	compose.Main("customproxy", run)
}

func run(ctx context.Context) error {
	return compose.Demo(ctx, compose.Options{}, func(ctx context.Context, c *compose.Cluster) error {
		backend := printing{make(chan proxy.Change)}
		cache := c.Server.Cache(apiserver.Admin)
		p, err := proxy.New(cache, backend, proxy.Options{NodeName: "here"})
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		wg.Go(func() { _ = cache.Start(ctx) })
		wg.Go(func() { _ = p.Run(ctx) })
		<-backend.changes
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		api := c.Server.Client(apiserver.Admin)
		if err := api.Create(ctx, svc); err != nil {
			return err
		}
		<-backend.changes
		if err := api.Delete(ctx, svc); err != nil {
			return err
		}
		<-backend.changes
		return nil
	})
}
