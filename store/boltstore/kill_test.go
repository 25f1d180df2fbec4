package boltstore

import (
	"bufio"
	"context"
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
)

// childEnv makes the test binary a process that writes to the store named by it until it is killed.
const childEnv = "KEELSON_BOLTSTORE_CHILD"

// child writes with a few goroutines and prints what has been acknowledged, one line each.
func child() {
	s, err := Open(os.Getenv(childEnv), Options{History: 100, RelaxedPrefixes: []string{"relaxed/"}, RelaxedDelay: 10 * time.Millisecond})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
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

// TestKill kills a process that writes, at random moments, and looks whether all that it had
// acknowledged is there when the file is opened again.
func TestKill(t *testing.T) {
	kills := 30
	if testing.Short() {
		kills = 5
	}
	if v := os.Getenv("KEELSON_KILLS"); v != "" {
		fmt.Sscan(v, &kills)
	}
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
		kill := time.AfterFunc(time.Duration(rand.IntN(60_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		for lines.Scan() {
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
