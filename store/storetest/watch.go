package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson/keelson/store"
)

func watchChecks() []check {
	return []check{
		{name: "Watch/Events", run: watchEvents},
		{name: "Watch/FromNow", run: watchFromNow},
		{name: "Watch/AfterRevision", run: watchAfter},
		{name: "Watch/Prefix", run: watchPrefix},
		{name: "Watch/Complete", run: watchComplete},
		{name: "Watch/SlowWatcher", run: watchSlow},
		{name: "Watch/Progress", run: watchProgress},
		{name: "Watch/Many", run: watchMany},
		{name: "Watch/NextCancelled", run: watchNextCancelled},
		{name: "Watch/ContextEnds", run: watchContextEnds},
		{name: "Watch/Close", run: watchClose},
	}
}

func (e *env) wantEvents(what string, got, want []store.Event) {
	for i := range max(len(got), len(want)) {
		if i >= len(got) {
			e.fatalf("%s: missing the event %s", what, describeEvent(want[i]))
		}
		if i >= len(want) {
			e.fatalf("%s: there is one more event, %s", what, describeEvent(got[i]))
		}
		if !sameEvent(got[i], want[i]) {
			e.fatalf("%s: event %d is %s, want %s", what, i, describeEvent(got[i]), describeEvent(want[i]))
		}
	}
}

func sameEvent(a, b store.Event) bool {
	return a.Deleted == b.Deleted && sameKV(&a.KV, &b.KV) && sameKV(a.Prev, b.Prev)
}

func describeEvent(ev store.Event) string {
	kind := "put"
	if ev.Deleted {
		kind = "delete"
	}
	return fmt.Sprintf("%s of %s, before it %s", kind, describeKV(&ev.KV), describeKV(ev.Prev))
}

func kv(key, value string, create, mod int64) *store.KV {
	return &store.KV{Key: key, Value: []byte(value), CreateRevision: create, ModRevision: mod}
}

func watchEvents(e *env) {
	s := e.new()
	start := e.put(s, "x", "0")
	w := e.watch(s, "", start)
	defer w.Close()
	r1 := e.put(s, "a", "1")
	r2 := e.put(s, "a", "2")
	r3 := e.del(s, "a")
	r4 := e.put(s, "a", "4")
	r5 := e.commit(s, store.Delete("x", store.Present()), store.Put("b", nil, store.Absent()), store.Delete("absent", store.Any()))
	want := []store.Event{
		{KV: *kv("a", "1", r1, r1)},
		{KV: *kv("a", "2", r1, r2), Prev: kv("a", "1", r1, r1)},
		{KV: *kv("a", "", 0, r3), Deleted: true, Prev: kv("a", "2", r1, r2)},
		{KV: *kv("a", "4", r4, r4)},
		{KV: *kv("b", "", r5, r5)},
		{KV: *kv("x", "", 0, r5), Deleted: true, Prev: kv("x", "0", start, start)},
	}
	e.wantEvents("as they happen", e.until(w, r5), want)
	late := e.watch(s, "", start)
	defer late.Close()
	e.wantEvents("from history", e.until(late, r5), want)
}

func watchFromNow(e *env) {
	s := e.new()
	e.put(s, "a", "before")
	w := e.watch(s, "", 0)
	defer w.Close()
	rev := e.put(s, "a", "after")
	events := e.until(w, rev)
	if len(events) != 1 || string(events[0].KV.Value) != "after" || events[0].Prev == nil || string(events[0].Prev.Value) != "before" {
		e.fatalf("a watch from now reports %d events, want the one commit after it", len(events))
	}
}

func watchAfter(e *env) {
	s := e.new()
	revs := []int64{e.revision(s)}
	for i := range 20 {
		revs = append(revs, e.put(s, fmt.Sprint("k", i%3), fmt.Sprint(i)))
	}
	for i, after := range revs[:20] {
		w := e.watch(s, "", after)
		events := e.until(w, revs[20])
		w.Close()
		if len(events) != 20-i || events[0].KV.ModRevision != revs[i+1] {
			e.fatalf("a watch after %d reports %d events from %d, want %d from %d", after, len(events), events[0].KV.ModRevision, 20-i, revs[i+1])
		}
	}
	w := e.watch(s, "", revs[20])
	defer w.Close()
	rev := e.put(s, "k0", "last")
	if events := e.until(w, rev); len(events) != 1 {
		e.fatalf("a watch after the newest revision reports %d events, want 1", len(events))
	}
}

func watchPrefix(e *env) {
	s := e.new()
	start := e.put(s, "start", "")
	prefixes := []string{"", "a", "a/", "a/b", "b", "\xff", "zzz"}
	var ws []store.Watcher
	for _, p := range prefixes {
		w := e.watch(s, p, start)
		defer w.Close()
		ws = append(ws, w)
	}
	keys := []string{"a", "a/", "a/b", "a/b/c", "a0", "b", "c", "\xff\xff", "\xff"}
	for _, k := range keys {
		e.put(s, k, "v")
	}
	e.commit(s, store.Put("a/b", nil, store.Any()), store.Put("b", nil, store.Any()), store.Put("c", nil, store.Any()))
	last := e.revision(s)
	for i, p := range prefixes {
		want := ""
		for _, k := range append(keys, "a/b", "b", "c") {
			if strings.HasPrefix(k, p) {
				want += k + " "
			}
		}
		got := ""
		for _, ev := range e.until(ws[i], last) {
			got += ev.KV.Key + " "
		}
		if got != want {
			e.fatalf("a watch of prefix %q reports %q, want %q", p, got, want)
		}
	}
}

