package storetest_test

import (
	"context"
	"testing"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/memstore"
	"github.com/keelson/keelson/store/storetest"
)

func newMem(context.Context) (store.Store, error) { return memstore.New(memstore.Options{}) }

func TestMemstore(t *testing.T) {
	storetest.Run(t, storetest.Factory{New: newMem})
}

func TestFork(t *testing.T) {
	parent, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, storetest.Factory{New: func(ctx context.Context) (store.Store, error) { return parent.Fork(), nil }})
}

// A memstore is reopened by forking it: nothing is lost.
func TestMemstoreReopened(t *testing.T) {
	storetest.Run(t, storetest.Factory{
		New:    newMem,
		Reopen: func(_ context.Context, s store.Store) (store.Store, error) { return s.(*memstore.Store).Fork(), nil },
	})
}

func TestTrimmedMemstore(t *testing.T) {
	for name, err := range storetest.Check(t.Context(), storetest.Factory{
		New: func(context.Context) (store.Store, error) { return memstore.New(memstore.Options{History: 300}) },
	}, "Random/0", "Random/1", "Random/2", "Random/3") {
		t.Error(name, err)
	}
}
