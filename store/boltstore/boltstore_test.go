package boltstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/storetest"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(childRoom) != "":
		roomChild()
		return
	case os.Getenv(childDrive) != "":
		driveChild()
		return
	case os.Getenv(childEnv) != "":
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, path string, opts Options) *Store {
	t.Helper()
	s, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func put(t testing.TB, s *Store, key, value string) int64 {
	t.Helper()
	rev, err := s.Commit(context.Background(), store.Put(key, []byte(value), store.Any()))
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func value(t testing.TB, s *Store, key string) string {
	t.Helper()
	res, err := s.Get(context.Background(), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	if res.KV == nil {
		return "-"
	}
	return string(res.KV.Value)
}

func factory(t *testing.T, opts Options, prepare ...func(*Store)) storetest.Factory {
	dir, n := t.TempDir(), 0
	paths := map[store.Store]string{}
	openAt := func(path string) (store.Store, error) {
		s, err := Open(path, opts)
		if err != nil {
			return nil, err
		}
		for _, f := range prepare {
			f(s)
		}
		paths[s] = path
		return s, nil
	}
	return storetest.Factory{
		New: func(context.Context) (store.Store, error) {
			n++
			return openAt(filepath.Join(dir, fmt.Sprint(n)))
		},
		Reopen: func(_ context.Context, s store.Store) (store.Store, error) { return openAt(paths[s]) },
	}
}

func TestStore(t *testing.T) { storetest.Run(t, factory(t, Options{})) }

func TestStoreInFlight(t *testing.T) { storetest.Run(t, factory(t, Options{}, alwaysInFlight)) }

func TestStoreWithShortHistory(t *testing.T) {
	failed := storetest.Check(t.Context(), factory(t, Options{History: 40}),
		"Random/0", "Random/1", "Random/2", "Random/3", "Reopen/Everything", "Reopen/Revisions", "Read/Linearizable", "Commit/Conditions")
	for name, err := range failed {
		t.Error(name, err)
	}
}

func TestStoreWithRelaxedPrefixes(t *testing.T) {
	// Every other key of the suite is relaxed, and what is on disk and what is not is mixed.
	storetest.Run(t, factory(t, Options{RelaxedPrefixes: []string{"a", "k", "c/"}, RelaxedDelay: 5 * time.Millisecond}))
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{HistoryBytes: -1}, {LogBytes: 1}, {RelaxedDelay: -1}, {LockTimeout: -1}, {RelaxedPrefixes: []string{"a", ""}},
	} {
		if s, err := Open(filepath.Join(t.TempDir(), "s"), o); err == nil {
			s.Close()
			t.Errorf("Open with %+v gives no error", o)
		}
	}
	for _, path := range []string{"", t.TempDir(), filepath.Join(t.TempDir(), "no", "dir")} {
		if s, err := Open(path, Options{}); err == nil {
			s.Close()
			t.Errorf("Open of %q gives no error", path)
		}
	}
}

func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := open(t, path, Options{})
	put(t, s, "a", "1")
	start := time.Now()
	_, err := Open(path, Options{LockTimeout: 50 * time.Millisecond})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Fatalf("the second Open: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Fatalf("the second Open takes %v", took)
	}
	// So is another process refused, until this one has closed the file.
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	another := func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, exe)
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return line
	}
	if line := another(); !strings.Contains(line, ErrInUse.Error()) {
		t.Errorf("another process says %q", line)
	}
	put(t, s, "a", "2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if line := another(); line != "ready\n" {
		t.Errorf("another process says %q after Close", line)
	}
}

func TestCreateLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := Open(filepath.Join(dir, "s"), Options{LockTimeout: 10 * time.Second})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.Commit(t.Context(), store.Put("a", nil, store.Any())); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	s := open(t, filepath.Join(dir, "s"), Options{})
	if rev, _, _ := s.Revision(t.Context()); rev != 5 {
		t.Fatalf("four commits lead to revision %d", rev)
	}
}

func TestCompactionLeavesWatchersTheirTurn(t *testing.T) {
	storetest.CompactionLeavesWatchersTheirTurn(t, open(t, filepath.Join(t.TempDir(), "s"), Options{}))
}