// watchComplete folds the views of watchers started at random moments, of several prefixes,
// while writers change everything, and compares them with what the store holds.
func watchComplete(e *env) {
	s := e.new()
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	const numWatchers = 12
	var writers, watchers sync.WaitGroup
	var started atomic.Int32 // watchers
	errs := make(chan error, 32)
	for i := range 4 {
		writers.Go(func() {
			for n, more := 0, 60; more > 0 && ctx.Err() == nil; n++ {
				if started.Load() == numWatchers {
					more--
				} else {
					runtime.Gosched()
				}
				a, b := fmt.Sprintf("%c/%d", 'a'+(n+i)%3, n%5), fmt.Sprintf("%c/x%d", 'a'+n%3, i)
				ops := []store.Op{store.Put(a, []byte(fmt.Sprint(i, n)), store.Any()), store.Put(b, nil, store.Any())}
				if n%4 == 3 {
					ops[0] = store.Delete(a, store.Any())
				}
				if _, err := s.Commit(ctx, ops...); err != nil {
					errs <- fmt.Errorf("Commit: %w", err)
					return
				}
			}
		})
	}
	final := make(chan struct{})
	var state store.ListResult
	for i := range numWatchers {
		prefix := []string{"", "a/", "b/", "c/x"}[i%4]
		watchers.Go(func() {
			// An error must not leave the others waiting.
			defer started.CompareAndSwap(int32(i), int32(i+1))
			for started.Load() < int32(i) && ctx.Err() == nil {
				runtime.Gosched()
			}
			res, err := s.List(ctx, store.ListOptions{Prefix: prefix})
			if err != nil {
				errs <- fmt.Errorf("List: %w", err)
				return
			}
			w, err := s.Watch(ctx, store.WatchOptions{Prefix: prefix, After: res.Revision})
			if err != nil {
				errs <- fmt.Errorf("Watch after the list's revision: %w", err)
				return
			}
			defer w.Close()
			started.Add(1)
			view := map[string]store.KV{}
			for _, kv := range res.KVs {
				view[kv.Key] = kv
			}
			fold := func(events []store.Event) error {
				for _, ev := range events {
					var prev *store.KV
					if p, ok := view[ev.KV.Key]; ok {
						prev = &p
					}
					if !sameKV(prev, ev.Prev) {
						return fmt.Errorf("event %s, but the watcher's view has %s", describeEvent(ev), describeKV(prev))
					}
					if ev.Deleted {
						delete(view, ev.KV.Key)
					} else {
						view[ev.KV.Key] = ev.KV
					}
				}
				return nil
			}
			<-final
			if state.Revision > res.Revision {
				events, err := collect(ctx, w, state.Revision)
				if err == nil {
					err = fold(events)
				}
				if err != nil {
					errs <- fmt.Errorf("watch of %q: %w", prefix, err)
					return
				}
			}
			n := 0
			for _, kv := range state.KVs {
				if !strings.HasPrefix(kv.Key, prefix) {
					continue
				}
				n++
				if have, ok := view[kv.Key]; !ok || !sameKV(&have, &kv) {
					errs <- fmt.Errorf("watch of %q ends with %s, the store has %s", prefix, describeKV(&have), describeKV(&kv))
					return
				}
			}
			if n != len(view) {
				errs <- fmt.Errorf("watch of %q ends with %d pairs, the store has %d", prefix, len(view), n)
			}
		})
	}
	writers.Wait()
	var err error
	if _, _, err = s.Revision(ctx); err == nil {
		state, err = s.List(ctx, store.ListOptions{})
	}
	if err == nil {
		_, _, err = s.Revision(ctx)
	}
	if err != nil {
		cancel()
	}
	close(final)
	watchers.Wait()
	select {
	case first := <-errs:
		e.ok(first, "concurrent watches")
	default:
	}
	e.ok(err, "final state")
}

func watchSlow(e *env) {
	s := e.new()
	start := e.revision(s)
	slow := e.watch(s, "", start)
	defer slow.Close()
	fast := e.watch(s, "", start)
	defer fast.Close()
	const n = 1500
	var last int64
	begin := time.Now()
	for i := range n {
		last = e.put(s, fmt.Sprintf("k%03d", i%100), fmt.Sprint(i))
	}
	if took := time.Since(begin); took > e.f.Timeout/2 {
		e.fatalf("%d commits took %v beside a watcher that does not read", n, took)
	}
	for name, w := range map[string]store.Watcher{"that reads": fast, "that did not read for long": slow} {
		events := e.until(w, last)
		if len(events) != n {
			e.fatalf("a watcher %s reports %d events, want %d", name, len(events), n)
		}
		for i, ev := range events {
			if string(ev.KV.Value) != fmt.Sprint(i) {
				e.fatalf("a watcher %s reports %s as event %d", name, describeEvent(ev), i)
			}
		}
	}
}

