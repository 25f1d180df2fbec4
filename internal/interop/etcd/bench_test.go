package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/keelson/keelson/internal/interop/stock"
	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/boltstore"
	"github.com/keelson/keelson/store/etcdserve"
)

// serveEnv makes the test binary a server of the bolt file that it names.
const serveEnv = "KEELSON_BOLT_CHILD"

// serveChild serves a bolt file at CLIENT_URL until its standard input is closed.
func serveChild(file string) (err error) {
	s, err := boltstore.Open(file, boltstore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	srv, err := etcdserve.New(s, etcdserve.Options{})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", strings.TrimPrefix(os.Getenv("CLIENT_URL"), "http://"))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return srv.Serve(ctx, l)
}

const (
	benchKeys = 100_000
	benchTime = 3 * time.Second
)

// engine commits puts of pairs, all or nothing.
type engine struct {
	name string
	put  func(ctx context.Context, pairs map[string]string) error
}

// Durable commits a second of values of 1.5 kB to 100,000 keys, by boltstore through its Go API, by a bare log that is only
// appended to and synced for all that wait, by etcdserve on boltstore through gRPC, and by an etcd of one member through gRPC; all
// with fsync, on one disk, in turns. The ratios are what counts.
func BenchmarkCommits(b *testing.B) {
	value := strings.Repeat("x", 1500)
	engines := []engine{boltEngine(b), logEngine(b), serveEngine(b), etcdEngine(b)}
	for _, e := range engines {
		if err := fill(b.Context(), e, value); err != nil {
			b.Fatal(err)
		}
	}
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			rates := map[string]float64{}
			for b.Loop() {
				for range 2 {
					for _, e := range engines {
						rate, err := measure(b.Context(), e, writers, value)
						if err != nil {
							b.Fatal(err)
						}
						rates[e.name] = max(rates[e.name], rate)
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			for _, e := range engines {
				b.ReportMetric(rates[e.name], e.name+"/s")
			}
			b.ReportMetric(rates["boltstore"]/rates["etcd"], "boltstore:etcd")
			b.ReportMetric(rates["etcdserve"]/rates["etcd"], "etcdserve:etcd")
			b.ReportMetric(rates["boltstore"]/rates["log"], "boltstore:log")
			b.ReportMetric(rates["log"]/rates["etcd"], "log:etcd")
		})
	}
}

func boltEngine(b *testing.B) engine {
	s, err := boltstore.Open(filepath.Join(b.TempDir(), "store"), boltstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return engine{"boltstore", func(ctx context.Context, pairs map[string]string) error {
		var ops []store.Op
		for k, v := range pairs {
			ops = append(ops, store.Put(k, []byte(v), store.Any()))
		}
		_, err := s.Commit(ctx, ops...)
		return err
	}}
}

// logEngine is the least that a durable store can do.
func logEngine(b *testing.B) engine {
	f, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	type entry struct {
		data []byte
		done chan error
	}
	queue := make(chan entry, 64)
	var writer sync.WaitGroup
	writer.Go(func() {
		defer f.Close()
		for e := range queue {
			data, waiting := e.data, []entry{e}
			for len(queue) > 0 {
				e := <-queue
				data, waiting = append(data, e.data...), append(waiting, e)
			}
			_, err := f.Write(data)
			if err == nil {
				err = f.Sync()
			}
			for _, e := range waiting {
				e.done <- err
			}
		}
	})
	b.Cleanup(func() { close(queue); writer.Wait() })
	return engine{"log", func(_ context.Context, pairs map[string]string) error {
		e := entry{done: make(chan error, 1)}
		for k, v := range pairs {
			e.data = append(append(e.data, k...), v...)
		}
		queue <- e
		return <-e.done
	}}
}

func serveEngine(b *testing.B) engine {
	u := freeURL(b)
	s := launch(b, u, serveEnv+"="+filepath.Join(b.TempDir(), "store"))
	b.Cleanup(s.stop)
	if err := s.ready(); err != nil {
		b.Fatal(err)
	}
	return engine{"etcdserve", clientPut(b, u.String())}
}

func etcdEngine(b *testing.B) engine {
	return engine{"etcd", clientPut(b, stock.StartEtcd(b, stock.EtcdOptions{Args: []string{"--quota-backend-bytes=8589934592"}}).URL)}
}

func clientPut(b *testing.B, url string) func(context.Context, map[string]string) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return func(ctx context.Context, pairs map[string]string) error {
		var ops []clientv3.Op
		for k, v := range pairs {
			ops = append(ops, clientv3.OpPut(k, v))
		}
		var err error
		if len(ops) == 1 {
			_, err = c.Do(ctx, ops[0])
		} else {
			_, err = c.Txn(ctx).Then(ops...).Commit()
		}
		return err
	}
}

func benchKey(i int) string { return fmt.Sprintf("/registry/pods/namespace/pod-%06d", i) }

func fill(ctx context.Context, e engine, value string) error {
	for i := 0; i < benchKeys; {
		pairs := map[string]string{}
		for ; i < benchKeys && len(pairs) < 100; i++ {
			pairs[benchKey(i)] = value
		}
		if err := e.put(ctx, pairs); err != nil {
			return err
		}
	}
	return nil
}

// measure returns how many commits a second there are.
func measure(ctx context.Context, e engine, writers int, value string) (float64, error) {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for range writers {
		wg.Go(func() {
			for time.Since(start) < benchTime && failed.Load() == nil {
				if err := e.put(ctx, map[string]string{benchKey(rand.IntN(benchKeys)): value}); err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(done.Load()) / time.Since(start).Seconds(), nil
}
