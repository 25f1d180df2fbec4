package coretest

import (
	"context"
	"errors"
	"testing"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/memstore"
)

// Store returns a store in memory that is closed at the end of the test.
func Store(t testing.TB) store.Store {
	t.Helper()
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Start runs a core until the test ends. It has Groups and Store unless o names others.
func Start(t testing.TB, o core.Options) *core.Core {
	t.Helper()
	if o.Store == nil {
		o.Store = Store(t)
	}
	if o.Groups == nil {
		o.Groups = Groups()
	}
	c, err := core.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	if err := c.WaitReady(context.Background()); err != nil {
		t.Fatal(err)
	}
	return c
}
