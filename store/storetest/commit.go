package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/keelson/keelson/store"
)

func commitChecks() []check {
	return []check{
		{name: "Commit/Empty", run: emptyStore},
		{name: "Commit/PutGet", run: putGet},
		{name: "Commit/Revisions", run: revisions},
		{name: "Commit/Conditions", run: conditions},
		{name: "Commit/Atomic", run: atomicity},
		{name: "Commit/NoEffect", run: noEffect},
		{name: "Commit/Invalid", run: invalid},
		{name: "Commit/Recreate", run: recreate},
		{name: "Commit/Large", run: large},
		{name: "Commit/CompareAndSwap", run: compareAndSwap},
		{name: "Commit/Each", run: commitEach},
		{name: "Commit/EachRaces", run: commitEachRaces},
		{name: "Commit/EachCancelled", run: commitEachCancelled},
	}
}

func emptyStore(e *env) {
	s := e.new()
	current, compacted, err := s.Revision(e.ctx)
	e.ok(err, "Revision")
	if current < 1 || !e.f.Shared && current != 1 || compacted > current {
		e.fatalf("an empty store is at revision %d, compacted to %d", current, compacted)
	}
	e.wantKV("an absent key", e.get(s, "a", 0), nil)
	if res := e.list(s, store.ListOptions{}); len(res.KVs) > 0 || res.More || res.Remaining > 0 || res.Revision != current {
		e.fatalf("List of an empty store is %+v", res)
	}
}

func putGet(e *env) {
	s := e.new()
	for i, kv := range [][2]string{
		{"a", "1"},
		{"empty", ""},
		{"/registry/pods/default/web-0", "k8s\x00\x01\x02"},
		{"\x00", "zero"},
		{"\xff\xfe", "not utf-8 \xff\x00"},
		{strings.Repeat("long/", 100), strings.Repeat("v", 100_000)},
	} {
		rev := e.put(s, kv[0], kv[1])
		want := &store.KV{Key: kv[0], Value: []byte(kv[1]), CreateRevision: rev, ModRevision: rev}
		res, err := s.Get(e.ctx, kv[0], 0)
		e.ok(err, "Get(%q)", kv[0])
		e.wantKV(fmt.Sprintf("pair %d", i), res.KV, want)
		if res.Revision != rev {
			e.fatalf("Get reads at revision %d, want %d", res.Revision, rev)
		}
		next := e.put(s, kv[0], kv[1]+"2")
		want = &store.KV{Key: kv[0], Value: []byte(kv[1] + "2"), CreateRevision: rev, ModRevision: next}
		e.wantKV(fmt.Sprintf("updated pair %d", i), e.get(s, kv[0], 0), want)
	}
	if e.commit(s, store.Put("nil", nil, store.Any())); e.get(s, "nil", 0) == nil {
		e.fatalf("a key with a nil value is absent")
	}
}

func revisions(e *env) {
	s := e.new()
	last := e.revision(s)
	for i := range 50 {
		rev := e.put(s, fmt.Sprint("k", i%7), "v")
		if rev <= last || !e.f.Shared && rev != last+1 {
			e.fatalf("a commit at revision %d returns %d", last, rev)
		}
		if got := e.revision(s); got < rev || !e.f.Shared && got != rev {
			e.fatalf("Revision is %d after a commit returned %d", got, rev)
		}
		last = rev
	}
	if rev := e.del(s, "k1"); rev <= last || !e.f.Shared && rev != last+1 {
		e.fatalf("a delete at revision %d returns %d", last, rev)
	}
}

