// Customstore puts a cluster on a store of its own: one that counts what the API server writes, around the one in memory.
//
//	go run ./examples/customstore
//
// A store from scratch implements store.Store's seven methods and runs storetest.Run on itself.
package main

import (
	"context"
	"fmt"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/examples/internal/compose"
	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/memstore"
)

// counting is the store.
type counting struct {
	store.Store
	commits, bytes atomic.Int64
}

// Commit implements store.Store.
func (c *counting) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	c.commits.Add(1)
	for _, op := range ops {
		c.bytes.Add(int64(len(op.Value)))
	}
	return c.Store.Commit(ctx, ops...)
}

func main() {
	compose.Main("customstore", run)
}

func run(ctx context.Context) error {
	m, err := memstore.New(memstore.Options{})
	if err != nil {
		return err
	}
	defer m.Close()
	s := &counting{Store: m}
	return compose.Demo(ctx, compose.Options{Store: s, NoControllers: true, NoScheduler: true}, func(ctx context.Context, c *compose.Cluster) error {
		api := c.Server.Client(apiserver.Admin)
		before, size := s.commits.Load(), s.bytes.Load()
		for i := range 100 {
			if err := api.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", i), Namespace: "default"}}); err != nil {
				return err
			}
		}
		fmt.Printf("100 ConfigMaps took %d commits of %d bytes in all\n", s.commits.Load()-before, s.bytes.Load()-size)
		return nil
	})
}
