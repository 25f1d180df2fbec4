package apiserver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
)

// However many wait, one works at a time, and each gets a round that began after it came.
func TestCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var working, rounds atomic.Int32
		broken := errors.New("broken")
		c := newCatchUp(func(context.Context) error {
			if working.Add(1) > 1 {
				t.Error("two at a time")
			}
			defer working.Add(-1)
			time.Sleep(time.Second)
			if rounds.Add(1) == 2 {
				return broken
			}
			return nil
		}, logr.Discard())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.wait(t.Context()); err != nil {
				t.Errorf("first: %v", err)
			}
		})
		synctest.Wait()
		gone, cancel := context.WithCancel(t.Context())
		wg.Go(func() { c.wait(gone) }) // works for the others although it is gone
		synctest.Wait()
		cancel()
		for range 100 {
			wg.Go(func() {
				if err := c.wait(t.Context()); !errors.Is(err, broken) {
					t.Errorf("second: %v", err)
				}
				if rounds.Load() < 2 {
					t.Error("shared a round that had begun before")
				}
			})
		}
		wg.Wait()
		if n := rounds.Load(); n != 2 {
			t.Errorf("%d rounds for 102 callers, want 2", n)
		}
		if err := c.wait(t.Context()); err != nil {
			t.Errorf("third: %v", err)
		}
	})
}

// A store that doesn't answer holds up a refusal for a bounded time.
func TestCatchUpGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUp(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, logr.Discard())
		start := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := c.wait(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(start); d > 2*catchUpLimit {
			t.Errorf("waited %v", d)
		}
	})
}