func conditions(e *env) {
	s := e.new()
	old := e.put(s, "there", "1")
	e.put(s, "other", "1")
	now := e.put(s, "there", "2")
	there := e.get(s, "there", 0)
	for _, c := range []struct {
		key  string
		cond store.Condition
		ok   bool
	}{
		{"there", store.Any(), true},
		{"there", store.Present(), true},
		{"there", store.At(now), true},
		{"there", store.At(old), false},
		{"there", store.At(now + 1000), false},
		{"there", store.Absent(), false},
		{"absent", store.Any(), true},
		{"absent", store.Absent(), true},
		{"absent", store.Present(), false},
		{"absent", store.At(now), false},
	} {
		// Successes are tried with checks, so that nothing changes in between.
		kinds := []store.Op{store.Check(c.key, c.cond)}
		if !c.ok {
			kinds = append(kinds, store.Put(c.key, []byte("x"), c.cond), store.Delete(c.key, c.cond))
		}
		for _, op := range kinds {
			before := e.revision(s)
			_, err := s.Commit(e.ctx, op)
			if c.ok {
				e.ok(err, "Commit(%s)", describe([]store.Op{op}))
				continue
			}
			var conflict *store.ConflictError
			if !errors.As(err, &conflict) || !errors.Is(err, store.ErrConflict) {
				e.fatalf("Commit(%s): error is %v, want a *ConflictError", describe([]store.Op{op}), err)
			}
			var want *store.KV
			if c.key == "there" {
				want = there
			}
			e.wantKV("ConflictError.Current", conflict.Current, want)
			if conflict.Key != c.key || conflict.If != c.cond || conflict.Revision < before {
				e.fatalf("ConflictError is %+v for key %q, condition %v, revision %d", conflict, c.key, c.cond, before)
			}
			e.wantKV("what is there after a conflict", e.get(s, c.key, 0), want)
			if after := e.revision(s); !e.f.Shared && after != before {
				e.fatalf("a conflict raises the revision from %d to %d", before, after)
			}
		}
	}
	e.commit(s, store.Put("there", []byte("3"), store.At(now)))
	if _, err := s.Commit(e.ctx, store.Put("there", []byte("4"), store.At(now))); !errors.Is(err, store.ErrConflict) {
		e.fatalf("a put at a stale revision: error is %v, want a conflict", err)
	}
	e.commit(s, store.Delete("there", store.Present()))
	if _, err := s.Commit(e.ctx, store.Delete("there", store.Present())); !errors.Is(err, store.ErrConflict) {
		e.fatalf("a delete of what has been deleted, if present: error is %v, want a conflict", err)
	}
	e.commit(s, store.Put("there", []byte("5"), store.Absent()))
}

func atomicity(e *env) {
	s := e.new()
	a := e.put(s, "a", "1")
	e.put(s, "b", "1")
	w := e.watch(s, "", e.revision(s))
	defer w.Close()
	_, err := s.Commit(e.ctx,
		store.Put("c", []byte("new"), store.Absent()),
		store.Put("a", []byte("2"), store.At(a)),
		store.Delete("b", store.Any()),
		store.Check("d", store.Present()))
	e.is(err, store.ErrConflict, "Commit with a last op that conflicts")
	e.wantKV("a key of a commit that failed", e.get(s, "c", 0), nil)
	if kv := e.get(s, "a", 0); kv == nil || kv.ModRevision != a {
		e.fatalf("a commit that failed has changed a key to %s", describeKV(kv))
	}
	// Conditions see the state before the commit, whatever the order of the ops.
	rev := e.commit(s,
		store.Put("d", []byte("new"), store.Absent()),
		store.Delete("b", store.Present()),
		store.Put("a", []byte("2"), store.At(a)),
		store.Check("c", store.Absent()))
	for _, k := range []string{"a", "d"} {
		if kv := e.get(s, k, 0); kv == nil || kv.ModRevision != rev {
			e.fatalf("after a commit of revision %d %q is %s", rev, k, describeKV(kv))
		}
	}
	e.wantKV("a key that the commit deleted", e.get(s, "b", 0), nil)
	// One revision is one batch or part of one, its events ordered by key.
	b, err := w.Next(e.ctx)
	e.ok(err, "Next")
	for len(b.Events) == 0 {
		b, err = w.Next(e.ctx)
		e.ok(err, "Next")
	}
	keys := ""
	for _, ev := range b.Events {
		keys += ev.KV.Key
		if ev.KV.ModRevision != rev {
			e.fatalf("event of %q has revision %d, want %d", ev.KV.Key, ev.KV.ModRevision, rev)
		}
	}
	if keys != "abd" {
		e.fatalf("the events of one commit are of keys %q, want a, b, d", keys)
	}
}

func noEffect(e *env) {
	s := e.new()
	a := e.put(s, "a", "1")
	for _, ops := range [][]store.Op{
		nil,
		{store.Check("a", store.At(a))},
		{store.Delete("absent", store.Any())},
		{store.Delete("absent", store.Absent()), store.Check("a", store.Present())},
	} {
		rev := e.commit(s, ops...)
		if rev < a || !e.f.Shared && rev != a {
			e.fatalf("Commit(%s) returns revision %d, want %d", describe(ops), rev, a)
		}
		if got := e.revision(s); !e.f.Shared && got != a {
			e.fatalf("Commit(%s) raises the revision from %d to %d", describe(ops), a, got)
		}
	}
	if rev := e.put(s, "a", "1"); rev <= a {
		e.fatalf("a put of the same value returns revision %d, want one above %d", rev, a)
	}
}

