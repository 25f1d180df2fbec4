package powercut

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/boltstore"
)

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// note is a line that a workload writes.
type note struct {
	// What is "try", "ok", "relaxed" (ok, but not durable yet), "failed", "unknown", "compacted", or "seen" when
	// the store is opened and the revision is there.
	What string            `json:",omitempty"`
	ID   string            `json:",omitempty"`
	Puts map[string]string `json:",omitempty"`
	Dels []string          `json:",omitempty"`
	Rev  int64             `json:",omitempty"`
	Err  string            `json:",omitempty"`
}

// commit is one that was tried.
type commit struct {
	puts map[string]string
	dels []string
}

// state is what the keys have at a revision.
type state map[string]pair

type pair struct {
	value       string
	create, mod int64
}

// history is what a store has been through, as far as its users know.
type history struct {
	first   int64 // the revision of states[0]
	states  []state
	commits map[string]commit // by ID
	byRev   map[int64]string  // IDs of commits that are known to have had the revision
}

func newHistory() *history {
	return &history{first: 1, states: []state{{}}, commits: map[string]commit{}, byRev: map[int64]string{}}
}

func (h *history) at(rev int64) (state, bool) {
	if i := rev - h.first; i >= 0 && i < int64(len(h.states)) {
		return h.states[i], true
	}
	return nil, false
}

// next returns the state after the commit, at revision rev.
func (s state) next(c commit, rev int64) state {
	out := maps.Clone(s)
	for k, v := range c.puts {
		p := pair{value: v, create: rev, mod: rev}
		if old, ok := s[k]; ok {
			p.create = old.create
		}
		out[k] = p
	}
	for _, k := range c.dels {
		delete(out, k)
	}
	return out
}

// known is what was known at a point of a record.
type known struct {
	acked     int64           // the newest revision that must be there
	handedOut int64           // the newest that was handed out, durable or not
	floor     int64           // acknowledged compaction
	failed    map[string]bool // IDs of commits that are certainly not there
}

func (k known) clone() known {
	k.failed = maps.Clone(k.failed)
	return k
}

func (k *known) step(n note) {
	switch n.What {
	case "ok", "seen":
		k.acked, k.handedOut = max(k.acked, n.Rev), max(k.handedOut, n.Rev)
	case "relaxed":
		k.handedOut = max(k.handedOut, n.Rev)
	case "compacted":
		k.floor = max(k.floor, n.Rev)
	case "failed":
		k.failed[n.ID] = true
	}
}

// notes decodes what was written in one go.
func notes(data []byte) []note {
	var out []note
	for line := range strings.Lines(string(data)) {
		var n note
		if err := json.Unmarshal([]byte(line), &n); err != nil {
			panic(fmt.Sprintf("note %q: %v", line, err))
		}
		out = append(out, n)
	}
	return out
}

// learn adds to h what a record says of commits.
func (h *history) learn(ops []op) error {
	for _, o := range ops {
		if o.kind != opNote {
			continue
		}
		for _, n := range notes(o.data) {
			switch n.What {
			case "try":
				h.commits[n.ID] = commit{n.Puts, n.Dels}
			case "ok", "relaxed", "seen":
				if id, ok := h.byRev[n.Rev]; ok && id != n.ID {
					return fmt.Errorf("revision %d was given to %s and to %s", n.Rev, id, n.ID)
				}
				h.byRev[n.Rev] = n.ID
			}
		}
	}
	return nil
}

// extend makes the states as far as the revisions are known without a gap.
func (h *history) extend() {
	for {
		rev := h.first + int64(len(h.states))
		id, ok := h.byRev[rev]
		if !ok {
			return
		}
		h.states = append(h.states, h.states[len(h.states)-1].next(h.commits[id], rev))
	}
}

// branch returns the history of the store that f was found in.
func (h *history) branch(f found) *history {
	at, ok := h.at(f.floor)
	if !ok { // its revision was raised
		at, _ = h.at(f.as)
	}
	b := &history{first: f.floor, states: []state{at}, commits: h.commits, byRev: map[int64]string{}}
	for rev := f.floor + 1; rev <= f.rev; rev++ {
		id, ok := f.byRev[rev]
		if !ok {
			id = h.byRev[rev]
		}
		b.byRev[rev] = id
	}
	b.extend()
	return b
}

// found is what check has seen in a store.
type found struct {
	rev, as int64 // the store's revision, and that of the history whose state it has
	floor   int64
	byRev   map[int64]string // commits that nobody knew the revision of
}

