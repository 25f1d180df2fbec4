package powercut

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestBrokenStoresAreCaught shows that power cuts find what does not keep its promise.
func TestBrokenStoresAreCaught(t *testing.T) {
	m := newMount(t)
	without := func(kind opKind) func([]op) []op {
		return func(ops []op) []op {
			return slices.DeleteFunc(slices.Clone(ops), func(o op) bool { return o.kind == kind })
		}
	}
	for _, c := range []struct {
		name    string
		session session
		change  func([]op) []op // of the record
		want    string
	}{
		{"acknowledges before it syncs", session{Commits: 200, Clients: 3, Lie: true}, nil, "no state that it has been in"},
		{"never syncs its files", session{Commits: 200, Clients: 3}, without(opSync), ""},
		{"never syncs its directory", session{Commits: 200, Clients: 3}, without(opSyncDir), ""},
		{"syncs after the answer", session{Commits: 200, Clients: 3}, func(ops []op) []op {
			ops = slices.Clone(ops)
			for i := range ops { // each sync changes place with the next answer
				if ops[i].kind != opSync {
					continue
				}
				for j := i + 1; j < min(len(ops), i+8); j++ {
					if ops[j].kind == opNote && strings.Contains(string(ops[j].data), `"ok"`) {
						ops[i], ops[j] = ops[j], ops[i]
						break
					}
				}
			}
			return ops
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := firstTrace(strings.ReplaceAll(c.name, " ", "-"), false)
			m.sessions(t, tr, c.session)
			if c.change != nil {
				tr.ops = c.change(tr.ops)
			}
			err := replayParallel(t, tr, 400, 1, nil)
			if err == nil {
				t.Fatal("400 power cuts find nothing")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("power cuts find %v, want %q", err, c.want)
			}
			t.Log(err)
		})
	}
}

// TestFaults has each write, sync, truncate, link, rename and unlink of a workload fail once, and some of them in other ways or several
// times in a row, with what comes after it: nothing acknowledged may be lost, then or by a later power cut, and when the
// disk works again so does the store.
func TestFaults(t *testing.T) {
	m := newMount(t)
	runs, step := 200, 1
	if testing.Short() {
		runs, step = 40, 7
	}
	if v := os.Getenv("KEELSON_FAULTS"); v != "" {
		_, _ = fmt.Sscan(v, &runs)
	}
	work := session{Commits: 24, Clients: 1, Large: true, Twice: true}
	whole := firstTrace("whole", false)
	m.sessions(t, whole, work)
	total := 0
	for _, o := range whole.ops {
		if o.kind != opNote {
			total++
		}
	}
	modes := []struct {
		name  string
		fault fault
	}{
		{"EIO", fault{length: 1, errno: syscall.EIO}},
		{"ENOSPC", fault{length: 1, errno: syscall.ENOSPC}},
		{"short", fault{length: 1, short: true}},
		{"EIO, again and again", fault{length: 5, errno: syscall.EIO}},
		{"ENOSPC, again and again", fault{length: 12, errno: syscall.ENOSPC}},
	}
	type attempt struct {
		mode   string
		fault  fault
		noLink bool
	}
	var attempts []attempt
	// What happens rarely fails in any case.
	for _, kind := range []opKind{opCreate, opLink, opRename, opUnlink, opTruncate, opSyncDir} {
		for n := 1; n <= 4; n++ {
			for _, mode := range modes[:2] {
				f := mode.fault
				f.n, f.kind = n, &kind
				attempts = append(attempts, attempt{mode.name, f, kind == opRename})
			}
		}
	}
	// Each fails once.
	for n := 1; n <= total; n += step {
		f := modes[0].fault
		f.n = n
		attempts = append(attempts, attempt{modes[0].name, f, false})
	}
	for i := range runs {
		mode := modes[i%len(modes)]
		f := mode.fault
		f.n = 1 + i*total/runs
		attempts = append(attempts, attempt{mode.name, f, i/len(modes)%3 == 0})
	}
	var mu sync.Mutex
	hits, refused, failed, unknown := map[string]int{}, 0, 0, 0
	next := 0
	var wg sync.WaitGroup
	for range 2 {
		w := newWorker(t)
		c := &cutter{dir: scratch(t), seed: 7}
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(attempts) {
					return
				}
				f := attempts[i].fault
				name := fmt.Sprint("run", i)
				tr := firstTrace(name, false)
				d, dir := m.disk(name, nil)
				d.fault, d.noLink = f, attempts[i].noLink
				s := work
				s.Dir, s.Tag = dir, name
				err := w.do(s)
				if err == nil {
					tr.ops = m.done(name, d)
					err = c.afterFault(tr, f)
				}
				if err != nil {
					t.Errorf("run %d, %s from operation %d on, a %s: %v", i, attempts[i].mode, f.n, d.hit, err)
					return
				}
				mu.Lock()
				hits[d.hit]++
				for _, o := range tr.ops {
					if o.kind == opNote {
						for _, n := range notes(o.data) {
							switch n.What {
							case "broken":
								refused++
							case "failed":
								failed++
							case "unknown":
								unknown++
							}
						}
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("of %d operations failed %v; %d commits failed, %d with an unknown outcome, and %d times the store did not open", total, hits, failed, unknown, refused)
	for kind := opWrite; kind < opNote; kind++ {
		if hits[opNames[kind]] == 0 {
			t.Errorf("no %s has failed", opNames[kind])
		}
	}
}

// afterFault looks at what a workload has left that has met a fault: as it is, and after power cuts.
func (c *cutter) afterFault(tr *trace, f fault) error {
	if err := tr.history.learn(tr.ops); err != nil {
		return err
	}
	tr.history.extend()
	ok, tried, broken := 0, 0, false
	first := len(tr.ops)
	if f.kind != nil {
		first = 0
	}
	count := 0
	for i, o := range tr.ops {
		if o.kind != opNote {
			if count++; count >= f.n {
				first = min(first, i)
			}
			continue
		}
		for _, n := range notes(o.data) {
			switch n.What {
			case "ok":
				ok++
			case "try":
				tried++
			case "broken":
				broken = true
			}
		}
	}
	if lost := tried - ok; lost > f.length+1 || broken && f.length == 1 && tried == 0 && first > 60 {
		return fmt.Errorf("%d of %d commits fail, the store opens %v", lost, tried, !broken)
	}
	// As it is without a power cut.
	r, k := newReplay(tr.start), tr.began.clone()
	for _, o := range tr.ops {
		if o.kind == opNote {
			for _, n := range notes(o.data) {
				k.step(n)
			}
		} else {
			r.step(o)
		}
	}
	for _, d := range r.dirty {
		applyName(r.names, d)
	}
	r.dirty = nil
	for _, f := range r.files {
		for i := range f.since {
			f.since[i].certain = true
		}
	}
	c.seed++
	if err := c.try(tr, len(tr.ops), r, k); err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	for range 3 {
		c.seed++
		at := min(len(tr.ops), first+rand.New(rand.NewPCG(c.seed, 3)).IntN(len(tr.ops)-first+1))
		if err := c.cutAt(tr, at); err != nil {
			return fmt.Errorf("after a power cut at operation %d of %d: %w", at, len(tr.ops), err)
		}
	}
	return nil
}

// cutAt cuts the power at one point.
func (c *cutter) cutAt(tr *trace, at int) error {
	r, k := newReplay(tr.start), tr.began.clone()
	for _, o := range tr.ops[:at] {
		if o.kind == opNote {
			for _, n := range notes(o.data) {
				k.step(n)
			}
		} else {
			r.step(o)
		}
	}
	return c.try(tr, at, r, k)
}
