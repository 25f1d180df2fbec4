package etcdserve_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keelson/keelson/store/boltstore"
	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/etcdserve/etcdservetest"
)

// A watch can begin with the compacted revision, as etcd's can: with its events, of which those that are not creations have no previous
// values any more.
func TestWatchFromCompactedRevision(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	bolt, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	endpoint, stop := etcdservetest.Serve(t, bolt, etcdserve.Options{})
	c := client(t, endpoint)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, op := range []clientv3.Op{
		clientv3.OpPut("a", "1"), clientv3.OpPut("b", "1"), clientv3.OpPut("a", "2"), clientv3.OpPut("c", "1"),
		clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpDelete("b"), clientv3.OpPut("a", "3"), clientv3.OpPut("d", "1")}, nil), // revision 6
		clientv3.OpPut("a", "4"),
	} {
		if _, err := c.Do(ctx, op); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Compact(ctx, 6); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		w := c.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(6), clientv3.WithPrevKV())
		got := ""
		for strings.Count(got, ";") < 4 {
			res, ok := <-w
			if !ok || res.Err() != nil {
				t.Fatalf("the watch has %q, and ends: %v", got, res.Err())
			}
			for _, e := range res.Events {
				got += fmt.Sprintf("%s %s=%s@%d", e.Type, e.Kv.Key, e.Kv.Value, e.Kv.ModRevision)
				if e.PrevKv != nil {
					got += fmt.Sprintf(" was %s", e.PrevKv.Value)
				}
				got += "; "
			}
		}
		if want := "DELETE b=@6; PUT a=3@6; PUT d=1@6; PUT a=4@7 was 3; "; got != want {
			t.Errorf("a watch from the compacted revision has %q, want %q", got, want)
		}
		res := <-c.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(5))
		if res.CompactRevision != 6 || res.Err() != rpctypes.ErrCompacted {
			t.Errorf("a watch from before it: %+v, %v", res, res.Err())
		}
		if res, err := c.Get(ctx, "b", clientv3.WithRev(6)); err != nil || len(res.Kvs) != 0 {
			t.Errorf("a read at the compacted revision: %v, %v", res, err)
		}
		if _, err := c.Get(ctx, "b", clientv3.WithRev(5)); err != rpctypes.ErrCompacted {
			t.Errorf("a read before it: %v", err)
		}
		if _, err := c.Compact(ctx, 6); err != rpctypes.ErrCompacted {
			t.Errorf("the compaction again: %v", err)
		}
		if _, err := c.Compact(ctx, 8); err != rpctypes.ErrFutureRev {
			t.Errorf("a compaction to what is not there yet: %v", err)
		}
	}
	check()
	c.Close()
	stop()
	if err := bolt.Close(); err != nil {
		t.Fatal(err)
	}
	if bolt, err = boltstore.Open(path, boltstore.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bolt.Close() })
	endpoint, _ = etcdservetest.Serve(t, bolt, etcdserve.Options{})
	c = client(t, endpoint)
	check()
	// What the store has dropped by itself is gone: the newest revision can be read, and a watch begin behind it.
	if err := bolt.Compact(ctx, 7); err != nil {
		t.Fatal(err)
	}
	if res, err := c.Get(ctx, "a", clientv3.WithRev(7)); err != nil || string(res.Kvs[0].Value) != "4" {
		t.Errorf("a read at the newest revision, to which the store was compacted: %v, %v", res, err)
	}
	if res := <-c.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(7)); res.CompactRevision != 8 || res.Err() != rpctypes.ErrCompacted {
		t.Errorf("a watch from the newest revision, to which the store was compacted: %+v, %v", res, res.Err())
	}
}
