package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/keelson/keelson/store"
)

// CompactionLeavesWatchersTheirTurn tests a store that keeps some events beside its history: a watcher that has not had its turn is not slow, and what
// it is about to report is not taken from it. It isn't part of Run, for the contract leaves it to the store how much it keeps.
func CompactionLeavesWatchersTheirTurn(t *testing.T, s store.Store) {
	t.Helper()
	w, err := s.Watch(t.Context(), store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var last int64
	for i := range 50 {
		if last, err = s.Commit(t.Context(), store.Put("k", []byte(fmt.Sprint(i)), store.Any())); err != nil {
			t.Fatal(err)
		}
		if err := s.Compact(t.Context(), last); err != nil {
			t.Fatal(err)
		}
	}
	next, at := 0, int64(0)
	for at < last {
		b, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range b.Events {
			if got := string(ev.KV.Value); got != fmt.Sprint(next) {
				t.Fatalf("an event of %s, want %d", got, next)
			}
			next++
		}
		at = b.Revision
	}
	if next != 50 {
		t.Fatalf("%d events, want 50", next)
	}
	if _, err := s.Watch(t.Context(), store.WatchOptions{After: last - 1}); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("a new watch from before the compaction: %v", err)
	}
}