func invalid(e *env) {
	s := e.new()
	before := e.revision(s)
	for _, ops := range [][]store.Op{
		{store.Put("", []byte("x"), store.Any())},
		{store.Put("a", nil, store.Any()), store.Delete("", store.Any())},
		{store.Check("", store.Any())},
		{store.Put("a", nil, store.Any()), store.Put("a", []byte("x"), store.Any())},
		{store.Put("a", nil, store.Any()), store.Put("b", nil, store.Any()), store.Check("a", store.Any())},
		{store.Put("a", nil, store.At(0))},
		{store.Put("a", nil, store.At(-1))},
		{{Kind: 77, Key: "a"}},
	} {
		_, err := s.Commit(e.ctx, ops...)
		e.is(err, store.ErrInvalid, "Commit(%s)", describe(ops))
	}
	_, err := s.Get(e.ctx, "", 0)
	e.is(err, store.ErrInvalid, "Get of an empty key")
	_, err = s.Get(e.ctx, "a", -1)
	e.is(err, store.ErrInvalid, "Get at revision -1")
	_, err = s.List(e.ctx, store.ListOptions{Revision: -1})
	e.is(err, store.ErrInvalid, "List at revision -1")
	_, err = s.List(e.ctx, store.ListOptions{Limit: -1})
	e.is(err, store.ErrInvalid, "List with limit -1")
	_, err = s.Watch(e.ctx, store.WatchOptions{After: -1})
	e.is(err, store.ErrInvalid, "Watch after revision -1")
	e.is(s.Compact(e.ctx, -1), store.ErrInvalid, "Compact to revision -1")
	if res := e.list(s, store.ListOptions{}); len(res.KVs) > 0 || !e.f.Shared && res.Revision != before {
		e.fatalf("invalid calls have left %d pairs and revision %d", len(res.KVs), res.Revision)
	}
}

func recreate(e *env) {
	s := e.new()
	first := e.put(s, "a", "1")
	second := e.put(s, "a", "2")
	e.wantKV("an updated key", e.get(s, "a", 0), &store.KV{Key: "a", Value: []byte("2"), CreateRevision: first, ModRevision: second})
	e.del(s, "a")
	e.wantKV("a deleted key", e.get(s, "a", 0), nil)
	again := e.put(s, "a", "3")
	e.wantKV("a key created again", e.get(s, "a", 0), &store.KV{Key: "a", Value: []byte("3"), CreateRevision: again, ModRevision: again})
}

func large(e *env) {
	s := e.new()
	w := e.watch(s, "", 0)
	defer w.Close()
	big := []byte(strings.Repeat("0123456789abcdef", 1<<16))
	e.commit(s, store.Put("big", big, store.Any()))
	if kv := e.get(s, "big", 0); kv == nil || string(kv.Value) != string(big) {
		e.fatalf("a value of 1 MiB does not come back")
	}
	var ops []store.Op
	for i := range e.f.MaxOps {
		ops = append(ops, store.Put(fmt.Sprintf("many/%06d", (i*7919)%e.f.MaxOps), []byte("v"), store.Absent()))
	}
	rev := e.commit(s, ops...)
	res := e.list(s, store.ListOptions{Prefix: "many/"})
	if len(res.KVs) != len(ops) {
		e.fatalf("a commit of %d puts leaves %d pairs", len(ops), len(res.KVs))
	}
	if events := e.until(w, rev); len(events) != len(ops)+1 {
		e.fatalf("there are %d events of %d puts", len(events), len(ops)+1)
	}
}

// compareAndSwap lets goroutines increment one counter, round by round from the same revision,
// and keep a second key equal to it.
func compareAndSwap(e *env) {
	const workers, rounds = 8, 25
	s := e.new()
	e.commit(s, store.Put("n", []byte("0"), store.Absent()), store.Put("m", []byte("0"), store.Absent()))
	for round := range rounds {
		res := e.list(s, store.ListOptions{})
		m, n := res.KVs[0], res.KVs[1]
		if string(n.Value) != fmt.Sprint(round) || string(m.Value) != string(n.Value) || m.ModRevision != n.ModRevision {
			e.fatalf("after %d rounds two keys always committed together are %s and %s", round, describeKV(&m), describeKV(&n))
		}
		next := []byte(fmt.Sprint(round + 1))
		errs := make([]error, workers)
		var wg sync.WaitGroup
		for i := range workers {
			wg.Go(func() {
				_, errs[i] = s.Commit(e.ctx, store.Put("n", next, store.At(n.ModRevision)), store.Put("m", next, store.Any()))
			})
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				e.is(err, store.ErrConflict, "Commit of one who lost")
			}
		}
		if won != 1 {
			e.fatalf("of %d commits that require the same revision %d succeed", workers, won)
		}
	}
}
