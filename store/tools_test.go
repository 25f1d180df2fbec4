package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/boltstore"
	"github.com/keelson/keelson/store/memstore"
)

func newMem(t testing.TB, opts memstore.Options) *memstore.Store {
	t.Helper()
	s, err := memstore.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newBolt(t testing.TB) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "s"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s store.Store, key, value string) int64 {
	t.Helper()
	rev, err := s.Commit(context.Background(), store.Put(key, []byte(value), store.Any()))
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func same(t testing.TB, a, b store.Store, want int64) {
	t.Helper()
	if n, err := store.Compare(context.Background(), a, b, store.CompareOptions{}); err != nil || n != want {
		t.Fatalf("%d keys are the same, want %d: %v", n, want, err)
	}
}

// writing changes s until the returned function is called.
func writing(t testing.TB, s store.Store) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			ops := []store.Op{
				store.Put(fmt.Sprintf("k%05d", i*37%3000), []byte(fmt.Sprint("changed ", i)), store.Any()),
				store.Put(fmt.Sprintf("z%05d", i%50), nil, store.Any()),
				store.Delete(fmt.Sprintf("k%05d", i*101%3000), store.Any()),
			}
			if ops[0].Key == ops[2].Key {
				ops = ops[:2]
			}
			if _, err := s.Commit(context.Background(), ops...); err != nil {
				t.Error(err)
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

func TestSnapshotAndRestore(t *testing.T) {
	for name, makeStore := range map[string]func() store.Store{
		"memstore":  func() store.Store { return newMem(t, memstore.Options{}) },
		"boltstore": func() store.Store { return newBolt(t) },
	} {
		t.Run(name, func(t *testing.T) {
			src := makeStore()
			for i := range 30 {
				var ops []store.Op
				for j := range 100 {
					ops = append(ops, store.Put(fmt.Sprintf("k%05d", i*100+j), bytes.Repeat([]byte{byte(i)}, j), store.Any()))
				}
				if _, err := src.Commit(t.Context(), ops...); err != nil {
					t.Fatal(err)
				}
			}
			put(t, src, "\xff\x00", "")
			stop := writing(t, src)
			var buf bytes.Buffer
			calls := 0
			info, err := store.Snapshot(t.Context(), src, &buf, func(store.SnapshotInfo) { calls++ })
			stop()
			if err != nil || info.Bytes != int64(buf.Len()) || calls < 2 {
				t.Fatalf("%+v of %d bytes, %d calls: %v", info, buf.Len(), calls, err)
			}
			verified, err := store.ReadSnapshot(bytes.NewReader(buf.Bytes()), nil)
			if err != nil || verified != info {
				t.Fatalf("verified %+v, want %+v: %v", verified, info, err)
			}
			dst := makeStore()
			if got, err := store.Restore(t.Context(), dst, bytes.NewReader(buf.Bytes()), store.RestoreOptions{}); err != nil || got != info {
				t.Fatalf("restored %+v, want %+v: %v", got, info, err)
			}
			// It has what the source had at the snapshot's revision.
			want, err := src.List(t.Context(), store.ListOptions{Revision: info.Revision})
			if err != nil {
				t.Fatal(err)
			}
			got, err := dst.List(t.Context(), store.ListOptions{})
			if err != nil || len(got.KVs) != len(want.KVs) {
				t.Fatalf("%d pairs, want %d: %v", len(got.KVs), len(want.KVs), err)
			}
			for i := range want.KVs {
				if got.KVs[i].Key != want.KVs[i].Key || !bytes.Equal(got.KVs[i].Value, want.KVs[i].Value) {
					t.Fatalf("pair %d is %q, want %q", i, got.KVs[i].Key, want.KVs[i].Key)
				}
			}
			// Whoever remembers a revision of the old store has to list again.
			newest, _, _ := src.Revision(t.Context())
			for _, rev := range []int64{2, info.Revision, newest, info.Revision + 500_000_000} {
				if _, err := dst.Watch(t.Context(), store.WatchOptions{After: rev}); !errors.Is(err, store.ErrCompacted) {
					t.Errorf("a watch after the old revision %d: %v, want ErrCompacted", rev, err)
				}
			}
			rev := put(t, dst, "new", "1")
			if rev != info.Revision+1_000_000_001 {
				t.Errorf("the first commit after restoring is %d", rev)
			}
			w, err := dst.Watch(t.Context(), store.WatchOptions{After: rev - 1})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if b, err := w.Next(t.Context()); err != nil || len(b.Events) != 1 || b.Events[0].KV.Key != "new" {
				t.Errorf("the first batch after restoring is %+v, %v", b, err)
			}
			if _, err := store.Restore(t.Context(), dst, bytes.NewReader(buf.Bytes()), store.RestoreOptions{}); !errors.Is(err, store.ErrInvalid) {
				t.Errorf("restoring into a store that is not empty: %v", err)
			}
		})
	}
}

func TestAdvanceSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := boltstore.Open(path, boltstore.Options{RelaxedPrefixes: []string{"r/"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		put(t, s, fmt.Sprint("k", i%4), "v")
		put(t, s, fmt.Sprint("r/", i%4), "v")
	}
	if err := s.Advance(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = boltstore.Open(path, boltstore.Options{}); err != nil {
			t.Fatal(err)
		}
		current, floor, err := s.Revision(t.Context())
		if current != 1000+int64(i) || floor != 1000 || err != nil {
			t.Fatalf("revision %d, compacted to %d, %v", current, floor, err)
		}
		res, err := s.List(t.Context(), store.ListOptions{})
		if err != nil || len(res.KVs) != 8 {
			t.Fatal(len(res.KVs), err)
		}
		put(t, s, "k1", "again")
	}
	if err := s.Advance(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	if rev := put(t, s, "k1", "last"); rev != 1004 {
		t.Fatalf("revision %d after an advance to a lower one", rev)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedSnapshots(t *testing.T) {
	s := newMem(t, memstore.Options{})
	for i := range 20 {
		put(t, s, fmt.Sprint("key", i), strings.Repeat("v", i))
	}
	var buf bytes.Buffer
	if _, err := store.Snapshot(t.Context(), s, &buf, nil); err != nil {
		t.Fatal(err)
	}
	good := buf.Bytes()
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if _, err := store.ReadSnapshot(bytes.NewReader(bad), nil); !errors.Is(err, store.ErrBadSnapshot) {
			t.Errorf("byte %d damaged: %v", i, err)
		}
		if _, err := store.ReadSnapshot(bytes.NewReader(good[:i]), nil); !errors.Is(err, store.ErrBadSnapshot) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if _, err := store.ReadSnapshot(io.MultiReader(bytes.NewReader(good), strings.NewReader("x")), nil); !errors.Is(err, store.ErrBadSnapshot) {
		t.Errorf("with something behind it: %v", err)
	}
}

func FuzzReadSnapshot(f *testing.F) {
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	put(f, s, "a", "1")
	put(f, s, "b", "2")
	var buf bytes.Buffer
	if _, err := store.Snapshot(context.Background(), s, &buf, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add(buf.Bytes()[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		n := int64(0)
		info, err := store.ReadSnapshot(bytes.NewReader(b), func(store.KV) error { n++; return nil })
		if err == nil && info.Keys != n {
			t.Fatalf("%d keys, visited %d", info.Keys, n)
		}
	})
}

// brokenWriter fails after some bytes.
type brokenWriter struct{ left int }

func (w *brokenWriter) Write(b []byte) (int, error) {
	if len(b) > w.left {
		return w.left, io.ErrShortWrite
	}
	w.left -= len(b)
	return len(b), nil
}

func TestSnapshotToBrokenWriter(t *testing.T) {
	s := newMem(t, memstore.Options{})
	put(t, s, "a", strings.Repeat("v", 300_000))
	var whole bytes.Buffer
	if _, err := store.Snapshot(t.Context(), s, &whole, nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 10, 100_000, whole.Len() - 33, whole.Len() - 1} {
		if _, err := store.Snapshot(t.Context(), s, &brokenWriter{n}, nil); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("a writer that fails after %d bytes: %v", n, err)
		}
	}
}

func TestCopyWhileWritten(t *testing.T) {
	stores := map[string]func() store.Store{
		"memstore":  func() store.Store { return newMem(t, memstore.Options{History: 1 << 20}) },
		"boltstore": func() store.Store { return newBolt(t) },
	}
	for from, makeSrc := range stores {
		for to, makeDst := range stores {
			t.Run(from+" to "+to, func(t *testing.T) {
				src, dst := makeSrc(), makeDst()
				for i := 0; i < 3000; i += 100 {
					var ops []store.Op
					for j := range 100 {
						ops = append(ops, store.Put(fmt.Sprintf("k%05d", i+j), []byte("v"), store.Any()))
					}
					if _, err := src.Commit(t.Context(), ops...); err != nil {
						t.Fatal(err)
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var mu sync.Mutex
				var last store.CopyProgress
				caughtUp := make(chan struct{}, 1)
				type result struct {
					p   store.CopyProgress
					err error
				}
				done := make(chan result, 1)
				stop := writing(t, src)
				go func() {
					p, err := store.Copy(ctx, dst, src, store.CopyOptions{Follow: true, Progress: func(p store.CopyProgress) {
						mu.Lock()
						last = p
						mu.Unlock()
						select {
						case caughtUp <- struct{}{}:
						default:
						}
					}})
					done <- result{p, err}
				}()
				for range 10 {
					select {
					case <-caughtUp:
					case r := <-done:
						t.Fatal(r)
					}
				}
				stop()
				put(t, src, "the", "end")
				final, _, err := src.Revision(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for {
					mu.Lock()
					reached := last.Revision
					mu.Unlock()
					if reached >= final {
						break
					}
					select {
					case <-caughtUp:
					case r := <-done:
						t.Fatal(r)
					}
				}
				cancel()
				if r := <-done; r.err != nil || r.p.Revision < final || r.p.Events == 0 {
					t.Fatalf("%+v", r)
				}
				res, err := src.List(t.Context(), store.ListOptions{KeysOnly: true})
				if err != nil {
					t.Fatal(err)
				}
				same(t, src, dst, int64(len(res.KVs)))
			})
		}
	}
}

func TestCopyOnce(t *testing.T) {
	src, dst := newMem(t, memstore.Options{}), newMem(t, memstore.Options{})
	for i := range 2500 {
		put(t, src, fmt.Sprint("a/", i), "v")
		put(t, src, fmt.Sprint("b/", i), "v")
	}
	put(t, dst, "b/mine", "v")
	p, err := store.Copy(t.Context(), dst, src, store.CopyOptions{Prefix: "a/"})
	if err != nil || p.Keys != 2500 || p.Revision != 5001 {
		t.Fatalf("%+v, %v", p, err)
	}
	if n, err := store.Compare(t.Context(), src, dst, store.CompareOptions{Prefix: "a/"}); n != 2500 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := store.Compare(t.Context(), src, dst, store.CompareOptions{}); !errors.Is(err, store.ErrDifferent) {
		t.Fatal(err)
	}
	if _, err := store.Copy(t.Context(), dst, src, store.CopyOptions{}); !errors.Is(err, store.ErrInvalid) {
		t.Fatalf("a copy into a store that is not empty: %v", err)
	}
	put(t, dst, "a/1", "other")
	if _, err := store.Compare(t.Context(), src, dst, store.CompareOptions{Prefix: "a/"}); !errors.Is(err, store.ErrDifferent) || !strings.Contains(err.Error(), `"a/1"`) {
		t.Fatal(err)
	}
}
