package core_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/store/boltstore"
)

// BenchmarkDurable creates 10,000 pods from 64 clients in the durable store, and deletes them as a collection.
func BenchmarkDurable(b *testing.B) {
	for range b.N {
		s, err := boltstore.Open(filepath.Join(b.TempDir(), "db"), boltstore.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		c := start(b, core.Options{Store: s})
		tg := target(b, c, "pods", "ns", "")
		var next atomic.Int64
		var wg sync.WaitGroup
		begin := b.Elapsed()
		for range 64 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := next.Add(1); i <= 10000; i = next.Add(1) {
					if _, err := c.Create(context.Background(), tg, benchPod(fmt.Sprintf("p%05d", i)), metav1.CreateOptions{}); err != nil {
						b.Error(err)
					}
				}
			}()
		}
		wg.Wait()
		b.ReportMetric(10000/(b.Elapsed()-begin).Seconds(), "creates/s")
		begin = b.Elapsed()
		if _, err := c.DeleteCollection(context.Background(), tg, metav1.DeleteOptions{}, core.ListOptions{}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric((b.Elapsed() - begin).Seconds(), "s/deletecollection")
	}
}
