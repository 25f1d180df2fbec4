package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/keelson/keelson/store"
)

func lifeChecks() []check {
	return []check{
		{name: "Life/CancelledContext", run: cancelledContext},
		{name: "Life/Close", run: closeStore},
		{name: "Life/CloseUnderLoad", run: closeUnderLoad},
		{name: "Life/Size", run: size},
		{name: "Reopen/Everything", run: reopenEverything, needsReopen: true},
		{name: "Reopen/Revisions", run: reopenRevisions, needsReopen: true},
		{name: "Reopen/History", run: reopenHistory, needsReopen: true},
		{name: "Reopen/Compacted", run: reopenCompacted, needsReopen: true},
	}
}

func cancelledContext(e *env) {
	s := e.new()
	rev := e.put(s, "a", "1")
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	calls := map[string]error{}
	_, calls["Get"] = s.Get(ctx, "a", 0)
	_, calls["List"] = s.List(ctx, store.ListOptions{})
	_, calls["Commit"] = s.Commit(ctx, store.Put("a", []byte("2"), store.Any()))
	_, _, calls["Revision"] = s.Revision(ctx)
	calls["Compact"] = s.Compact(ctx, rev)
	for name, err := range calls {
		e.is(err, context.Canceled, "%s with a cancelled context", name)
	}
	if errors.Is(calls["Commit"], store.ErrUnknownOutcome) {
		return
	}
	if kv := e.get(s, "a", 0); kv.ModRevision != rev {
		e.fatalf("a commit that failed as cancelled has changed the key to %s", describeKV(kv))
	}
}

func closeStore(e *env) {
	s := e.new()
	rev := e.put(s, "a", "1")
	var ws []store.Watcher
	ended := make(chan error, 10)
	for i := range 10 {
		w := e.watch(s, "", rev)
		ws = append(ws, w)
		if i%2 == 0 {
			go func() {
				for {
					if _, err := w.Next(context.Background()); err != nil {
						ended <- err
						return
					}
				}
			}()
		}
	}
	for range 3 {
		e.ok(s.Close(), "Close")
	}
	for range 5 {
		select {
		case err := <-ended:
			e.is(err, store.ErrClosed, "a Next that Store.Close ended")
		case <-e.ctx.Done():
			e.fatalf("Store.Close does not end Next")
		}
	}
	for _, w := range ws {
		_, err := w.Next(e.ctx)
		e.is(err, store.ErrClosed, "Next after Store.Close")
		w.Close()
	}
	calls := map[string]error{}
	_, calls["Get"] = s.Get(e.ctx, "a", 0)
	_, calls["List"] = s.List(e.ctx, store.ListOptions{})
	_, calls["Commit"] = s.Commit(e.ctx, store.Put("a", []byte("2"), store.Any()))
	_, calls["Watch"] = s.Watch(e.ctx, store.WatchOptions{})
	_, _, calls["Revision"] = s.Revision(e.ctx)
	calls["Compact"] = s.Compact(e.ctx, rev)
	for name, err := range calls {
		e.is(err, store.ErrClosed, "%s after Close", name)
	}
}

// closeUnderLoad closes the store under all kinds of calls; none hangs, and what was
// acknowledged is there if the store can be opened again.
func closeUnderLoad(e *env) {
	s := e.new()
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked := map[string]int64{}
	var bad error
	note := func(err error) bool {
		if err == nil {
			return true
		}
		if !errors.Is(err, store.ErrClosed) && !errors.Is(err, store.ErrUnknownOutcome) {
			mu.Lock()
			bad = err
			mu.Unlock()
		}
		return false
	}
	for i := range 4 {
		key := fmt.Sprint("k", i)
		wg.Go(func() {
			for n := 0; ; n++ {
				rev, err := s.Commit(context.Background(), store.Put(key, []byte(fmt.Sprint(n)), store.Any()))
				if !note(err) {
					return
				}
				mu.Lock()
				acked[key] = rev
				mu.Unlock()
			}
		})
		wg.Go(func() {
			for {
				if _, err := s.List(context.Background(), store.ListOptions{}); !note(err) {
					return
				}
			}
		})
		wg.Go(func() {
			w, err := s.Watch(context.Background(), store.WatchOptions{Prefix: key})
			if !note(err) {
				return
			}
			defer w.Close()
			for {
				_, err := w.Next(context.Background())
				if errors.Is(err, store.ErrCompacted) || !note(err) { // these writers may be too fast for it
					return
				}
			}
		})
	}
	time.Sleep(30 * time.Millisecond)
	e.ok(s.Close(), "Close")
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-e.ctx.Done():
		e.fatalf("calls do not end after Close")
	}
	e.ok(bad, "a call ended by Close")
	if e.f.Reopen == nil {
		return
	}
	s = e.reopen(s)
	for key, rev := range acked {
		if kv := e.get(s, key, 0); kv == nil || kv.ModRevision < rev {
			e.fatalf("after reopening %q is %s, revision %d was acknowledged", key, describeKV(kv), rev)
		}
	}
}