// The file stays bounded under endless updates of the same keys.
func TestFileIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	s := open(t, path, Options{History: 500, LogBytes: 1 << 20})
	val := strings.Repeat("v", 1000)
	size := func() (n int64) {
		for _, p := range []string{path, logPath(path, 0), logPath(path, 1)} {
			info, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			n += info.Size()
		}
		return n
	}
	var after [4]int64
	for i := range after {
		var wg sync.WaitGroup
		for w := range 32 {
			wg.Go(func() {
				for n := range 300 {
					if _, err := s.Commit(t.Context(), store.Put(fmt.Sprint("k", w, n%10), []byte(val), store.Any())); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		after[i] = size()
	}
	if after[3] > after[1]+allocSize || after[3] > 3*garbageMin {
		t.Errorf("the files have %d bytes, after each 9,600 updates of 320 kB", after)
	}
	current, floor, err := s.Revision(t.Context())
	if err != nil || current-floor > 1200 {
		t.Errorf("history of %d revisions is kept, %v", current-floor, err)
	}
	// What is obsolete goes when nothing else happens.
	if err := s.Compact(t.Context(), current); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		n := 0
		if err := s.db.View(func(tx *bbolt.Tx) error { n = tx.Bucket(recordsBucket).Stats().KeyN; return nil }); err != nil {
			t.Fatal(err)
		}
		if n == 320 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d records are left of 320 keys", n)
		}
	}
}

func TestHistoryBytes(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "s"), Options{HistoryBytes: 1 << 20})
	big := strings.Repeat("v", 100_000)
	for i := range 400 {
		put(t, s, "k", fmt.Sprint(i, big))
	}
	current, floor, err := s.Revision(t.Context())
	if n := current - floor; err != nil || n > 2*markLen {
		t.Fatalf("%d revisions of 100 kB are kept, %v", n, err)
	}
	if got := value(t, s, "k"); !strings.HasPrefix(got, "399v") {
		t.Fatalf("the value is %.10q", got)
	}
}

func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other.db")
	db, err := bbolt.Open(other, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("key")); return err }); err != nil {
		t.Fatal(err)
	}
	db.Close()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, path := range []string{other, write("text", strings.Repeat("hello\n", 5000)), write("short", "x"), write("zeros", strings.Repeat("\x00", 1<<16))} {
		before, _ := os.ReadFile(path)
		s, err := Open(path, Options{})
		if err == nil {
			s.Close()
		}
		var damage *DamageError
		if !errors.As(err, &damage) || damage.Path != path || damage.Where == "" {
			t.Errorf("Open of %s: %v", path, err)
		}
		if after, _ := os.ReadFile(path); string(after) != string(before) {
			t.Errorf("Open has changed %s", path)
		}
	}
	empty := open(t, write("empty", ""), Options{})
	put(t, empty, "a", "1")
}

