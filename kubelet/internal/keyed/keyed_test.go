package keyed

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
)

func TestOneAtATimePerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var busy [8]atomic.Int32
		var all, most atomic.Int32
		var mu sync.Mutex
		done := map[int]int{}
		q := New(clock.RealClock{}, 3, func(_ context.Context, k int) {
			if busy[k].Add(1) > 1 {
				t.Error("one key twice at once")
			}
			n := all.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
			all.Add(-1)
			busy[k].Add(-1)
			mu.Lock()
			done[k]++
			mu.Unlock()
		})
		ended := make(chan error)
		go func() { ended <- q.Run(ctx) }()
		for range 5 {
			for k := range 8 {
				q.Add(k)
			}
			time.Sleep(1500 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for k := range 8 {
			if done[k] < 2 || done[k] > 5 {
				t.Errorf("key %d worked on %d times", k, done[k])
			}
		}
		if most.Load() != 3 {
			t.Errorf("%d at a time, want 3", most.Load())
		}
		if len(q.entries) != 0 || q.workers != 0 {
			t.Errorf("idle queue holds %d entries, %d workers", len(q.entries), q.workers)
		}
		cancel()
		<-ended
	})
}

func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var mu sync.Mutex
		var got []string
		q := New(clock.RealClock{}, 3, func(_ context.Context, k string) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, k+time.Since(start).String())
		})
		ended := make(chan error)
		go func() { ended <- q.Run(ctx) }()
		q.AddAt("b", start.Add(2*time.Minute))
		q.AddAt("a", start.Add(3*time.Minute))
		q.AddAt("a", start.Add(time.Minute))
		q.AddAt("a", start.Add(5*time.Minute))
		q.AddAt("c", start.Add(90*time.Second))
		q.Cancel("c")
		time.Sleep(time.Hour)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(got) != 2 || got[0] != "a1m0s" || got[1] != "b2m0s" {
			t.Errorf("got %v", got)
		}
		cancel()
		<-ended
	})
}
