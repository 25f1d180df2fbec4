package storetest

import (
	"fmt"

	"github.com/keelson/keelson/store"
)

func compactChecks() []check {
	return []check{
		{name: "Compact/OldRevisions", run: compactOld},
		{name: "Compact/Idempotent", run: compactIdempotent},
		{name: "Compact/KeepsWhatIsCurrent", run: compactKeeps},
		{name: "Compact/SlowWatcher", run: compactSlowWatcher},
		{name: "Compact/WaitingWatcher", run: compactWaitingWatcher},
	}
}

func compactOld(e *env) {
	s := e.new()
	var revs []int64
	for i := range 10 {
		revs = append(revs, e.put(s, "a", fmt.Sprint(i)))
	}
	floor := revs[5]
	e.ok(s.Compact(e.ctx, floor), "Compact to %d", floor)
	for i, rev := range revs {
		res, err := s.Get(e.ctx, "a", rev)
		_, lerr := s.List(e.ctx, store.ListOptions{Revision: rev})
		w, werr := s.Watch(e.ctx, store.WatchOptions{After: rev})
		if i < 5 {
			e.is(err, store.ErrCompacted, "Get at %d, compacted to %d", rev, floor)
			e.is(lerr, store.ErrCompacted, "List at %d, compacted to %d", rev, floor)
			if werr == nil {
				_, werr = w.Next(e.ctx)
				w.Close()
			}
			e.is(werr, store.ErrCompacted, "Watch after %d, compacted to %d", rev, floor)
			continue
		}
		e.ok(err, "Get at %d, compacted to %d", rev, floor)
		e.ok(lerr, "List at %d, compacted to %d", rev, floor)
		e.ok(werr, "Watch after %d, compacted to %d", rev, floor)
		e.wantKV("the value", res.KV, &store.KV{Key: "a", Value: []byte(fmt.Sprint(i)), CreateRevision: revs[0], ModRevision: rev})
		if rev == revs[9] {
			w.Close()
			continue
		}
		events := e.until(w, revs[9])
		w.Close()
		if len(events) != 9-i {
			e.fatalf("a watch after %d reports %d events, want %d", rev, len(events), 9-i)
		}
		e.wantKV("Prev of the first event after the compacted revision", events[0].Prev, res.KV)
	}
	current, compacted, err := s.Revision(e.ctx)
	e.ok(err, "Revision")
	if compacted != floor || current < revs[9] {
		e.fatalf("Revision is %d, compacted to %d; want %d and %d", current, compacted, revs[9], floor)
	}
}

func compactIdempotent(e *env) {
	s := e.new()
	first := e.put(s, "a", "1")
	second := e.put(s, "a", "2")
	e.put(s, "a", "3")
	for _, rev := range []int64{second, second, first, 1} {
		e.ok(s.Compact(e.ctx, rev), "Compact to %d", rev)
		if _, compacted, err := s.Revision(e.ctx); err != nil || compacted != second {
			e.fatalf("after Compact to %d the oldest revision is %d, %v; want %d", rev, compacted, err, second)
		}
	}
	current := e.revision(s)
	e.ok(s.Compact(e.ctx, current), "Compact to the newest revision")
	e.wantKV("the value", e.get(s, "a", 0), e.get(s, "a", current))
	if rev := e.put(s, "a", "4"); rev <= current || !e.f.Shared && rev != current+1 {
		e.fatalf("a commit after compaction to %d returns %d", current, rev)
	}
}

func compactKeeps(e *env) {
	s := e.new()
	for i := range 30 {
		e.put(s, fmt.Sprintf("k%02d", i), fmt.Sprint("first", i))
	}
	for i := 0; i < 30; i += 3 {
		e.put(s, fmt.Sprintf("k%02d", i), fmt.Sprint("second", i))
		e.del(s, fmt.Sprintf("k%02d", i+1))
	}
	before := e.list(s, store.ListOptions{})
	e.ok(s.Compact(e.ctx, before.Revision), "Compact")
	after := e.list(s, store.ListOptions{})
	if len(before.KVs) != 20 || len(after.KVs) != 20 {
		e.fatalf("%d pairs before compaction and %d after it, want 20", len(before.KVs), len(after.KVs))
	}
	for i := range before.KVs {
		e.wantKV("a pair after compaction", &after.KVs[i], &before.KVs[i])
		e.wantKV("a pair after compaction", e.get(s, after.KVs[i].Key, 0), &before.KVs[i])
	}
}

func compactSlowWatcher(e *env) {
	s := e.new()
	start := e.put(s, "a", "0")
	behind, near := e.watch(s, "", start), e.watch(s, "", start)
	defer behind.Close()
	defer near.Close()
	var last int64
	for i := range 5 {
		last = e.put(s, "a", fmt.Sprint(i))
		if i == 2 {
			e.until(near, last)
			e.ok(s.Compact(e.ctx, last), "Compact")
		}
	}
	if n := len(e.until(near, last)); n != 2 {
		e.fatalf("a watcher at the compacted revision reports %d events, want 2", n)
	}
	// A store may have more than it must, but then it has everything.
	events, err := collect(e.ctx, behind, last)
	if err == nil {
		if len(events) != 5 {
			e.fatalf("a watcher behind compaction reports %d events without an error, want all 5 or ErrCompacted", len(events))
		}
		return
	}
	e.is(err, store.ErrCompacted, "Next of a watcher behind compaction")
	_, err = behind.Next(e.ctx)
	e.is(err, store.ErrCompacted, "the second Next of a watcher behind compaction")
}

// compactWaitingWatcher: what did not concern a watcher while it waited cannot be missed by it.
func compactWaitingWatcher(e *env) {
	s := e.new()
	start := e.put(s, "loud/a", "0")
	w := e.watch(s, "quiet/", start)
	defer w.Close()
	type result struct {
		events []store.Event
		err    error
	}
	got := make(chan result)
	waiting := make(chan struct{})
	go func() {
		close(waiting)
		events, err := collect(e.ctx, w, start+1)
		for err == nil && len(events) == 0 {
			var b store.Batch
			b, err = w.Next(e.ctx)
			events = b.Events
		}
		got <- result{events, err}
	}()
	<-waiting
	// It is not visible from here that Next waits, but the more time passes the surer it is.
	for i := range 50 {
		rev := e.put(s, "loud/a", fmt.Sprint(i))
		e.revision(s)
		if i == 49 {
			e.ok(s.Compact(e.ctx, rev-40), "Compact")
		}
	}
	rev := e.put(s, "quiet/a", "1")
	select {
	case r := <-got:
		e.ok(r.err, "Next")
		if len(r.events) != 1 || r.events[0].KV.ModRevision != rev {
			e.fatalf("the watcher reports %d events, want the one of revision %d", len(r.events), rev)
		}
	case <-e.ctx.Done():
		e.fatalf("the watcher does not report its event")
	}
}
