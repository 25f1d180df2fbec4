package powercut

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keelson/keelson/store/boltstore"
)

// trace is a record and what is known of what the store has been through.
type trace struct {
	name    string
	start   image
	began   known // what must be there at the beginning
	history *history
	ops     []op
	relaxed bool
	noLink  bool
}

// points returns how many power cuts are to be tried.
func points() int {
	n := 3000
	if testing.Short() {
		n = 300
	}
	if v := os.Getenv("KEELSON_POWERCUTS"); v != "" {
		_, _ = fmt.Sscan(v, &n)
	}
	return n
}

// scratch returns a directory in memory if there is one.
func scratch(t *testing.T) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "powercut-*"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

// sessions has a disk worked on and returns the trace.
func (m *mount) sessions(t *testing.T, tr *trace, sessions ...session) {
	t.Helper()
	d, dir := m.disk(tr.name, tr.start)
	d.noLink = tr.noLink
	var w *worker
	for i, s := range sessions {
		s.Dir, s.Tag = dir, fmt.Sprint(tr.name, ".", i)
		if w == nil {
			w = newWorker(t)
		}
		if err := w.do(s); err != nil {
			t.Fatalf("%s: session %d: %v", tr.name, i, err)
		}
		if s.Kill {
			w = nil
		}
	}
	tr.ops = m.done(tr.name, d)
	if err := tr.history.learn(tr.ops); err != nil {
		t.Fatalf("%s: %v", tr.name, err)
	}
	tr.history.extend()
}

// cutter opens what power cuts leave.
type cutter struct {
	dir  string
	seed uint64
	// found is called with what is well.
	found func(tr *trace, files map[string]file, k known, f found)
}

func (c *cutter) write(files map[string]file) (path string, err error) {
	for _, name := range []string{"s", "s.log0", "s.log1"} {
		if _, ok := files[name]; !ok {
			if err := os.Remove(filepath.Join(c.dir, name)); err != nil && !os.IsNotExist(err) {
				return "", err
			}
		}
	}
	for name, f := range files {
		p := filepath.Join(c.dir, name)
		if err := os.WriteFile(p, f.data, 0o600); err != nil {
			return "", err
		}
		if err := os.Truncate(p, f.size); err != nil {
			return "", err
		}
	}
	return filepath.Join(c.dir, "s"), nil
}

// try cuts the power at one point and opens the store again.
func (c *cutter) try(tr *trace, at int, r *replay, k known) (err error) {
	rng := rand.New(rand.NewPCG(c.seed, uint64(at)))
	files := r.cut(rng)
	path, err := c.write(files)
	if err != nil {
		return err
	}
	opts := options()
	if tr.relaxed {
		opts.RelaxedPrefixes = []string{"r"}
	}
	s, err := boltstore.Open(path, opts)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := s.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("Close: %w", cerr)
		}
	}()
	ctx := context.Background()
	f, err := tr.history.check(ctx, s, k)
	if err != nil {
		return err
	}
	if c.found != nil {
		c.found(tr, files, k, f)
	}
	if err := goesOn(ctx, s, k, f); err != nil || rng.IntN(4) > 0 {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = boltstore.Open(path, opts); err != nil {
		return fmt.Errorf("opening it once more: %w", err)
	}
	if rev, _, err := s.Revision(ctx); err != nil || rev != f.rev+1 {
		return fmt.Errorf("opened once more the revision is %d, want %d, %w", rev, f.rev+1, err)
	}
	return nil
}

