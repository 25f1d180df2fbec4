package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keelson/keelson/store"
)

// childRoom makes the test binary a process whose files may not grow beyond a limit for a while.
const childRoom = "KEELSON_BOLTSTORE_ROOM"

// TestDiskFull runs out of room, and then there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if !canLimitFiles {
		t.Skip("the size of files cannot be limited on this system")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childRoom+"="+filepath.Join(t.TempDir(), "s"))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "passed\n") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func roomChild() {
	if err := room(os.Getenv(childRoom)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("passed")
}

func room(path string) error {
	ctx := context.Background()
	s, err := Open(path, Options{RelaxedPrefixes: []string{"relaxed/"}})
	if err != nil {
		return err
	}
	w, err := s.Watch(ctx, store.WatchOptions{})
	if err != nil {
		return err
	}
	defer w.Close()
	val := []byte(strings.Repeat("v", 20_000))
	acked := map[string]int64{}
	var mu sync.Mutex
	fill := func() (failed int, err error) {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for n := range 200 {
					key := fmt.Sprintf("k/%d/%d", i, n)
					if n%5 == 0 {
						key = "relaxed/" + key
					}
					rev, cerr := s.Commit(ctx, store.Put(key, val, store.Any()))
					mu.Lock()
					switch {
					case cerr == nil:
						acked[key] = rev
					case errors.Is(cerr, store.ErrUnknownOutcome):
						err = fmt.Errorf("a write that failed for want of room has an unknown outcome: %w", cerr)
					default:
						failed++
						var perr *fs.PathError
						if !errors.As(cerr, &perr) && !strings.Contains(cerr.Error(), "file too large") {
							err = fmt.Errorf("a write that failed for want of room: %w", cerr)
						}
					}
					mu.Unlock()
					if cerr != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		return failed, err
	}
	check := func() error {
		for key, rev := range acked {
			res, err := s.Get(ctx, key, 0)
			if err != nil || res.KV == nil || res.KV.ModRevision < rev || len(res.KV.Value) != len(val) {
				return fmt.Errorf("%s, acknowledged at %d, is %v, %w", key, rev, res.KV, err)
			}
		}
		res, err := s.List(ctx, store.ListOptions{KeysOnly: true})
		if err != nil || len(res.KVs) != len(acked) {
			return fmt.Errorf("there are %d keys and %d were acknowledged, %w", len(res.KVs), len(acked), err)
		}
		return nil
	}
	if err := limitFiles(8 << 20); err != nil {
		return err
	}
	failed, err := fill()
	if err != nil {
		return err
	}
	if failed == 0 {
		return errors.New("no write fails for want of room")
	}
	for range 3 { // it fails again, and the store can still be read
		if _, err := s.Commit(ctx, store.Put("more", val, store.Any())); err == nil {
			acked["more"] = 1
		}
		if err := check(); err != nil {
			return fmt.Errorf("while there is no room: %w", err)
		}
	}
	if err := limitFiles(1 << 40); err != nil {
		return err
	}
	before := len(acked)
	if failed, err := fill(); err != nil || failed > 0 {
		return fmt.Errorf("%d writes fail when there is room again: %w", failed, err)
	}
	if err := check(); err != nil {
		return fmt.Errorf("when there is room again: %w", err)
	}
	// The watcher has seen what was acknowledged and nothing else.
	current, _, err := s.Revision(ctx)
	if err != nil {
		return err
	}
	seen := map[string]int64{}
	for reached := int64(0); reached < current; {
		b, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for _, ev := range b.Events {
			seen[ev.KV.Key] = ev.KV.ModRevision
		}
		reached = b.Revision
	}
	if len(seen) != len(acked) {
		return fmt.Errorf("the watcher has seen %d keys, and %d were acknowledged", len(seen), len(acked))
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = Open(path, Options{}); err != nil {
		return err
	}
	if err := check(); err != nil {
		return fmt.Errorf("after reopening: %w", err)
	}
	fmt.Printf("%d keys fit, %d in the end\n", before, len(acked))
	return s.Close()
}
