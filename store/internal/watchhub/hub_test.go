package watchhub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson/keelson/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLog is a source that is too simple to be wrong: revision r is keys[r-1], revision 1 has none.
type fakeLog struct {
	mu    sync.Mutex
	keys  [][]string
	floor int64
}

func newFakeLog() *fakeLog { return &fakeLog{keys: [][]string{nil}, floor: 1} }

func (l *fakeLog) publish(keys ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(keys)
	l.keys = append(l.keys, slices.Compact(keys))
}

func (l *fakeLog) forget(floor int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.floor = max(l.floor, floor)
}

func (l *fakeLog) Bounds() (current, floor int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.keys)), l.floor
}

func (l *fakeLog) Read(after int64, prefix string, limit int) (out []store.Event, through int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if after < l.floor {
		return nil, 0, store.ErrCompacted
	}
	for rev := after + 1; rev <= int64(len(l.keys)); rev++ {
		for _, k := range l.keys[rev-1] {
			if strings.HasPrefix(k, prefix) {
				out = append(out, store.Event{KV: store.KV{Key: k, ModRevision: rev}})
			}
		}
		if len(out) >= limit {
			return out, rev, nil
		}
	}
	return out, max(after, int64(len(l.keys))), nil
}

func (l *fakeLog) Changes(after, through int64, visit func(rev int64, key string)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if after < l.floor {
		return store.ErrCompacted
	}
	for rev := after + 1; rev <= through; rev++ {
		for _, k := range l.keys[rev-1] {
			visit(rev, k)
		}
	}
	return nil
}

// since is what a watcher of prefix must get of the revisions in (after, through].
func (l *fakeLog) since(after, through int64, prefix string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rev := after + 1; rev <= through; rev++ {
		for _, k := range l.keys[rev-1] {
			if strings.HasPrefix(k, prefix) {
				out = append(out, fmt.Sprint(rev, k))
			}
		}
	}
	return out
}

func keysOf(events []store.Event) (out []string) {
	for _, e := range events {
		out = append(out, fmt.Sprint(e.KV.ModRevision, e.KV.Key))
	}
	return out
}

// waitFor waits until n watchers wait for something to happen: they count as waiting a little earlier, before they have looked for the last time.
func waitFor(t *testing.T, h *Hub, n int) {
	t.Helper()
	joined := func() (sum int) {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, p := range h.prefixes {
			for _, g := range p.fresh {
				sum += g.n
			}
		}
		return sum
	}
	for deadline := time.Now().Add(10 * time.Second); joined() != n; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d watchers wait, want %d", joined(), n)
		}
	}
}

// Random calls, one at a time, are answered as the log says.
func TestModel(t *testing.T) {
	prefixes := []string{"", "a", "a/b", "b", "c/", "zzz"}
	keys := []string{"a", "a/b", "a/b/c", "b", "b/x", "c", "c/1"}
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := newFakeLog()
		h := New(l)
		type cursor struct {
			w      *Watcher
			prefix string
			pos    int64 // everything up to here was reported
		}
		var cursors []cursor
		for step := range 300 {
			current, floor := l.Bounds()
			switch p := r.IntN(10); {
			case p < 4:
				for range 1 + r.IntN(3) {
					l.publish(keys[r.IntN(len(keys))], keys[r.IntN(len(keys))])
				}
				h.Published()
			case p == 4:
				h.Scan()
				l.forget(floor + r.Int64N(current-floor+1))
			case p == 5:
				h.Progress(current)
			case p == 6 && len(cursors) < 10:
				after := r.Int64N(current + 3)
				prefix := prefixes[r.IntN(len(prefixes))]
				w, err := h.Watch(store.WatchOptions{Prefix: prefix, After: after})
				want := error(nil)
				switch {
				case after == 0:
					after = current
				case after < floor:
					want = store.ErrCompacted
				case after > current:
					want = store.ErrFutureRevision
				}
				if !errors.Is(err, want) {
					t.Fatalf("seed %d step %d: Watch after %d of %d to %d: %v, want %v", seed, step, after, floor, current, err, want)
				}
				if err == nil {
					cursors = append(cursors, cursor{w, prefix, after})
				}
			case p == 7 && len(cursors) > 0:
				i := r.IntN(len(cursors))
				cursors[i].w.Close()
				if _, err := cursors[i].w.Next(t.Context()); !errors.Is(err, store.ErrClosed) {
					t.Fatalf("seed %d step %d: Next after Close: %v", seed, step, err)
				}
				cursors = slices.Delete(cursors, i, i+1)
			case len(cursors) > 0:
				i := r.IntN(len(cursors))
				c := &cursors[i]
				ctx, cancel := context.WithCancel(t.Context())
				want := l.since(c.w.Position(), current, c.prefix)
				lost := c.w.Position() < floor
				if len(want) == 0 && !lost && min(h.progress.Load(), current) <= c.w.reported {
					time.AfterFunc(time.Millisecond, cancel)
				}
				b, err := c.w.Next(ctx)
				cancel()
				switch {
				case errors.Is(err, store.ErrCompacted):
					if !lost {
						t.Fatalf("seed %d step %d: a watcher at %d is too late for %d", seed, step, c.w.Position(), floor)
					}
					c.w.Close()
					cursors = slices.Delete(cursors, i, i+1)
				case errors.Is(err, context.Canceled):
					if len(want) > 0 || lost {
						t.Fatalf("seed %d step %d: nothing comes, want %v", seed, step, want)
					}
				case err != nil:
					t.Fatal(err)
				case b.Revision != current || !reflect.DeepEqual(keysOf(b.Events), want):
					t.Fatalf("seed %d step %d: after %d it reports %v up to %d, want %v up to %d", seed, step, c.pos, keysOf(b.Events), b.Revision, want, current)
				default:
					c.pos = b.Revision
				}
			}
		}
		h.Close()
		for _, c := range cursors {
			if _, err := c.w.Next(t.Context()); !errors.Is(err, store.ErrClosed) {
				t.Fatalf("Next after the hub's Close: %v", err)
			}
			c.w.Close()
		}
		if len(h.prefixes) > 0 || len(h.lengths) > 0 || h.watchers.Load() != 0 || h.Waiting() != 0 {
			t.Fatalf("seed %d: something is left of the watchers", seed)
		}
	}
}