// replayAll tries n points of the trace, in order, and returns what is wrong with the first bad one.
func (c *cutter) replayAll(tr *trace, n int, from, step int) error {
	rng := rand.New(rand.NewPCG(c.seed, 99))
	var at []int
	for range n {
		at = append(at, rng.IntN(len(tr.ops)+1))
	}
	slices.Sort(at)
	r, k := newReplay(tr.start), tr.began.clone()
	done := 0
	for i, p := range at {
		if i%step != from {
			continue
		}
		for ; done < p; done++ {
			if o := tr.ops[done]; o.kind == opNote {
				for _, n := range notes(o.data) {
					k.step(n)
				}
			} else {
				r.step(o)
			}
		}
		c.seed++
		if err := c.try(tr, p, r, k); err != nil {
			return fmt.Errorf("%s, power cut %d (seed %d) at operation %d of %d: %w", tr.name, i, c.seed, p, len(tr.ops), err)
		}
	}
	return nil
}

// replayParallel tries n points with two goroutines.
func replayParallel(t *testing.T, tr *trace, n int, seed uint64, onFound func(*trace, map[string]file, known, found)) error {
	t.Helper()
	const workers = 2
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for i := range workers {
		c := &cutter{dir: scratch(t), seed: seed + uint64(i)<<32, found: onFound}
		wg.Go(func() { errs[i] = c.replayAll(tr, n, i, workers) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func firstTrace(name string, relaxed bool) *trace {
	return &trace{name: name, start: image{}, began: known{acked: 1, handedOut: 1, failed: map[string]bool{}}, history: newHistory(), relaxed: relaxed}
}

// TestPowerCuts records what a store writes through several lives, cuts the power wherever it may, and opens
// what is left: with all that was acknowledged, nothing half-done, no revision given out twice. Then it
// records what a store does that finds such a disk, and cuts its power too.
func TestPowerCuts(t *testing.T) {
	m := newMount(t)
	const rounds = 2
	perTrace := max(1, points()/(rounds*4))
	var total atomic.Int64
	for round := range uint64(rounds) {
		for _, relaxed := range []bool{false, true} {
			tr := firstTrace(fmt.Sprintf("t%d%v", round, relaxed), relaxed)
			tr.noLink = round == 1
			if relaxed {
				m.sessions(t, tr, session{Seed: round, Commits: 400, Clients: 3, Relaxed: true, Pause: true, Large: round%2 == 1})
			} else {
				m.sessions(t, tr,
					session{Seed: round, Commits: 250, Clients: 3, Pause: round == 0, Kill: true, Large: true},
					session{Seed: round + 10, Commits: 80, Clients: 2, Kill: true},
					session{Seed: round + 20, Commits: 300, Clients: 4, Large: round%2 == 0, Twice: true})
			}
			// One of the disks, to go on from.
			var mu sync.Mutex
			var next *trace
			pick := rand.IntN(perTrace)
			n := 0
			err := replayParallel(t, tr, perTrace, round*1000, func(tr *trace, files map[string]file, k known, f found) {
				total.Add(1)
				mu.Lock()
				defer mu.Unlock()
				if n++; n < pick && next != nil {
					return
				}
				if n > pick && next != nil {
					return
				}
				next = after(tr, files, k, f)
			})
			if err != nil {
				t.Error(err)
				continue
			}
			next.name = tr.name + "x"
			m.sessions(t, next,
				session{Seed: round + 30, Commits: 120, Clients: 3, Relaxed: relaxed, Kill: !relaxed},
				session{Seed: round + 40, Commits: 120, Clients: 3, Relaxed: relaxed, Large: true})
			if err := replayParallel(t, next, perTrace, round*1000+500, func(*trace, map[string]file, known, found) { total.Add(1) }); err != nil {
				t.Error(err)
			}
			t.Logf("%s: %d operations, then %d", tr.name, len(tr.ops), len(next.ops))
		}
	}
	t.Logf("%d power cuts", total.Load())
}

// after is a trace that begins with what a power cut has left.
func after(tr *trace, files map[string]file, k known, f found) *trace {
	start := image{}
	for name, file := range files {
		b := make([]byte, file.size)
		copy(b, file.data)
		start[name] = b
	}
	// What was given out after the cut never was.
	k = k.clone()
	k.acked, k.handedOut = f.rev, f.rev
	return &trace{start: start, began: k, history: tr.history.branch(f), relaxed: tr.relaxed}
}
