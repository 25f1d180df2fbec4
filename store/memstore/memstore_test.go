package memstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, opts Options) *Store {
	t.Helper()
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s *Store, key, value string) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), store.Put(key, []byte(value), store.Any()))
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func value(t testing.TB, s *Store, key string, rev int64) string {
	t.Helper()
	res, err := s.Get(t.Context(), key, rev)
	if err != nil {
		t.Fatalf("Get(%q, %d): %v", key, rev, err)
	}
	if res.KV == nil {
		return "-"
	}
	return string(res.KV.Value)
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{History: -1}, {HistoryBytes: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) gives no error", o)
		}
	}
}

func TestFork(t *testing.T) {
	s := open(t, Options{})
	for i := range 700 {
		put(t, s, fmt.Sprintf("k%d", i%10), fmt.Sprint("s", i))
	}
	f := s.Fork()
	t.Cleanup(func() { f.Close() })
	w, err := f.Watch(t.Context(), store.WatchOptions{After: 690})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range 600 {
		put(t, s, "k1", fmt.Sprint("left", i))
		put(t, f, "k1", fmt.Sprint("right", i))
	}
	g := f.Fork()
	t.Cleanup(func() { g.Close() })
	put(t, g, "k1", "third")
	for i := range 600 {
		rev := int64(702 + i)
		if l, r := value(t, s, "k1", rev), value(t, f, "k1", rev); l != fmt.Sprint("left", i) || r != fmt.Sprint("right", i) {
			t.Fatalf("at %d: %s and %s", rev, l, r)
		}
	}
	if v := value(t, g, "k1", 703); v != "right1" {
		t.Fatalf("the fork's fork has %q", v)
	}
	if v := value(t, f, "k1", 300); v != "s291" && value(t, s, "k1", 300) != v {
		t.Fatalf("history before the fork is %q", v)
	}
	if err := s.Compact(t.Context(), 1300); err != nil {
		t.Fatal(err)
	}
	next := int64(691)
	for next <= 1301 {
		b, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events {
			if e.KV.ModRevision != next {
				t.Fatalf("event of %d, want %d", e.KV.ModRevision, next)
			}
			if next > 701 && string(e.KV.Value) != fmt.Sprint("right", next-702) {
				t.Fatalf("event of %d has %s", next, e.KV.Value)
			}
			next++
		}
	}
}

func TestHistoryIsTrimmed(t *testing.T) {
	for _, opts := range []Options{{History: 1000}, {HistoryBytes: 1 << 20}} {
		s := open(t, opts)
		big := make([]byte, 1000)
		for i := range 20000 {
			if _, err := s.Commit(t.Context(), store.Put(fmt.Sprint("k", i%50), big, store.Any())); err != nil {
				t.Fatal(err)
			}
		}
		current, floor, err := s.Revision(t.Context())
		if err != nil || current != 20001 {
			t.Fatal(current, err)
		}
		if n := current - floor; n > 1600 || n < 500 {
			t.Errorf("%+v: %d revisions are retained", opts, n)
		}
		if n := len(s.view.Load().log); n > 7 {
			t.Errorf("%+v: %d chunks are held", opts, n)
		}
		if _, err := s.Get(t.Context(), "k1", floor); err != nil {
			t.Error(err)
		}
		if _, err := s.Get(t.Context(), "k1", floor-1); !errors.Is(err, store.ErrCompacted) {
			t.Error(err)
		}
	}
}

