package storetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/keelson/keelson/store"
)

func randomChecks() []check {
	var out []check
	for seed := range uint64(4) {
		out = append(out, check{name: fmt.Sprintf("Random/%d", seed), run: func(e *env) { random(e, seed) }})
	}
	return out
}

// model is a store that is too simple to be wrong: it keeps every state it has been in.
type model struct {
	states []state // by revision
	events []store.Event
}

type state struct {
	rev  int64
	keys map[string]store.KV
}

func (m *model) at(rev int64) state {
	if rev == 0 {
		return m.states[len(m.states)-1]
	}
	i, found := slices.BinarySearchFunc(m.states, rev, func(s state, rev int64) int { return int(s.rev - rev) })
	if !found {
		i--
	}
	return m.states[i]
}

// commit returns whether ops would conflict or change something, without doing it.
func (m *model) outcome(ops []store.Op) (conflict string, effective bool) {
	now := m.at(0).keys
	for _, op := range ops {
		have, ok := now[op.Key]
		if !op.If.Holds(have.ModRevision) {
			return op.Key, false
		}
		effective = effective || op.Kind == store.OpPut || op.Kind == store.OpDelete && ok
	}
	return "", effective
}

func (m *model) commit(rev int64, ops []store.Op) {
	next := maps.Clone(m.at(0).keys)
	sorted := slices.SortedFunc(slices.Values(ops), func(a, b store.Op) int { return strings.Compare(a.Key, b.Key) })
	for _, op := range sorted {
		var prev *store.KV
		if p, ok := next[op.Key]; ok {
			prev = &p
		}
		switch {
		case op.Kind == store.OpPut:
			kv := store.KV{Key: op.Key, Value: op.Value, CreateRevision: rev, ModRevision: rev}
			if prev != nil {
				kv.CreateRevision = prev.CreateRevision
			}
			next[op.Key] = kv
			m.events = append(m.events, store.Event{KV: kv, Prev: prev})
		case op.Kind == store.OpDelete && prev != nil:
			delete(next, op.Key)
			m.events = append(m.events, store.Event{KV: store.KV{Key: op.Key, ModRevision: rev}, Deleted: true, Prev: prev})
		}
	}
	m.states = append(m.states, state{rev, next})
}

func (m *model) list(opts store.ListOptions) (page []store.KV, remaining int) {
	keys := m.at(opts.Revision).keys
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if !strings.HasPrefix(k, opts.Prefix) || opts.After != "" && k <= opts.After {
			continue
		}
		if opts.Limit > 0 && len(page) == opts.Limit {
			remaining++
			continue
		}
		page = append(page, keys[k])
	}
	return page, remaining
}

func (m *model) since(after int64, prefix string) []store.Event {
	var out []store.Event
	for _, ev := range m.events {
		if ev.KV.ModRevision > after && strings.HasPrefix(ev.KV.Key, prefix) {
			out = append(out, ev)
		}
	}
	return out
}