// check compares an open store with what it must and what it may have.
func (h *history) check(ctx context.Context, s *boltstore.Store, k known) (f found, err error) {
	if f.rev, f.floor, err = s.Revision(ctx); err != nil {
		return f, err
	}
	if f.rev < k.acked {
		return f, fmt.Errorf("the revision is %d, and %d was acknowledged", f.rev, k.acked)
	}
	if f.floor < k.floor {
		return f, fmt.Errorf("history begins at %d, and compaction to %d was acknowledged", f.floor, k.floor)
	}
	list, err := s.List(ctx, store.ListOptions{})
	if err != nil {
		return f, err
	}
	has := state{}
	for _, kv := range list.KVs {
		has[kv.Key] = pair{string(kv.Value), kv.CreateRevision, kv.ModRevision}
	}
	// Events first: they tell which commits there are that nobody has heard of.
	f.byRev = map[int64]string{}
	byRev := map[int64][]store.Event{}
	if f.rev > f.floor {
		w, err := s.Watch(ctx, store.WatchOptions{After: f.floor})
		if err != nil {
			return f, err
		}
		defer w.Close()
		for reached := f.floor; reached < f.rev; {
			b, err := w.Next(ctx)
			if err != nil {
				return f, fmt.Errorf("watching after %d: %w", reached, err)
			}
			for _, e := range b.Events {
				byRev[e.KV.ModRevision] = append(byRev[e.KV.ModRevision], e)
			}
			reached = b.Revision
		}
	}
	at, ok := h.at(f.floor)
	if !ok {
		if f.floor < f.rev {
			return f, fmt.Errorf("history begins at %d, and only %d to %d are known", f.floor, h.first, h.first+int64(len(h.states))-1)
		}
		// Relaxed commits were lost and the revision was raised. What is there is some state since the last durable commit.
		for as := max(k.acked, h.first); ; as++ {
			s, ok := h.at(as)
			if !ok {
				return f, fmt.Errorf("at revision %d, after %d, it has no state that it has been in: %v", f.rev, k.acked, has)
			}
			if maps.Equal(s, has) {
				f.as = as
				return f, nil
			}
		}
	}
	for rev := f.floor + 1; rev <= f.rev; rev++ {
		id, sure := h.byRev[rev]
		events := byRev[rev]
		if !sure || !h.matches(id, events, at, rev) {
			other := ""
			for _, e := range events {
				if i := strings.IndexByte(string(e.KV.Value), ':'); i > 0 {
					other = string(e.KV.Value[:i])
				}
			}
			if sure && rev <= k.handedOut {
				return f, fmt.Errorf("revision %d was given to %s, and has %s: %v", rev, id, other, describe(events))
			}
			if _, tried := h.commits[other]; !tried || !h.matches(other, events, at, rev) {
				return f, fmt.Errorf("revision %d is not what %s was to do, %+v after %v: %v", rev, other, h.commits[other], at, describe(events))
			}
			id = other
			f.byRev[rev] = id
		}
		if k.failed[id] {
			return f, fmt.Errorf("%s, of revision %d, has failed and is there", id, rev)
		}
		at = at.next(h.commits[id], rev)
	}
	if !maps.Equal(at, has) {
		return f, fmt.Errorf("at revision %d, with history from %d, it has\n%v\nwant\n%v", f.rev, f.floor, has, at)
	}
	f.as = f.rev
	return f, nil
}

func describe(events []store.Event) (out []string) {
	for _, e := range events {
		out = append(out, fmt.Sprintf("%s=%.20s deleted %v", e.KV.Key, e.KV.Value, e.Deleted))
	}
	return out
}

// matches reports whether events are what a commit does to a state.
func (h *history) matches(id string, events []store.Event, before state, rev int64) bool {
	c, ok := h.commits[id]
	if !ok {
		return false
	}
	after := before.next(c, rev)
	want := 0
	for _, k := range c.dels {
		if _, ok := before[k]; ok {
			want++
		}
	}
	if want += len(c.puts); want != len(events) {
		return false
	}
	for _, e := range events {
		prev, had := before[e.KV.Key]
		if had != (e.Prev != nil) || had && prev != (pair{string(e.Prev.Value), e.Prev.CreateRevision, e.Prev.ModRevision}) {
			return false
		}
		now, is := after[e.KV.Key]
		if is == e.Deleted || is && now != (pair{string(e.KV.Value), e.KV.CreateRevision, e.KV.ModRevision}) {
			return false
		}
	}
	return true
}

// goesOn checks that the store can be written and gives out no revision twice.
func goesOn(ctx context.Context, s *boltstore.Store, k known, f found) error {
	rev, err := s.Commit(ctx, store.Put("a", []byte("x"), store.Any()), store.Put("z", []byte("y"), store.Any()))
	if err != nil {
		return fmt.Errorf("the next commit: %w", err)
	}
	if rev <= k.handedOut || rev != f.rev+1 {
		return fmt.Errorf("the next commit after revision %d is %d, and %d was handed out", f.rev, rev, k.handedOut)
	}
	return nil
}