// A key's current version must not hold the former ones through its event.
func TestFormerValuesAreFreed(t *testing.T) {
	s := open(t, Options{History: 10})
	for range 200 {
		if _, err := s.Commit(t.Context(), store.Put("k", make([]byte, 1<<20), store.Any())); err != nil {
			t.Fatal(err)
		}
	}
	current, _, _ := s.Revision(t.Context())
	if err := s.Compact(t.Context(), current); err != nil {
		t.Fatal(err)
	}
	for range 300 {
		put(t, s, "small", "")
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 20<<20 {
		t.Fatalf("%d MiB are in use", m.HeapAlloc>>20)
	}
}

// Readers see each commit as a whole, or nothing of it, and their revision stays what it was, whatever is
// written in place meanwhile, and by whichever of two stores that share nodes.
func TestReadersDuringWrites(t *testing.T) {
	s := open(t, Options{History: 300})
	const keys = 200
	commit := func(s *Store, i int, value string) {
		a, b := fmt.Sprintf("k%03d", i%keys), fmt.Sprintf("k%03d", (i*7+1)%keys)
		ops := []store.Op{store.Put(a, []byte(value), store.Any()), store.Put("last", []byte(a), store.Any())}
		if i%5 == 0 && a != b {
			ops = append(ops, store.Delete(b, store.Any()))
		}
		if _, err := s.Commit(context.Background(), ops...); err != nil {
			t.Error(err)
		}
	}
	check := func(s *Store) {
		list, err := s.List(context.Background(), store.ListOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		found := list.Revision < 3
		var last *store.KV
		for i := range list.KVs {
			if kv := &list.KVs[i]; kv.Key == "last" {
				last = kv
			}
		}
		for i := range list.KVs {
			kv := &list.KVs[i]
			if kv.ModRevision > list.Revision {
				t.Errorf("a list at %d has %s of %d", list.Revision, kv.Key, kv.ModRevision)
			}
			if last != nil && kv.Key == string(last.Value) {
				found = kv.ModRevision == list.Revision && last.ModRevision == list.Revision
			}
		}
		if !found {
			t.Errorf("a list at %d has not what was written then", list.Revision)
		}
		for range 3 {
			runtime.Gosched()
			again, err := s.List(context.Background(), store.ListOptions{Revision: list.Revision})
			if errors.Is(err, store.ErrCompacted) {
				return
			}
			if diff := cmp.Diff(list, again); err != nil || diff != "" {
				t.Errorf("%v; list at %d, and then: %s", err, list.Revision, diff)
				return
			}
			if last != nil {
				got, err := s.Get(context.Background(), "last", list.Revision)
				if !errors.Is(err, store.ErrCompacted) && (err != nil || !cmp.Equal(got.KV, last)) {
					t.Errorf("Get at %d: %v, %v; want %v", list.Revision, got.KV, err, last)
				}
			}
		}
	}
	for i := range keys {
		commit(s, i, "first")
	}
	fork := s.Fork()
	t.Cleanup(func() { fork.Close() })
	var writers, readers sync.WaitGroup
	var done atomic.Bool
	for name, s := range map[string]*Store{"s": s, "fork": fork} {
		writers.Go(func() {
			for i := range 5000 {
				commit(s, i, fmt.Sprint(name, i))
				if i%16 == 0 {
					runtime.Gosched()
				}
			}
		})
		readers.Go(func() {
			for !done.Load() && !t.Failed() {
				check(s)
			}
		})
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
	for name, s := range map[string]*Store{"s": s, "fork": fork} {
		check(s)
		if got := value(t, s, "k199", 0); got != name+"4999" {
			t.Errorf("%s has %s", name, got)
		}
	}
}

func TestCompactionLeavesWatchersTheirTurn(t *testing.T) {
	storetest.CompactionLeavesWatchersTheirTurn(t, open(t, Options{}))
}

// A watcher that waits while only others' keys change is not cut off by trimming.
func TestQuietWatcherOutlivesHistory(t *testing.T) {
	s := open(t, Options{History: 500})
	w, err := s.Watch(t.Context(), store.WatchOptions{Prefix: "quiet/"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	got := make(chan error, 1)
	go func() {
		b, err := w.Next(context.Background())
		if err == nil && (len(b.Events) != 1 || string(b.Events[0].KV.Value) != "x") {
			err = fmt.Errorf("batch %+v", b)
		}
		got <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); s.hubWaiting() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the watcher does not wait")
		}
	}
	for i := range 5000 {
		put(t, s, fmt.Sprint("loud/", i%10), "y")
	}
	put(t, s, "quiet/a", "x")
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func (s *Store) hubWaiting() int64 { return s.hub.Waiting() }

// BenchmarkCommit updates keys with values that others have made; cpu-ns/op is what the process used, whatever else the
// machine has to do.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s := open(b, Options{})
			keys := make([]string, 100_000)
			vals := make([][]byte, len(keys))
			for i := range keys {
				keys[i] = fmt.Sprintf("/registry/pods/namespace-%03d/pod-%06d", i%100, i)
				vals[i] = make([]byte, 1500)
				if _, err := s.Commit(b.Context(), store.Put(keys[i], vals[i], store.Any())); err != nil {
					b.Fatal(err)
				}
			}
			ctx := context.Background()
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuTime()
			for range writers {
				wg.Go(func() {
					for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
						at := i * 7919 % len(keys)
						if _, err := s.Commit(ctx, store.Put(keys[at], vals[at], store.Any())); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkCreateDelete makes and removes keys, which changes the tree.
func BenchmarkCreateDelete(b *testing.B) {
	s := open(b, Options{})
	key := func(i int) string { return fmt.Sprintf("/registry/pods/namespace-%03d/pod-%06d", i%100, i) }
	val := make([]byte, 1500)
	for i := range 100_000 {
		put(b, s, key(i), "v")
	}
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	for i := range b.N {
		op := store.Delete(key(i/2*7919%100_000), store.Any())
		if i%2 == 1 {
			op = store.Put(op.Key, val, store.Absent())
		}
		if _, err := s.Commit(ctx, op); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

func BenchmarkGet(b *testing.B) {
	s := open(b, Options{})
	keys := make([]string, 100_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("/registry/pods/namespace-%03d/pod-%06d", i%100, i)
		put(b, s, keys[i], "v")
	}
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		if _, err := s.Get(ctx, keys[i*7919%len(keys)], 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkList10000 lists, and for comparison copies as many pairs from pointers in a slice.
func BenchmarkList10000(b *testing.B) {
	s := open(b, Options{})
	for i := range 10_000 {
		put(b, s, fmt.Sprintf("/registry/pods/namespace-%03d/pod-%06d", i%100, i), "v")
	}
	b.Run("list", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.List(b.Context(), store.ListOptions{Prefix: "/registry/pods/"}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("copy", func(b *testing.B) {
		var kvs []*store.KV
		s.view.Load().tree.Ascend("", func(_ string, kv **store.KV) bool { kvs = append(kvs, *kv); return true })
		b.ReportAllocs()
		for b.Loop() {
			out := make([]store.KV, 0, len(kvs))
			for _, kv := range kvs {
				out = append(out, *kv)
			}
			runtime.KeepAlive(out)
		}
	})
}

// BenchmarkCommitWatched shows what watchers of a prefix cost its writers: cpu-ns/commit is what the writer's thread
// uses, ns/commit how long a commit takes on a machine that the watchers share.
func BenchmarkCommitWatched(b *testing.B) {
	for _, n := range []int{0, 1, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := open(b, Options{})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			for range n {
				w, err := s.Watch(ctx, store.WatchOptions{Prefix: "/registry/"})
				if err != nil {
					b.Fatal(err)
				}
				go func() {
					defer func() { w.Close(); done <- struct{}{} }()
					for {
						if _, err := w.Next(ctx); err != nil {
							return
						}
					}
				}()
			}
			val := make([]byte, 1500)
			for range 3 { // until the watchers' goroutines have the stacks that they need
				for s.hub.Waiting() < int64(n) {
					time.Sleep(time.Millisecond)
				}
				if _, err := s.Commit(ctx, store.Put("/registry/0", val, store.Any())); err != nil {
					b.Fatal(err)
				}
			}
			keys := make([]string, 1000)
			for i := range keys {
				keys[i] = fmt.Sprint("/registry/", i)
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ResetTimer()
			var inside, used time.Duration
			for i := 0; i < b.N; {
				start, before := time.Now(), threadTime()
				for range min(100, b.N-i) {
					if _, err := s.Commit(ctx, store.Put(keys[i%len(keys)], val, store.Any())); err != nil {
						b.Fatal(err)
					}
					i++
				}
				inside += time.Since(start)
				used += threadTime() - before
				time.Sleep(time.Millisecond) // writers that leave the watchers some of the machine
			}
			b.StopTimer()
			b.ReportMetric(float64(inside.Nanoseconds())/float64(b.N), "ns/commit")
			b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/commit")
			cancel()
			for range n {
				<-done
			}
		})
	}
}