// size checks a store that says how large it is.
func size(e *env) {
	s := e.new()
	sizer, ok := s.(store.Sizer)
	if !ok {
		return
	}
	_, empty, err := sizer.Size(e.ctx)
	e.ok(err, "Size")
	const keys, length = 50, 20_000
	for i := range keys {
		e.put(s, fmt.Sprint("k", i), strings.Repeat("v", length))
	}
	for {
		total, used, err := sizer.Size(e.ctx)
		e.ok(err, "Size, waiting for it to grow from %d to more than %d", empty, keys*length)
		if used > total {
			e.fatalf("%d bytes of %d are in use", used, total)
		}
		if total >= keys*length && (used >= empty+keys*length || e.f.Shared) {
			break
		}
		time.Sleep(10 * time.Millisecond) // a size may lag behind a little
	}
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	_, _, err = sizer.Size(ctx)
	e.is(err, context.Canceled, "Size with a cancelled context")
	e.ok(s.Close(), "Close")
	_, _, err = sizer.Size(e.ctx)
	e.is(err, store.ErrClosed, "Size after Close")
}

func reopenEverything(e *env) {
	s := e.new()
	for i := range 100 {
		e.put(s, fmt.Sprintf("k%02d", i%40), fmt.Sprint(i))
		if i%7 == 0 {
			e.del(s, fmt.Sprintf("k%02d", i%40))
		}
		if i%10 == 0 {
			e.commit(s, store.Put(fmt.Sprint("x", i), nil, store.Absent()), store.Put(fmt.Sprint("y", i), []byte{0, 255}, store.Absent()))
		}
	}
	before := e.list(s, store.ListOptions{})
	for range 2 {
		s = e.reopen(s)
		after := e.list(s, store.ListOptions{})
		if len(after.KVs) != len(before.KVs) || !e.f.Shared && after.Revision != before.Revision {
			e.fatalf("after reopening there are %d pairs at revision %d, want %d at %d", len(after.KVs), after.Revision, len(before.KVs), before.Revision)
		}
		for i := range before.KVs {
			e.wantKV("a pair after reopening", &after.KVs[i], &before.KVs[i])
			e.wantKV("a pair after reopening", e.get(s, before.KVs[i].Key, 0), &before.KVs[i])
		}
	}
}

func reopenRevisions(e *env) {
	s := e.new()
	last := e.revision(s)
	for i := range 4 {
		for range 5 {
			rev := e.put(s, "a", fmt.Sprint(i))
			if rev <= last || !e.f.Shared && rev != last+1 {
				e.fatalf("the commit after revision %d, with reopening, returns %d", last, rev)
			}
			last = rev
		}
		if i == 2 {
			// A delete leaves nothing that has the newest revision.
			last = e.del(s, "a")
			e.ok(s.Compact(e.ctx, last), "Compact")
		}
		s = e.reopen(s)
		if rev := e.revision(s); rev < last || !e.f.Shared && rev != last {
			e.fatalf("after reopening the revision is %d, want %d", rev, last)
		}
	}
}

func reopenHistory(e *env) {
	s := e.new()
	start := e.revision(s)
	var revs []int64
	for i := range 30 {
		revs = append(revs, e.put(s, fmt.Sprint("k", i%4), fmt.Sprint(i)))
		if i%5 == 4 {
			revs = append(revs, e.del(s, fmt.Sprint("k", i%4)))
		}
	}
	last := revs[len(revs)-1]
	w := e.watch(s, "", start)
	want := e.until(w, last)
	w.Close()
	lists := map[int64]store.ListResult{}
	for _, rev := range revs {
		lists[rev] = e.list(s, store.ListOptions{Revision: rev})
	}
	s = e.reopen(s)
	w = e.watch(s, "", start)
	defer w.Close()
	e.wantEvents("a watch from before reopening", e.until(w, last), want)
	for _, rev := range revs {
		got := e.list(s, store.ListOptions{Revision: rev})
		if len(got.KVs) != len(lists[rev].KVs) {
			e.fatalf("after reopening there are %d pairs at revision %d, want %d", len(got.KVs), rev, len(lists[rev].KVs))
		}
		for i := range got.KVs {
			e.wantKV(fmt.Sprintf("a pair at revision %d after reopening", rev), &got.KVs[i], &lists[rev].KVs[i])
		}
	}
}

func reopenCompacted(e *env) {
	s := e.new()
	var revs []int64
	for i := range 12 {
		revs = append(revs, e.put(s, fmt.Sprint("k", i%3), fmt.Sprint(i)))
	}
	revs = append(revs, e.del(s, "k0"))
	e.ok(s.Compact(e.ctx, revs[6]), "Compact")
	s = e.reopen(s)
	_, err := s.Get(e.ctx, "k0", revs[5])
	e.is(err, store.ErrCompacted, "Get at a revision compacted before reopening")
	w, err := s.Watch(e.ctx, store.WatchOptions{After: revs[5]})
	if err == nil {
		_, err = w.Next(e.ctx)
		w.Close()
	}
	e.is(err, store.ErrCompacted, "Watch after a revision compacted before reopening")
	if _, compacted, err := s.Revision(e.ctx); err != nil || compacted != revs[6] {
		e.fatalf("after reopening the oldest revision is %d, %v; want %d", compacted, err, revs[6])
	}
	e.wantKV("a key at the compacted revision", e.get(s, "k0", revs[6]), kv("k0", "6", revs[0], revs[6]))
	e.wantKV("a deleted key", e.get(s, "k0", 0), nil)
	w = e.watch(s, "", revs[6])
	defer w.Close()
	if events := e.until(w, revs[12]); len(events) != 6 || !sameKV(events[0].Prev, kv("k1", "4", revs[1], revs[4])) {
		e.fatalf("a watch after the compacted revision reports %d events, the first with Prev %s", len(events), describeKV(events[0].Prev))
	}
}
