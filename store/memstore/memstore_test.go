package memstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson/keelson/store"
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

func BenchmarkCommit(b *testing.B) {
	s := open(b, Options{})
	keys := make([]string, 100_000)
	val := make([]byte, 1500)
	for i := range keys {
		keys[i] = fmt.Sprintf("/registry/pods/namespace-%03d/pod-%06d", i%100, i)
		if _, err := s.Commit(b.Context(), store.Put(keys[i], val, store.Any())); err != nil {
			b.Fatal(err)
		}
	}
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		if _, err := s.Commit(ctx, store.Put(keys[i*7919%len(keys)], val, store.Any())); err != nil {
			b.Fatal(err)
		}
	}
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
		s.view.Load().tree.Ascend("", func(_ string, kv *store.KV) bool { kvs = append(kvs, kv); return true })
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

// BenchmarkCommitWatched shows that watchers of a prefix cost its writers nothing.
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
			b.ResetTimer()
			var inside time.Duration
			for i := 0; i < b.N; i++ {
				start := time.Now()
				if _, err := s.Commit(ctx, store.Put(fmt.Sprint("/registry/", i%1000), val, store.Any())); err != nil {
					b.Fatal(err)
				}
				inside += time.Since(start)
				if i%100 == 0 {
					time.Sleep(time.Millisecond) // writers that leave the watchers some of the machine
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(inside.Nanoseconds())/float64(b.N), "ns/commit")
			cancel()
			for range n {
				<-done
			}
		})
	}
}