// Every flipped bit, in what is used of the file, is either noticed on open or harmless.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	s := open(t, path, Options{})
	for i := range 60 {
		put(t, s, fmt.Sprintf("key%02d", i%25), strings.Repeat(fmt.Sprint(i), 30))
	}
	if _, err := s.Commit(t.Context(), store.Delete("key03", store.Any()), store.Delete("key04", store.Any())); err != nil {
		t.Fatal(err)
	}
	state := func(s *Store) string {
		res, err := s.List(context.Background(), store.ListOptions{})
		if err != nil {
			return "error: " + err.Error()
		}
		return fmt.Sprintf("%d %+v", res.Revision, res.KVs)
	}
	want := state(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(good)
	for used > 0 && good[used-1] == 0 {
		used--
	}
	const page = pageSize
	noticed, harmless, lost := 0, 0, 0
	try := func(name string, damage func([]byte) []byte, mustFail bool) {
		t.Helper()
		bad := damage(append([]byte{}, good...))
		p := filepath.Join(dir, "damaged")
		if err := os.WriteFile(p, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(p, Options{})
		var de *DamageError
		switch {
		case errors.As(err, &de):
			noticed++
			return
		case err != nil:
			t.Errorf("%s: error %v is not a *DamageError", name, err)
			return
		case mustFail:
			t.Errorf("%s is not noticed", name)
		}
		got := state(s)
		if err := s.Close(); err != nil {
			t.Errorf("%s: Close: %v", name, err)
		}
		switch {
		case got == want:
			harmless++
		case name == "meta":
			lost++ // the newest meta page looks like a commit that was never finished
		default:
			t.Errorf("%s leads to another state:\n%.200s\nwant\n%.200s", name, got, want)
		}
	}
	for i := 0; i < used; i += 97 {
		name := fmt.Sprintf("a flipped bit in byte %d", i)
		if i < 2*page {
			name = "meta"
		}
		try(name, func(b []byte) []byte { b[i] ^= 1 << (i % 8); return b }, false)
	}
	for _, n := range []int{0x10, page, 2 * page, 3 * page, used - page, used - 1} {
		try(fmt.Sprintf("a file cut at %d", n), func(b []byte) []byte { return b[:n] }, true)
	}
	for id := 2; id < used/page; id++ {
		name := fmt.Sprintf("page %d zeroed", id)
		try(name, func(b []byte) []byte { clear(b[id*page : (id+1)*page]); return b }, false)
	}
	t.Logf("%d noticed, %d harmless, %d fell back to the commit before", noticed, harmless, lost)
	if noticed < 20 {
		t.Errorf("only %d damages are noticed", noticed)
	}
}

// Records that are whole but do not fit together are noticed too.
func TestInconsistentRecords(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(tx *bbolt.Tx) error{
		"revision missing": func(tx *bbolt.Tx) error { return tx.Bucket(recordsBucket).Delete(recordKey(5, 0)) },
		"record of a revision missing": func(tx *bbolt.Tx) error {
			return tx.Bucket(recordsBucket).Delete(recordKey(12, 1))
		},
		"last record missing": func(tx *bbolt.Tx) error { return tx.Bucket(recordsBucket).Delete(recordKey(12, 2)) },
		"live record missing": func(tx *bbolt.Tx) error { return tx.Bucket(recordsBucket).Delete(recordKey(2, 0)) },
		"record moved": func(tx *bbolt.Tx) error {
			b := tx.Bucket(recordsBucket)
			return b.Put(recordKey(13, 0), append([]byte{}, b.Get(recordKey(11, 0))...))
		},
		"floor beyond the end": func(tx *bbolt.Tx) error { return putNumber(tx.Bucket(metaBucket), keyFloor, 99) },
		"swept beyond floor":   func(tx *bbolt.Tx) error { return putNumber(tx.Bucket(metaBucket), keySwept, 99) },
		"other version":        func(tx *bbolt.Tx) error { return putNumber(tx.Bucket(metaBucket), keyFormat, 2) },
		"number malformed":     func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(keyReserved, []byte{1}) },
		"no records":           func(tx *bbolt.Tx) error { return tx.DeleteBucket(recordsBucket) },
	} {
		path := filepath.Join(t.TempDir(), "s")
		s := open(t, path, Options{})
		for i := range 10 {
			put(t, s, fmt.Sprint("k", i%5), "v")
		}
		if _, err := s.Commit(t.Context(), store.Put("x", nil, store.Any()), store.Put("y", nil, store.Any()), store.Put("z", nil, store.Any())); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Update(change); err != nil {
			t.Fatal(err)
		}
		db.Close()
		s, err = Open(path, Options{})
		var damage *DamageError
		if !errors.As(err, &damage) {
			t.Errorf("%s: Open gives %v", name, err)
			if err == nil {
				s.Close()
			}
			continue
		}
		t.Logf("%s: %v", name, err)
	}
}

func TestCancelledCommit(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s"), Options{})
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		before := value(t, s, "a")
		go cancel()
		_, err := s.Commit(ctx, store.Put("a", []byte(fmt.Sprint(i)), store.Any()))
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		// A commit of nothing comes behind one that is still being written.
		if _, err := s.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := value(t, s, "a"); err == nil && got != fmt.Sprint(i) || err != nil && !errors.Is(err, store.ErrUnknownOutcome) && got != before {
			t.Fatalf("commit %d: %v, but the value is %s after %s", i, err, got, before)
		}
	}
}
