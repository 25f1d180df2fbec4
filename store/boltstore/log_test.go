package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keelson/keelson/store"
)

// image is what is on disk of a store, by the end of the files' names.
type image map[string][]byte

// snap returns the files of a store that is open, as if its process had been killed.
func snap(t testing.TB, path string) image {
	t.Helper()
	out := image{}
	for _, end := range []string{"", ".log0", ".log1"} {
		b, err := os.ReadFile(path + end)
		if err == nil {
			out[end] = b
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return out
}

// quietly is snap at a moment when nothing is being written.
func quietly(t testing.TB, path string) image {
	t.Helper()
	for {
		before := snap(t, path)
		if files := snap(t, path); maps.EqualFunc(before, files, bytes.Equal) {
			return files
		}
	}
}

func (m image) write(t testing.TB, path string) {
	t.Helper()
	for _, end := range []string{"", ".log0", ".log1"} {
		_ = os.Remove(path + end)
		if b, ok := m[end]; ok {
			if err := os.WriteFile(path+end, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// everything describes all that a store has, history included.
func everything(t testing.TB, s *Store) string {
	t.Helper()
	ctx := context.Background()
	res, err := s.List(ctx, store.ListOptions{})
	if err != nil {
		return "error: " + err.Error()
	}
	out := fmt.Sprintf("%d %+v\n", res.Revision, res.KVs)
	current, floor, err := s.Revision(ctx)
	if err != nil {
		return "error: " + err.Error()
	}
	w, err := s.Watch(ctx, store.WatchOptions{After: floor})
	if err != nil {
		return "error: " + err.Error()
	}
	defer w.Close()
	for at := floor; at < current; {
		b, err := w.Next(ctx)
		if err != nil {
			return "error: " + err.Error()
		}
		for _, e := range b.Events {
			prev := "nothing"
			if e.Prev != nil {
				prev = fmt.Sprint(*e.Prev)
			}
			out += fmt.Sprintln(e.KV, e.Deleted, prev)
		}
		at = b.Revision
	}
	return out
}

// some makes random commits.
func some(t testing.TB, s *Store, r *rand.Rand, n int) {
	t.Helper()
	for range n {
		var ops []store.Op
		for _, k := range r.Perm(12)[:1+r.IntN(3)] {
			op := store.Put(fmt.Sprintf("key%02d", k), []byte(strings.Repeat(fmt.Sprint(k), r.IntN(600))), store.Any())
			if r.IntN(5) == 0 {
				op = store.Delete(op.Key, store.Any())
			}
			ops = append(ops, op)
		}
		if _, err := s.Commit(context.Background(), ops...); err != nil {
			t.Fatal(err)
		}
	}
}

// A store that was not closed is as it was, again and again, wherever its log and its file were.
func TestReplay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	r := rand.New(rand.NewPCG(1, 2))
	opts := Options{History: 60, LogBytes: 64 << 10}
	s := open(t, path, opts)
	again := filepath.Join(dir, "again")
	segments := map[int64]bool{}
	rounds := 30
	if testing.Short() {
		rounds = 15
	}
	for i := range rounds {
		some(t, s, r, 1+r.IntN(40))
		if i%7 == 3 {
			current, _, _ := s.Revision(t.Context())
			if err := s.Compact(t.Context(), current-int64(r.IntN(20))); err != nil {
				t.Fatal(err)
			}
		}
		if i == 12 {
			if err := s.Advance(t.Context(), 3000); err != nil {
				t.Fatal(err)
			}
		}
		quietly(t, path).write(t, again)
		want := everything(t, s)
		a := open(t, again, opts)
		if got := everything(t, a); got != want {
			t.Fatalf("after %d rounds it is\n%.400s\nwant\n%.400s", i, got, want)
		}
		segments[a.log.current.number] = true
		// What is written next is not confused with what was there.
		some(t, a, r, 5)
		want = everything(t, a)
		snap(t, again).write(t, filepath.Join(dir, "third"))
		b := open(t, filepath.Join(dir, "third"), opts)
		if got := everything(t, b); got != want {
			t.Fatalf("after %d rounds and another it is\n%.400s\nwant\n%.400s", i, got, want)
		}
		a.Close()
		b.Close()
		if left := snap(t, again); len(left) != 1 {
			t.Fatalf("Close leaves %v", slices.Collect(maps.Keys(left)))
		}
		a = open(t, again, opts)
		if got := everything(t, a); got != want {
			t.Fatalf("after %d rounds and Close it is\n%.400s\nwant\n%.400s", i, got, want)
		}
		a.Close()
	}
	if len(segments) < rounds/8 {
		t.Errorf("only the segments %v were seen", segments)
	}
}

// A write to the log that was interrupted takes nothing with it.
func TestTornTail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	s := open(t, path, Options{})
	put(t, s, "a", "1")
	put(t, s, "b", "2")
	want := everything(t, s)
	tail := int(s.log.tail)
	end := filepath.Base(s.log.file().Name())[1:]
	if _, err := s.Commit(t.Context(), store.Put("a", []byte(strings.Repeat("long", 1000)), store.Any()), store.Put("c", nil, store.Any())); err != nil {
		t.Fatal(err)
	}
	whole := everything(t, s)
	files, full := snap(t, path), int(s.log.tail)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 40 {
		torn := bytes.Clone(files[end])
		var was []byte
		switch {
		case i < 20: // cut
			torn = torn[:tail+i*(full-tail)/20]
		default: // sectors are missing, and the mark, which is only written after all others have been synced
			was = bytes.Clone(torn)
			for at := tail; at < full; at += sectorLen {
				if r.IntN(3) == 0 {
					clear(torn[at : at+sectorLen])
				}
			}
			marked := bytes.Clone(torn)
			clear(torn[full : full+sectorLen])
			if clear(was[full : full+sectorLen]); !bytes.Equal(was, torn) {
				m := maps.Clone(files)
				m[end] = marked
				p := filepath.Join(dir, "marked")
				m.write(t, p)
				var damage *DamageError
				if a, err := Open(p, Options{}); !errors.As(err, &damage) {
					t.Errorf("case %d: the log says that what is not there had been synced: %v", i, err)
					if err == nil {
						a.Close()
					}
				}
			}
		}
		m := maps.Clone(files)
		m[end] = torn
		p := filepath.Join(dir, "torn")
		m.write(t, p)
		a := open(t, p, Options{})
		got := everything(t, a)
		if got != want && !(got == whole && bytes.Equal(was, torn)) {
			t.Fatalf("case %d: it is\n%.300s\nwant\n%.300s", i, got, want)
		}
		put(t, a, "d", "4")
		if current, _, _ := a.Revision(t.Context()); got == want && current != 4 {
			t.Fatalf("case %d: the next revision is %d", i, current)
		}
		a.Close()
	}
}

// Every flipped bit in a log is noticed on open or harmless, also in its last record.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	r := rand.New(rand.NewPCG(5, 6))
	s := open(t, path, Options{LogBytes: 64 << 10})
	for s.overlayLen() == 0 || s.logNumber() < 3 {
		some(t, s, r, 10)
	}
	at := s.log.tail
	some(t, s, r, 1)
	want := everything(t, s)
	files := snap(t, path)
	newest := s.log.file().Name()[len(path):]
	other := logPath(path, s.log.current.number+1)[len(path):]
	noticed, harmless := 0, 0
	try := func(name string, m image) {
		t.Helper()
		p := filepath.Join(dir, "damaged")
		m.write(t, p)
		a, err := Open(p, Options{})
		var damage *DamageError
		if err != nil {
			if !errors.As(err, &damage) || !strings.Contains(damage.Path, "damaged") || damage.Where == "" {
				t.Errorf("%s: %v", name, err)
			}
			noticed++
			return
		}
		defer a.Close()
		if got := everything(t, a); got == want {
			harmless++
		} else {
			t.Errorf("%s leads to\n%.300s\nwant\n%.300s", name, got, want)
		}
	}
	tries := 140
	if testing.Short() {
		tries = 30
	}
	for n := range tries {
		end, b := newest, files[newest][:s.log.tail]
		if n%4 == 0 {
			end, b = other, files[other]
		}
		i := r.IntN(len(b))
		switch {
		case n < 4:
			i = n * 16
		case n%4 == 1: // in the last record
			i = int(at) + r.IntN(len(b)-int(at))
		}
		m := maps.Clone(files)
		m[end] = bytes.Clone(files[end])
		m[end][i] ^= 1 << r.IntN(8)
		try(fmt.Sprintf("bit of byte %d of %s", i, end), m)
	}
	for _, gone := range []string{newest, other} {
		m := maps.Clone(files)
		delete(m, gone)
		before := noticed
		try("no "+gone, m)
		if gone == newest && noticed == before {
			t.Error("the missing log is not noticed")
		}
		m[gone] = []byte("x")
		try("short "+gone, m)
	}
	// A log without its file, and a file without its log.
	m := maps.Clone(files)
	delete(m, "")
	try("no file", m)
	t.Logf("%d noticed, %d harmless", noticed, harmless)
	if noticed < tries/7 {
		t.Errorf("only %d damages are noticed", noticed)
	}
}

func (s *Store) overlayLen() int {
	s.overlay.mu.RLock()
	defer s.overlay.mu.RUnlock()
	return len(s.overlay.revs)
}

// logNumber is for tests that wait for the last answer before they call it.
func (s *Store) logNumber() int64 {
	if s.log == nil {
		return 0
	}
	return s.log.current.number
}

// Damage to the newest of bbolt's meta pages leads to the one before it, and so to a file that lacks its last transaction. Nothing is lost
// by that: it is in the log, or the log is missed.
func TestDamagedMeta(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	noticed, harmless := 0, 0
	check := func(what, want string) {
		t.Helper()
		files := quietly(t, path)
		meta, ok := readMeta(bytes.NewReader(files[""]))
		if !ok {
			t.Fatal("there is no meta page")
		}
		m := maps.Clone(files)
		m[""] = bytes.Clone(files[""])
		m[""][int(meta.txn%2)*int(meta.pageSize)+pageHeader+17] ^= 1
		if older, ok := readMeta(bytes.NewReader(m[""])); !ok || older.txn != meta.txn-1 {
			t.Fatalf("%s: the meta page left is %+v of %+v", what, older, meta)
		}
		p := filepath.Join(dir, "damaged")
		m.write(t, p)
		a, err := Open(p, Options{})
		var damage *DamageError
		if errors.As(err, &damage) {
			noticed++
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer a.Close()
		if got := everything(t, a); got != want {
			t.Errorf("%s: it is\n%.300s\nwant\n%.300s", what, got, want)
		}
		harmless++
	}
	r := rand.New(rand.NewPCG(7, 8))
	s := open(t, path, Options{History: 50, LogBytes: 64 << 10})
	some(t, s, r, 5)
	check("after the first commits", everything(t, s))
	for i := range 6 {
		some(t, s, r, 60)
		check(fmt.Sprint("while it is written, ", i), everything(t, s))
	}
	if err := s.Advance(t.Context(), 100_000); err != nil {
		t.Fatal(err)
	}
	check("after an advance", everything(t, s))
	want := everything(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check("after Close", want)
	s = open(t, path, Options{})
	if err := s.Advance(t.Context(), 200_000); err != nil {
		t.Fatal(err)
	}
	want = everything(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check("after nothing but an advance", want)
	t.Logf("%d noticed, %d harmless", noticed, harmless)
}

// Sweeping in several transactions, with the file as it is between any two of them.
func TestInterruptedSweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	s := open(t, path, Options{History: -1})
	for i := range 30 {
		var ops []store.Op
		for k := range 500 {
			op := store.Put(fmt.Sprint("key", k), []byte(fmt.Sprint(i)), store.Any())
			if (i+k)%7 == 0 {
				op = store.Delete(op.Key, store.Any())
			}
			ops = append(ops, op)
		}
		if _, err := s.Commit(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Compact(t.Context(), 29); err != nil {
		t.Fatal(err)
	}
	want := everything(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, Options{History: -1})
	for i, more := 0, true; more; i++ {
		var err error
		if more, err = s.file.sweep(29); err != nil {
			t.Fatal(err)
		}
		if i == 0 && !more {
			t.Fatal("one chunk is enough")
		}
		p := filepath.Join(dir, fmt.Sprint(i))
		snap(t, path).write(t, p)
		a := open(t, p, Options{History: -1})
		if got := everything(t, a); got != want {
			t.Fatalf("after %d chunks it is\n%.300s\nwant\n%.300s", i+1, got, want)
		}
		for more := true; more; {
			if more, err = a.file.sweep(29); err != nil {
				t.Fatal(err)
			}
		}
		a.Close()
		a = open(t, p, Options{History: -1})
		if got := everything(t, a); got != want {
			t.Fatalf("swept after %d chunks it is\n%.300s\nwant\n%.300s", i+1, got, want)
		}
		a.Close()
	}
}
