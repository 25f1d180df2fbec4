package etcdserve_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/etcdserve/etcdservetest"
)

// The events of one transaction are in the order of its operations, however long ago it was.
func TestEventOrder(t *testing.T) {
	s := newMem(t)
	endpoint, _ := etcdservetest.Serve(t, s, etcdserve.Options{})
	c := client(t, endpoint)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	live := c.Watch(ctx, "", clientv3.WithPrefix())
	narrow := c.Watch(ctx, "m", clientv3.WithRange("y"))
	put, del := clientv3.OpPut, clientv3.OpDelete
	for _, ops := range [][]clientv3.Op{
		{put("z", "1"), put("m", "1"), put("a", "1"), put("x", "1")},
		{put("b", "2"), put("c", "2")},
		{del("z"), put("y", "3"), del("a", clientv3.WithRange("c")), put("d0", "3"), del("nothing")},
		{put("q", "4"), clientv3.OpTxn(nil, []clientv3.Op{put("p", "4"), del("m")}, nil), put("o", "4")},
		{del("", clientv3.WithPrefix())},
	} {
		if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	read := func(ch clientv3.WatchChan, n int) (got string) {
		t.Helper()
		for n > 0 {
			res, ok := <-ch
			if !ok || res.Err() != nil {
				t.Fatalf("the watch has %q, and ends: %v", got, res.Err())
			}
			for _, e := range res.Events {
				sign := "+"
				if e.Type == clientv3.EventTypeDelete {
					sign = "-"
				}
				got += fmt.Sprintf("%s%s@%d ", sign, e.Kv.Key, e.Kv.ModRevision)
				n--
			}
		}
		return got
	}
	want := "+z@2 +m@2 +a@2 +x@2 +b@3 +c@3 -z@4 +y@4 -a@4 -b@4 +d0@4 +q@5 +p@5 -m@5 +o@5 -c@6 -d0@6 -o@6 -p@6 -q@6 -x@6 -y@6 "
	events := strings.Count(want, "@")
	if got := read(live, events); got != want {
		t.Errorf("the watch has\n%s\nwant\n%s", got, want)
	}
	if got := read(c.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(2)), events); got != want {
		t.Errorf("a watch of what was has\n%s\nwant\n%s", got, want)
	}
	if got, want := read(narrow, 10), "+m@2 +x@2 +q@5 +p@5 -m@5 +o@5 -o@6 -p@6 -q@6 -x@6 "; got != want {
		t.Errorf("a watch of some keys has\n%s\nwant\n%s", got, want)
	}
	// What would change a key twice is refused, wherever it is.
	for what, ops := range map[string][]clientv3.Op{
		"a key put twice":                      {put("k", "1"), put("k", "2")},
		"a key put and deleted":                {put("k", "1"), del("a", clientv3.WithRange("z"))},
		"a key put, and in a transaction":      {put("k", "1"), clientv3.OpTxn(nil, nil, []clientv3.Op{put("k", "2")})},
		"a key put in a transaction, deleted":  {clientv3.OpTxn(nil, []clientv3.Op{put("k", "2")}, nil), del("k")},
		"a key put in two transactions":        {clientv3.OpTxn(nil, []clientv3.Op{put("k", "1")}, nil), clientv3.OpTxn(nil, []clientv3.Op{put("k", "2")}, nil)},
		"a key deleted and put in transaction": {clientv3.OpTxn(nil, []clientv3.Op{del("k")}, nil), clientv3.OpTxn(nil, []clientv3.Op{put("k", "2")}, nil)},
	} {
		if _, err := c.Txn(ctx).Then(ops...).Commit(); err != rpctypes.ErrDuplicateKey {
			t.Errorf("%s: %v, want that it is refused", what, err)
		}
	}
	if _, err := c.Txn(ctx).Then(clientv3.OpTxn(nil, []clientv3.Op{put("k", "1")}, []clientv3.Op{put("k", "2"), put("j", "2")}), put("i", "3")).Commit(); err != nil {
		t.Errorf("a key put in either case: %v", err)
	}
}
