package boltstore

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/storetest"
)

// childEnv makes the test binary a process that writes to the store named by it until it is killed.
const childEnv = "KEELSON_BOLTSTORE_CHILD"

// childDrive makes that process do random operations instead, and write them down.
const childDrive = "KEELSON_BOLTSTORE_DRIVE"

// driveChild prints every operation before and after it is done.
func driveChild() {
	s, err := Open(os.Getenv(childEnv), Options{History: 100, LogBytes: 64 << 10})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	seed := uint64(0)
	fmt.Sscan(os.Getenv(childDrive), &seed)
	if seed%2 == 1 {
		alwaysInFlight(s)
	}
	write := func(op storetest.Operation) {
		b, err := json.Marshal(op)
		if err != nil {
			panic(err)
		}
		_, _ = os.Stdout.Write(append(b, '\n'))
	}
	fmt.Println("ready")
	storetest.Drive(context.Background(), s, storetest.DriveOptions{
		Clients: 6, Keys: 4, Seed: seed, Tag: fmt.Sprint(seed), Started: write, Done: write,
	})
}

// TestLinearizableAcrossKills kills a process of several clients again and again and checks that
// the history of all of its lives is linearizable: what was in flight when it was killed has
// happened by then or never does.
func TestLinearizableAcrossKills(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	type id struct {
		round, client int
		call          int64
	}
	var history []storetest.Operation
	pending := map[id]storetest.Operation{}
	for round := range max(12, kills(t)/5) {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), childEnv+"="+path, fmt.Sprint(childDrive, "=", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "ready" {
			_ = cmd.Process.Kill()
			t.Fatalf("round %d: the child says %q", round, lines.Text())
		}
		kill := time.AfterFunc(time.Duration(5000+rand.IntN(25_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		for lines.Scan() {
			var op storetest.Operation
			if json.Unmarshal(lines.Bytes(), &op) != nil {
				continue // the line that the kill cut
			}
			k := id{round, op.Client, op.Call}
			if op.Return == 0 {
				pending[k] = op
			} else {
				delete(pending, k)
				history = append(history, op)
			}
		}
		kill.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		now := time.Now().UnixNano()
		for k, op := range pending {
			op.Outcome, op.Return = "unknown", now
			history = append(history, op)
			delete(pending, k)
		}
	}
	// The last word has what the file holds in the end.
	s := open(t, path, Options{})
	for i := range 4 {
		op := storetest.Operation{Client: 100, Key: fmt.Sprint("key", i), Kind: "get", Outcome: "ok", Call: time.Now().UnixNano()}
		res, err := s.Get(t.Context(), op.Key, 0)
		if err != nil {
			t.Fatal(err)
		}
		if res.KV != nil {
			op.Value, op.Revision = string(res.KV.Value), res.KV.ModRevision
		}
		op.Return = time.Now().UnixNano()
		history = append(history, op)
	}
	if err := storetest.Linearizable(history); err != nil {
		t.Error(err)
	}
	t.Logf("%d operations", len(history))
	if len(history) < 100 {
		t.Errorf("only %d operations were done in all", len(history))
	}
}

// child writes with a few goroutines and prints what has been acknowledged, one line each.
func child() {
	s, err := Open(os.Getenv(childEnv), Options{History: 100, LogBytes: 64 << 10, RelaxedPrefixes: []string{"relaxed/"}, RelaxedDelay: 10 * time.Millisecond})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	if os.Getpid()%2 == 1 {
		alwaysInFlight(s)
	}
	ctx := context.Background()
	var wg sync.WaitGroup
	fmt.Println("ready")
	for w := range 6 {
		wg.Go(func() {
			key := fmt.Sprint("k", w)
			n := 0
			if res, err := s.Get(ctx, key, 0); err == nil && res.KV != nil {
				fmt.Sscan(string(res.KV.Value), &n)
			}
			for {
				n++
				val := []byte(fmt.Sprint(n, " ", strings.Repeat("x", n%700)))
				rev, err := s.Commit(ctx,
					store.Put(key, val, store.Any()), store.Put("twin/"+key, val, store.Any()),
					store.Delete(fmt.Sprintf("old/%s/%d", key, n-5), store.Any()), store.Put(fmt.Sprintf("old/%s/%d", key, n), nil, store.Any()))
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println("ack", key, n, rev)
				if w == 0 {
					rev, err := s.Commit(ctx, store.Put("relaxed/a", val, store.Any()))
					if err != nil {
						fmt.Println("error", err)
						os.Exit(1)
					}
					fmt.Println("relaxed", rev)
				}
			}
		})
	}
	wg.Wait()
}

// kills returns how often a process is to be killed.
func kills(t *testing.T) int {
	t.Helper()
	n := 30
	if testing.Short() {
		n = 5
	}
	if v := os.Getenv("KEELSON_KILLS"); v != "" {
		if _, err := fmt.Sscan(v, &n); err != nil {
			t.Fatalf("KEELSON_KILLS is %q, want a number", v)
		}
	}
	return n
}

// TestKill kills a process that writes, at random moments, and looks whether all that it had
// acknowledged is there when the file is opened again.
func TestKill(t *testing.T) {
	t.Parallel()
	kills := kills(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	acked := map[string]int{}
	var newest int64
	total := 0
	for round := range kills {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "ready" {
			_ = cmd.Process.Kill()
			t.Fatalf("round %d: the child says %q", round, lines.Text())
		}
		// It dies a moment after some of its answers, or before the first.
		after, answers := rand.IntN(60), 0
		kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		moment := func() {
			if answers == after {
				kill.Reset(time.Duration(rand.IntN(3000)) * time.Microsecond)
			}
			answers++
		}
		moment()
		for lines.Scan() {
			moment()
			var key string
			var n int
			var rev int64
			if k, _ := fmt.Sscanf(lines.Text(), "ack %s %d %d", &key, &n, &rev); k == 3 {
				if n <= acked[key] {
					t.Errorf("round %d: %s was at %d and is now written as %d", round, key, acked[key], n)
				}
				acked[key] = n
				total++
			} else if k, _ := fmt.Sscanf(lines.Text(), "relaxed %d", &rev); k != 1 {
				if strings.HasPrefix(lines.Text(), "error") {
					t.Errorf("round %d: the child says %q", round, lines.Text())
				}
				continue // the line that the kill cut
			}
			newest = max(newest, rev)
		}
		kill.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if round%3 != 0 {
			continue // the next child checks the file when it opens it
		}
		s, err := Open(path, Options{RelaxedPrefixes: []string{"relaxed/"}})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		rev, _, err := s.Revision(t.Context())
		if err != nil || rev < newest {
			t.Errorf("round %d: the revision is %d, and %d had been handed out; %v", round, rev, newest, err)
		}
		for key, n := range acked {
			var got int
			fmt.Sscan(value(t, s, key), &got)
			if got < n || value(t, s, "twin/"+key) != value(t, s, key) {
				t.Errorf("round %d: %s is %d, twin %.8q, acknowledged was %d", round, key, got, value(t, s, "twin/"+key), n)
			}
			if v := value(t, s, fmt.Sprintf("old/%s/%d", key, got)); v != "" {
				t.Errorf("round %d: a key of the commit that wrote %s=%d is %q", round, key, got, v)
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
	t.Logf("%d kills, %d commits", kills, total)
	if total < kills {
		t.Errorf("only %d commits were acknowledged in all", total)
	}
}