// random does the same random calls on the store and the model and compares the answers.
func random(e *env, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	s := e.new()
	start := e.revision(s)
	m := &model{states: []state{{start, map[string]store.KV{}}}}
	floor := start
	keys := []int{5, 12, 40, 40}[seed%4]
	key := func() string {
		k := r.IntN(keys)
		return fmt.Sprintf("%c/%02d", 'a'+k%3, k)
	}
	prefix := func() string { return []string{"", "a/", "b/", "c/0", "zz"}[r.IntN(5)] }
	type cursor struct {
		w      store.Watcher
		prefix string
		after  int64
	}
	var cursors []cursor
	defer func() {
		for _, c := range cursors {
			c.w.Close()
		}
	}()
	oldRev := func() int64 {
		if r.IntN(3) == 0 {
			return 0
		}
		return m.states[r.IntN(len(m.states))].rev
	}
	// compacted says whether err is right for a call at rev, and whether the answer counts.
	compacted := func(err error, rev int64, what string) bool {
		if !errors.Is(err, store.ErrCompacted) {
			e.ok(err, "%s", what)
			if rev != 0 && rev < floor {
				e.fatalf("%s succeeds, compacted to %d", what, floor)
			}
			return false
		}
		_, now, rerr := s.Revision(e.ctx)
		e.ok(rerr, "Revision")
		floor = max(floor, now)
		if rev == 0 || rev >= floor {
			e.fatalf("%s: %v, but the oldest revision is %d", what, err, floor)
		}
		return true
	}
	for step := range 900 {
		what := fmt.Sprintf("step %d of seed %d: ", step, seed)
		switch p := r.IntN(100); {
		case p < 55:
			seen := map[string]bool{}
			var ops []store.Op
			for range 1 + r.IntN(3)*r.IntN(2) {
				k := key()
				if seen[k] {
					continue
				}
				seen[k] = true
				var cond store.Condition
				have := m.at(0).keys[k].ModRevision
				switch c := r.IntN(10); {
				case c < 4 && have > 0:
					cond = store.At(have)
				case c == 4:
					cond = store.At(1 + have/2)
				case c == 5:
					cond = store.Present()
				case c == 6:
					cond = store.Absent()
				}
				op := store.Put(k, []byte(fmt.Sprint(seed, step, strings.Repeat("x", r.IntN(200)))), cond)
				switch r.IntN(6) {
				case 0, 1:
					op = store.Delete(k, cond)
				case 2:
					op = store.Check(k, cond)
				}
				ops = append(ops, op)
			}
			what += "Commit(" + describe(ops) + ")"
			conflict, effective := m.outcome(ops)
			last := m.at(0).rev
			rev, err := s.Commit(e.ctx, ops...)
			if conflict != "" {
				var ce *store.ConflictError
				if !errors.As(err, &ce) {
					e.fatalf("%s: error is %v, want a conflict on %q", what, err, conflict)
				}
				var want *store.KV
				if have, ok := m.at(0).keys[ce.Key]; ok {
					want = &have
				}
				e.wantKV(what+": ConflictError.Current", ce.Current, want)
				continue
			}
			e.ok(err, "%s", what)
			if !e.f.Shared && rev != last+1 && effective || rev < last || rev == last && effective || !e.f.Shared && !effective && rev != last {
				e.fatalf("%s at revision %d returns %d, effective is %v", what, last, rev, effective)
			}
			if effective {
				m.commit(rev, ops)
			}
		case p < 70:
			k, rev := key(), oldRev()
			what += fmt.Sprintf("Get(%q, %d), compacted to %d", k, rev, floor)
			res, err := s.Get(e.ctx, k, rev)
			if compacted(err, rev, what) {
				continue
			}
			var want *store.KV
			if kv, ok := m.at(rev).keys[k]; ok {
				want = &kv
			}
			e.wantKV(what, res.KV, want)
		case p < 85:
			opts := store.ListOptions{Prefix: prefix(), Limit: r.IntN(6), Revision: oldRev()}
			if r.IntN(2) == 0 {
				opts.After = key()
			}
			what += fmt.Sprintf("List(%+v), compacted to %d", opts, floor)
			res, err := s.List(e.ctx, opts)
			if compacted(err, opts.Revision, what) {
				continue
			}
			want, remaining := m.list(opts)
			if len(res.KVs) != len(want) || res.More != (remaining > 0) || res.Remaining != int64(remaining) && res.Remaining != -1 {
				e.fatalf("%s has %d pairs, more %v, %d remaining; want %d pairs and %d remaining", what, len(res.KVs), res.More, res.Remaining, len(want), remaining)
			}
			for i := range want {
				e.wantKV(what, &res.KVs[i], &want[i])
			}
		case p < 90 && len(cursors) < 8:
			c := cursor{prefix: prefix(), after: max(1, oldRev())}
			what += fmt.Sprintf("Watch(%q after %d), compacted to %d", c.prefix, c.after, floor)
			w, err := s.Watch(e.ctx, store.WatchOptions{Prefix: c.prefix, After: c.after})
			if compacted(err, c.after, what) {
				continue
			}
			c.w = w
			cursors = append(cursors, c)
		case p < 96 && len(cursors) > 0:
			i := r.IntN(len(cursors))
			c := cursors[i]
			what += fmt.Sprintf("a watcher of %q after %d", c.prefix, c.after)
			rev := e.revision(s)
			if rev > c.after {
				events, err := collect(e.ctx, c.w, rev)
				if errors.Is(err, store.ErrCompacted) {
					if compacted(err, c.after, what) && len(events) == 0 {
						c.w.Close()
						cursors = slices.Delete(cursors, i, i+1)
						continue
					}
				}
				e.ok(err, "%s", what)
				e.wantEvents(what, events, m.since(c.after, c.prefix))
			}
			cursors[i].after = rev
			if r.IntN(3) == 0 {
				c.w.Close()
				cursors = slices.Delete(cursors, i, i+1)
			}
		case p == 96:
			rev := m.states[r.IntN(len(m.states))].rev
			e.ok(s.Compact(e.ctx, rev), "%sCompact to %d", what, rev)
			floor = max(floor, rev)
		case p == 97 && e.f.Reopen != nil:
			for _, c := range cursors {
				c.w.Close()
			}
			cursors = nil
			s = e.reopen(s)
		}
	}
	want, _ := m.list(store.ListOptions{})
	got := e.list(s, store.ListOptions{})
	if len(got.KVs) != len(want) {
		e.fatalf("in the end there are %d pairs, want %d", len(got.KVs), len(want))
	}
	for i := range want {
		e.wantKV("in the end a pair", &got.KVs[i], &want[i])
	}
}
