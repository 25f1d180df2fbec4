package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/keelson/keelson/store"
)

// commitEach is about store.CommitEach, which every store offers, by itself or by many commits at once.
func commitEach(e *env) {
	s := e.new()
	first := e.put(s, "taken", "0")
	w := e.watch(s, "", first)
	defer w.Close()
	const n = 150
	var commits [][]store.Op
	for i := range n {
		commits = append(commits, []store.Op{
			store.Put(fmt.Sprintf("a/%03d", i), []byte("1"), store.Absent()), store.Put(fmt.Sprintf("b/%03d", i), []byte("2"), store.Absent()),
		})
	}
	conflicting, invalid, idle := n/3, n/2, n-1
	commits[conflicting] = append(commits[conflicting], store.Check("taken", store.Absent()))
	commits[invalid] = []store.Op{store.Put("", nil, store.Any())}
	commits[idle] = []store.Op{store.Delete("nobody", store.Any())}
	results := store.CommitEach(e.ctx, s, commits)
	if len(results) != n {
		e.fatalf("%d results of %d commits", len(results), n)
	}
	var conflict *store.ConflictError
	if err := results[conflicting].Err; !errors.As(err, &conflict) || conflict.Key != "taken" {
		e.fatalf("the commit whose condition doesn't hold: %v", err)
	}
	e.is(results[invalid].Err, store.ErrInvalid, "the commit of an empty key")
	e.ok(results[idle].Err, "the commit that changes nothing")
	_, ordered := s.(store.EachCommitter)
	seen := map[int64]bool{}
	last := first
	for i, res := range results {
		if i == conflicting || i == invalid || i == idle {
			continue
		}
		e.ok(res.Err, "commit %d", i)
		if res.Revision <= first || seen[res.Revision] {
			e.fatalf("commit %d has revision %d, which isn't its own", i, res.Revision)
		}
		if seen[res.Revision] = true; ordered && res.Revision < last {
			e.fatalf("commit %d has revision %d, after one with %d", i, res.Revision, last)
		}
		last = max(last, res.Revision)
		for _, prefix := range []string{"a", "b"} {
			if kv := e.get(s, fmt.Sprintf("%s/%03d", prefix, i), 0); kv == nil || kv.ModRevision != res.Revision {
				e.fatalf("commit %d at revision %d put %+v", i, res.Revision, kv)
			}
		}
	}
	if kv := e.get(s, fmt.Sprintf("a/%03d", conflicting), 0); kv != nil {
		e.fatalf("half of a commit happened: %+v", kv)
	}
	if got := len(e.until(w, last)); got != 2*(n-3) {
		e.fatalf("the watcher has %d events, want %d", got, 2*(n-3))
	}
}

// commitEachRaces has several change the same keys.
func commitEachRaces(e *env) {
	s := e.new()
	rev := e.put(s, "k/0", "")
	const writers, keys = 4, 20
	won := make([]int, keys)
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	for range writers {
		wg.Go(func() {
			commits := make([][]store.Op, keys)
			for i := range commits {
				cond := store.Absent()
				if i == 0 {
					cond = store.At(rev)
				}
				commits[i] = []store.Op{store.Put(fmt.Sprintf("k/%d", i), []byte("x"), cond)}
			}
			for i, res := range store.CommitEach(e.ctx, s, commits) {
				mu.Lock()
				switch {
				case res.Err == nil:
					won[i]++
				case !errors.Is(res.Err, store.ErrConflict):
					failed = res.Err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	e.ok(failed, "CommitEach")
	for i, n := range won {
		if n != 1 {
			e.fatalf("key %d was written by %d of %d", i, n, writers)
		}
	}
}

func commitEachCancelled(e *env) {
	s := e.new()
	rev := e.put(s, "a", "")
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	for _, res := range store.CommitEach(ctx, s, [][]store.Op{{store.Put("b", nil, store.Any())}, {store.Put("c", nil, store.Any())}}) {
		e.is(res.Err, context.Canceled, "CommitEach with a context that has ended")
	}
	if now := e.revision(s); now != rev && !e.f.Shared {
		e.fatalf("the revision went from %d to %d", rev, now)
	}
}
