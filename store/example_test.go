package store_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/memstore"
)

// A reader lists and then watches from the list's revision: it misses nothing and sees nothing twice.
func Example() {
	ctx := context.Background()
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	rev, _ := s.Commit(ctx, store.Put("/pods/a", []byte("pending"), store.Absent()))
	list, _ := s.List(ctx, store.ListOptions{Prefix: "/pods/"})
	fmt.Println(len(list.KVs), "pod at revision", list.Revision)

	w, _ := s.Watch(ctx, store.WatchOptions{Prefix: "/pods/", After: list.Revision})
	defer w.Close()
	_, _ = s.Commit(ctx, store.Put("/pods/a", []byte("running"), store.At(rev)))
	_, err = s.Commit(ctx, store.Put("/pods/a", []byte("failed"), store.At(rev)))
	fmt.Println("stale:", errors.Is(err, store.ErrConflict))

	batch, _ := w.Next(ctx)
	for _, ev := range batch.Events {
		fmt.Printf("%s: %s, before %s\n", ev.KV.Key, ev.KV.Value, ev.Prev.Value)
	}
	// Output:
	// 1 pod at revision 2
	// stale: true
	// /pods/a: running, before pending
}

// A fork answers what-if questions without touching the original.
func ExampleStore_fork() {
	ctx := context.Background()
	s, _ := memstore.New(memstore.Options{})
	defer s.Close()
	_, _ = s.Commit(ctx, store.Put("replicas", []byte("3"), store.Any()))

	whatIf := s.Fork()
	defer whatIf.Close()
	_, _ = whatIf.Commit(ctx, store.Put("replicas", []byte("300"), store.Any()))

	a, _ := s.Get(ctx, "replicas", 0)
	b, _ := whatIf.Get(ctx, "replicas", 0)
	fmt.Printf("%s and %s\n", a.KV.Value, b.KV.Value)
	// Output: 3 and 300
}