func watchProgress(e *env) {
	s := e.new()
	start := e.put(s, "other/a", "1")
	quiet := e.watch(s, "quiet/", start)
	defer quiet.Close()
	fromNow := e.watch(s, "quiet/", 0)
	defer fromNow.Close()
	for i := range 3 {
		e.put(s, "other/a", fmt.Sprint(i))
		rev := e.revision(s)
		for _, w := range []store.Watcher{quiet, fromNow} {
			if events := e.until(w, rev); len(events) != 0 {
				e.fatalf("a watcher of an unchanged prefix reports %s", describeEvent(events[0]))
			}
		}
	}
	// Also one that waits already.
	type result struct {
		b   store.Batch
		err error
	}
	got := make(chan result, 1)
	go func() {
		for {
			b, err := quiet.Next(e.ctx)
			if err != nil || b.Revision > start+3 {
				got <- result{b, err}
				return
			}
		}
	}()
	e.put(s, "other/a", "last")
	rev := e.revision(s)
	r := <-got
	e.ok(r.err, "Next, waiting for progress to %d", rev)
	if len(r.b.Events) > 0 {
		e.fatalf("progress comes with %d events", len(r.b.Events))
	}
}

func watchMany(e *env) {
	s := e.new()
	start := e.revision(s)
	var wg sync.WaitGroup
	const watchers, commits = 200, 50
	errs := make(chan error, watchers)
	ready := make(chan struct{}, watchers)
	var last int64
	finished := make(chan struct{})
	for i := range watchers {
		wg.Go(func() {
			w, err := s.Watch(e.ctx, store.WatchOptions{Prefix: "k", After: start})
			ready <- struct{}{}
			if err != nil {
				errs <- err
				return
			}
			defer w.Close()
			n, reported := 0, int64(0)
			for n < commits {
				b, err := w.Next(e.ctx)
				if err != nil {
					errs <- fmt.Errorf("watcher %d after %d events: %w", i, n, err)
					return
				}
				n, reported = n+len(b.Events), b.Revision
			}
			<-finished
			var more []store.Event
			if reported < last {
				more, err = collect(e.ctx, w, last)
			}
			if err != nil || n+len(more) != commits {
				errs <- fmt.Errorf("watcher %d reports %d events, want %d: %w", i, n+len(more), commits, err)
			}
		})
	}
	for range watchers {
		<-ready
	}
	for i := range commits {
		e.put(s, "k", fmt.Sprint(i))
	}
	last = e.revision(s)
	close(finished)
	wg.Wait()
	select {
	case err := <-errs:
		e.ok(err, "%d watchers", watchers)
	default:
	}
}

func watchNextCancelled(e *env) {
	s := e.new()
	start := e.put(s, "a", "0")
	w := e.watch(s, "", start)
	defer w.Close()
	for i := range 3 {
		ctx, cancel := context.WithTimeout(e.ctx, 20*time.Millisecond)
		var err error
		for err == nil {
			_, err = w.Next(ctx)
		}
		cancel()
		e.is(err, context.DeadlineExceeded, "Next with nothing to report")
		rev := e.put(s, "a", fmt.Sprint(i))
		if events := e.until(w, rev); len(events) != 1 {
			e.fatalf("after a Next that was cancelled there are %d events, want 1", len(events))
		}
	}
}

func watchContextEnds(e *env) {
	s := e.new()
	ctx, cancel := context.WithCancel(e.ctx)
	w, err := s.Watch(ctx, store.WatchOptions{After: e.put(s, "a", "0")})
	e.ok(err, "Watch")
	defer w.Close()
	cancel()
	time.Sleep(5 * time.Millisecond) // for what the store may have hung on the context
	rev := e.put(s, "a", "1")
	if events := e.until(w, rev); len(events) != 1 {
		e.fatalf("after the context of Watch was cancelled there are %d events, want 1", len(events))
	}
	if _, err := s.Watch(ctx, store.WatchOptions{}); !errors.Is(err, context.Canceled) {
		e.fatalf("Watch with a cancelled context: error is %v", err)
	}
}

func watchClose(e *env) {
	s := e.new()
	w := e.watch(s, "a", 0)
	got := make(chan error, 1)
	go func() {
		for {
			if _, err := w.Next(context.Background()); err != nil {
				got <- err
				return
			}
		}
	}()
	time.Sleep(5 * time.Millisecond) // either order must work; this makes the harder one likely
	w.Close()
	w.Close()
	select {
	case err := <-got:
		e.is(err, store.ErrClosed, "a Next that Close ended")
	case <-e.ctx.Done():
		e.fatalf("Watcher.Close does not end Next")
	}
	_, err := w.Next(e.ctx)
	e.is(err, store.ErrClosed, "Next after Close")
	e.put(s, "a", "1")
}
