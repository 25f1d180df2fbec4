package boltstore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keelson/keelson/store"
)

const benchValue = 1500

func benchKey(i int) string {
	return fmt.Sprintf("/registry/pods/namespace-%03d/pod-%06d", i%100, i)
}

// fill puts n keys.
func fill(b testing.TB, s *Store, n int) {
	b.Helper()
	val := make([]byte, benchValue)
	for from := 0; from < n; from += 500 {
		var ops []store.Op
		for i := from; i < min(n, from+500); i++ {
			ops = append(ops, store.Put(benchKey(i), val, store.Any()))
		}
		if _, err := s.Commit(context.Background(), ops...); err != nil {
			b.Fatal(err)
		}
	}
}

// parallel runs f b.N times on that many goroutines.
func parallel(b *testing.B, writers int, f func(i int) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range writers {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}

func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "s"), Options{})
			fill(b, s, 100_000)
			val := make([]byte, benchValue)
			parallel(b, writers, func(i int) error {
				_, err := s.Commit(context.Background(), store.Put(benchKey(i*7919%100_000), val, store.Any()))
				return err
			})
		})
	}
}

// BenchmarkBareLog is what any durable store is measured against: records appended to a file
// that is synced for all that wait.
func BenchmarkBareLog(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "log"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			type entry struct {
				data []byte
				done chan error
			}
			queue := make(chan entry, writers)
			defer close(queue)
			go func() {
				var buf []byte
				var waiting []entry
				for e := range queue {
					buf, waiting = append(buf[:0], e.data...), append(waiting[:0], e)
					for more := true; more; {
						select {
						case e, ok := <-queue:
							if more = ok; ok {
								buf, waiting = append(buf, e.data...), append(waiting, e)
							}
						default:
							more = false
						}
					}
					_, err := f.Write(buf)
					if err == nil {
						err = f.Sync()
					}
					for _, w := range waiting {
						w.done <- err
					}
				}
			}()
			val := make([]byte, benchValue)
			parallel(b, writers, func(i int) error {
				done := make(chan error, 1)
				queue <- entry{append([]byte(benchKey(i)), val...), done}
				return <-done
			})
		})
	}
}

// BenchmarkMemory100000 shows how much memory a store takes, as a part of the data in it.
func BenchmarkMemory100000(b *testing.B) {
	for range b.N {
		heap := func() float64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return float64(m.HeapAlloc)
		}
		before := heap()
		s, err := Open(filepath.Join(b.TempDir(), "s"), Options{})
		if err != nil {
			b.Fatal(err)
		}
		for i := range 100_000 {
			if i%500 == 0 {
				var ops []store.Op
				for j := i; j < i+500; j++ {
					ops = append(ops, store.Put(benchKey(j), make([]byte, benchValue), store.Any()))
				}
				if _, err := s.Commit(context.Background(), ops...); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric((heap()-before)/(100_000*benchValue), "heap/data")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "s"), Options{})
	fill(b, s, 100_000)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		if _, err := s.Get(context.Background(), benchKey(i*7919%100_000), 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList10000(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "s"), Options{})
	fill(b, s, 10_000)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		if _, err := s.List(context.Background(), store.ListOptions{Prefix: "/registry/pods/"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen100000(b *testing.B) {
	path := filepath.Join(b.TempDir(), "s")
	s := open(b, path, Options{})
	fill(b, s, 100_000)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		s, err := Open(path, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}