// Watchers on goroutines of their own, with writers, see every event once and in order.
func TestConcurrent(t *testing.T) {
	l := newFakeLog()
	h := New(l)
	const watchers, revisions = 400, 3000
	prefixes := []string{"", "a/", "a/1", "b/", "never/"}
	var wg sync.WaitGroup
	for i := range watchers {
		prefix := prefixes[i%len(prefixes)]
		w, err := h.Watch(store.WatchOptions{Prefix: prefix, After: 1})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer w.Close()
			var got []string
			for reached := int64(0); reached < revisions+1; {
				b, err := w.Next(t.Context())
				if err != nil {
					t.Errorf("watcher %d: %v", i, err)
					return
				}
				got = append(got, keysOf(b.Events)...)
				reached = b.Revision
				if i%50 == 7 {
					time.Sleep(time.Millisecond)
				}
			}
			if want := l.since(1, revisions+1, prefix); !slices.Equal(got, want) {
				t.Errorf("watcher %d of %q has %d events, want %d", i, prefix, len(got), len(want))
			}
		})
	}
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for i := range revisions / 3 {
				l.publish(fmt.Sprintf("%c/%d", 'a'+w%2, i%7), "c")
				h.Published()
			}
		})
	}
	writers.Wait()
	h.Progress(revisions + 1)
	wg.Wait()
	h.Close()
}

// Those that wait are not overtaken by revisions without a change for them, whether the source
// has them told or waits until they are.
func TestQuietWaiters(t *testing.T) {
	for _, ask := range []bool{false, true} {
		l := newFakeLog()
		h := New(l)
		const n = 300
		got := make(chan string, n)
		for range n {
			w, err := h.Watch(store.WatchOptions{Prefix: "quiet"})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer w.Close()
				b, err := w.Next(context.Background())
				got <- fmt.Sprint(keysOf(b.Events), err)
			}()
		}
		waitFor(t, h, n)
		for range 2000 {
			l.publish("loud")
			h.Published()
			current, _ := l.Bounds()
			if ask {
				l.forget(h.Retain(current))
			} else {
				h.Scan()
				l.forget(current)
			}
		}
		l.publish("quiet")
		h.Published()
		for range n {
			if s := <-got; s != "[2002quiet] <nil>" {
				t.Fatalf("a watcher gets %s", s)
			}
		}
		h.Close()
	}
}

// Waiters are told what is retained for them until they have been woken.
func TestRetain(t *testing.T) {
	l := newFakeLog()
	h := New(l)
	if got := h.Retain(7); got != 7 {
		t.Errorf("without watchers up to %d may go, want 7", got)
	}
	const n = groupLen*20 + 1
	var wg sync.WaitGroup
	for range n {
		w, err := h.Watch(store.WatchOptions{Prefix: "a"})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer w.Close()
			if b, err := w.Next(t.Context()); err != nil || len(b.Events) == 0 {
				t.Errorf("a watcher gets %v, %v", b, err)
			}
		})
	}
	waitFor(t, h, n)
	l.publish("a")
	h.Published()
	for range 1000 {
		l.publish("b")
		h.Published()
		current, _ := l.Bounds()
		l.forget(h.Retain(current))
	}
	wg.Wait()
	h.Close()
}

// Closing ends those that wait, from any goroutine and more than once.
func TestClose(t *testing.T) {
	for range 50 {
		l := newFakeLog()
		h := New(l)
		var wg sync.WaitGroup
		for i := range 20 {
			w, err := h.Watch(store.WatchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				for {
					if _, err := w.Next(context.Background()); err != nil {
						if !errors.Is(err, store.ErrClosed) {
							t.Error(err)
						}
						w.Close()
						return
					}
				}
			})
			if i%3 == 0 {
				wg.Go(w.Close)
			}
		}
		wg.Go(func() {
			for range 50 {
				l.publish("k")
				h.Published()
			}
		})
		wg.Go(h.Close)
		wg.Go(h.Close)
		wg.Wait()
		h.Published()
	}
}
