package etcdserve_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/etcdserve/etcdservetest"
	"github.com/keelson/keelson/store/memstore"
)

// The suite of storetest goes through this server in the tests of etcdstore.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newMem(t testing.TB) *memstore.Store {
	t.Helper()
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func client(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRange(t *testing.T) {
	s := newMem(t)
	endpoint, _ := etcdservetest.Serve(t, s, etcdserve.Options{})
	c := client(t, endpoint)
	ctx := t.Context()
	if res, err := c.Get(ctx, "nothing"); err != nil || res.Header.Revision != 1 {
		t.Fatalf("an empty store: %+v, %v", res, err)
	}
	for i, k := range []string{"a", "a/1", "a/2", "a/3", "b", "c\x00", "c"} {
		if _, err := c.Put(ctx, k, fmt.Sprint(9-i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Put(ctx, "a/2", "again"); err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct {
		key   string
		opts  []clientv3.OpOption
		want  string
		count int64
		more  bool
	}{
		{"a", nil, "a", 1, false},
		{"x", nil, "", 0, false},
		{"a/", []clientv3.OpOption{clientv3.WithPrefix()}, "a/1 a/2 a/3", 3, false},
		{"a/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(2)}, "a/1 a/2", 3, true},
		{"a/1\x00", []clientv3.OpOption{clientv3.WithRange("a0"), clientv3.WithLimit(1)}, "a/2", 2, true},
		{"a/2", []clientv3.OpOption{clientv3.WithRange("a0")}, "a/2 a/3", 2, false},
		{"a/2", []clientv3.OpOption{clientv3.WithRange("b\x00"), clientv3.WithLimit(1)}, "a/2", 3, true},
		{"a", []clientv3.OpOption{clientv3.WithRange("a/3")}, "a a/1 a/2", 3, false},
		{"", []clientv3.OpOption{clientv3.WithPrefix()}, "a a/1 a/2 a/3 b c c\x00", 7, false},
		{"b", []clientv3.OpOption{clientv3.WithFromKey()}, "b c c\x00", 3, false},
		{"b", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithLimit(1)}, "b", 3, true},
		{"b", []clientv3.OpOption{clientv3.WithRange("a")}, "", 0, false},
		{"", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCountOnly()}, "", 7, false},
		{"a/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCountOnly()}, "", 3, false},
		{"a", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)}, "a/3 a/2 a/1 a", 4, false},
		{"a", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(2)}, "a/2 a/3", 4, true},
		{"a", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend), clientv3.WithLimit(1)}, "a/2", 4, true},
		{"", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend), clientv3.WithLimit(1)}, "c", 7, true},
		{"a", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMinModRev(9)}, "a/2", 4, false},
		{"a", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(3)}, "a a/1", 2, false},
		{"a", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithKeysOnly()}, "a a/1 a/2 a/3", 4, false},
	} {
		res, err := c.Get(ctx, q.key, q.opts...)
		if err != nil {
			t.Errorf("Get(%q): %v", q.key, err)
			continue
		}
		var keys []string
		for _, kv := range res.Kvs {
			keys = append(keys, string(kv.Key))
		}
		if got := strings.Join(keys, " "); got != q.want || res.Count != q.count || res.More != q.more || res.Header.Revision != 9 {
			t.Errorf("Get(%q) is %q, count %d, more %v, at %d; want %q, %d, %v", q.key, got, res.Count, res.More, res.Header.Revision, q.want, q.count, q.more)
		}
	}
	res, err := c.Get(ctx, "a/2")
	if err != nil || res.Kvs[0].Version != 2 || res.Kvs[0].CreateRevision != 4 || res.Kvs[0].ModRevision != 9 || string(res.Kvs[0].Value) != "again" {
		t.Errorf("a/2 is %+v, %v", res.Kvs, err)
	}
	if _, err := c.Get(ctx, "a", clientv3.WithRev(100)); err != rpctypes.ErrFutureRev {
		t.Errorf("a future revision: %v", err)
	}
	if _, err := c.Compact(ctx, 5); err != nil {
		t.Error(err)
	}
	if _, err := c.Compact(ctx, 5); err != rpctypes.ErrCompacted {
		t.Errorf("the second compaction: %v", err)
	}
	if _, err := c.Get(ctx, "a", clientv3.WithRev(4)); err != rpctypes.ErrCompacted {
		t.Errorf("a compacted revision: %v", err)
	}
	if _, err := c.Put(ctx, "", "x"); err != rpctypes.ErrEmptyKey {
		t.Errorf("an empty key: %v", err)
	}
	if _, err := c.Put(ctx, "\x00etcd/k/a", "x"); err == nil {
		t.Error("a hidden key can be written")
	}
}

func TestTxn(t *testing.T) {
	s := newMem(t)
	endpoint, _ := etcdservetest.Serve(t, s, etcdserve.Options{})
	c := client(t, endpoint)
	ctx := t.Context()
	// As the compactor of kube-apiserver does it, by versions.
	for want := int64(1); want < 5; want++ {
		res, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version("counter"), "=", want-1)).
			Then(clientv3.OpPut("counter", fmt.Sprint(want))).Else(clientv3.OpGet("counter")).Commit()
		if err != nil || !res.Succeeded || res.Header.Revision != 1+want {
			t.Fatalf("%+v, %v", res, err)
		}
		res, err = c.Txn(ctx).If(clientv3.Compare(clientv3.Version("counter"), "=", want-1)).
			Then(clientv3.OpPut("counter", "wrong")).Else(clientv3.OpGet("counter")).Commit()
		if err != nil || res.Succeeded || res.Responses[0].GetResponseRange().Kvs[0].Version != want {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	// Later operations see the earlier ones, and a nested transaction too.
	res, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision("x"), "=", 0), clientv3.Compare(clientv3.Value("counter"), "=", "4")).
		Then(
			clientv3.OpPut("x", "1"),
			clientv3.OpGet("x"),
			clientv3.OpDelete("counter", clientv3.WithPrevKV()),
			clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value("x"), "=", "1")}, []clientv3.Op{clientv3.OpPut("y", "2")}, nil),
			clientv3.OpGet("", clientv3.WithPrefix()),
		).Commit()
	if err != nil || !res.Succeeded || res.Header.Revision != 6 {
		t.Fatalf("%+v, %v", res, err)
	}
	if kv := res.Responses[1].GetResponseRange().Kvs[0]; kv.ModRevision != 6 || kv.CreateRevision != 6 || kv.Version != 1 {
		t.Errorf("x read in the transaction that puts it is %+v", kv)
	}
	if d := res.Responses[2].GetResponseDeleteRange(); d.Deleted != 1 || string(d.PrevKvs[0].Value) != "4" {
		t.Errorf("the delete answers %+v", d)
	}
	if n := res.Responses[4].GetResponseRange().Count; n != 2 {
		t.Errorf("in the end there are %d keys, want x and y", n)
	}
	if _, err := c.Txn(ctx).Then(clientv3.OpPut("a", "1"), clientv3.OpPut("a", "2")).Commit(); err != rpctypes.ErrDuplicateKey {
		t.Errorf("a key put twice: %v", err)
	}
	var many []clientv3.Op
	for i := range 129 {
		many = append(many, clientv3.OpPut(fmt.Sprint(i), ""))
	}
	if _, err := c.Txn(ctx).Then(many...).Commit(); err != rpctypes.ErrTooManyOps {
		t.Errorf("129 operations: %v", err)
	}
	del, err := c.Delete(ctx, "", clientv3.WithPrefix())
	if err != nil || del.Deleted != 2 || del.Header.Revision != 7 {
		t.Errorf("delete of everything: %+v, %v", del, err)
	}
	if del, err = c.Delete(ctx, "x"); err != nil || del.Deleted != 0 || del.Header.Revision != 7 {
		t.Errorf("delete of nothing: %+v, %v", del, err)
	}
	list, err := s.List(ctx, store.ListOptions{})
	if err != nil || len(list.KVs) > 1 { // how the last transaction was ordered is kept
		t.Errorf("the store is left with %+v, %v", list.KVs, err)
	}
}

func TestWatch(t *testing.T) {
	s := newMem(t)
	endpoint, _ := etcdservetest.Serve(t, s, etcdserve.Options{MaxRequestBytes: 4000})
	c := client(t, endpoint)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ch := c.Watch(ctx, "a/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	noDelete := c.Watch(ctx, "a/", clientv3.WithPrefix(), clientv3.WithFilterDelete(), clientv3.WithRev(1))
	fragments := c.Watch(ctx, "big/", clientv3.WithPrefix(), clientv3.WithFragment(), clientv3.WithRev(1))
	for _, op := range []clientv3.Op{
		clientv3.OpPut("a/1", "1"), clientv3.OpPut("b", "x"), clientv3.OpPut("a/1", "2"), clientv3.OpDelete("a/1"),
	} {
		if _, err := c.Do(ctx, op); err != nil {
			t.Fatal(err)
		}
	}
	describe := func(ch clientv3.WatchChan, n int) string {
		out := ""
		for n > 0 {
			select {
			case res := <-ch:
				if res.Err() != nil {
					t.Fatal(res.Err())
				}
				for _, e := range res.Events {
					out += fmt.Sprintf("%s %s=%s v%d@%d", e.Type, e.Kv.Key, e.Kv.Value, e.Kv.Version, e.Kv.ModRevision)
					if e.PrevKv != nil {
						out += fmt.Sprintf(" was %s v%d", e.PrevKv.Value, e.PrevKv.Version)
					}
					out += "; "
					n--
				}
			case <-ctx.Done():
				t.Fatal("events are missing after", out)
			}
		}
		return out
	}
	if got, want := describe(ch, 3), "PUT a/1=1 v1@2; PUT a/1=2 v2@4 was 1 v1; DELETE a/1= v0@5 was 2 v2; "; got != want {
		t.Errorf("the watch has %q, want %q", got, want)
	}
	if got, want := describe(noDelete, 2), "PUT a/1=1 v1@2; PUT a/1=2 v2@4; "; got != want {
		t.Errorf("the watch without deletes has %q, want %q", got, want)
	}
	var ops []clientv3.Op
	for i := range 20 {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("big/%02d", i), strings.Repeat("v", 1000)))
	}
	if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(describe(fragments, 20), "PUT"); got != 20 {
		t.Errorf("in fragments there are %d events", got)
	}
	// Progress comes only after everything before it.
	last, err := c.Put(ctx, "other", "1")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.RequestProgress(ctx); err != nil {
		t.Fatal(err)
	}
	for progressed := false; !progressed; {
		select {
		case res := <-ch:
			progressed = res.IsProgressNotify() && res.Header.Revision >= last.Header.Revision
		case <-ctx.Done():
			t.Fatal("there is no progress")
		}
	}
	if _, err := c.Compact(ctx, last.Header.Revision); err != nil {
		t.Fatal(err)
	}
	res := <-c.Watch(ctx, "a/", clientv3.WithPrefix(), clientv3.WithRev(2))
	if res.CompactRevision != last.Header.Revision || res.Err() != rpctypes.ErrCompacted {
		t.Errorf("a watch of compacted revisions: %+v, %v", res, res.Err())
	}
	future := c.Watch(ctx, "f", clientv3.WithRev(last.Header.Revision+3))
	for i := range 4 {
		if _, err := c.Put(ctx, "f", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := describe(future, 1); !strings.HasPrefix(got, "PUT f=2 ") {
		t.Errorf("a watch from a future revision begins with %q", got)
	}
}

func TestMaintenance(t *testing.T) {
	s := newMem(t)
	endpoint, _ := etcdservetest.Serve(t, s, etcdserve.Options{Name: "one", ClientURLs: []string{"http://example:2379"}})
	c := client(t, endpoint)
	ctx := t.Context()
	for i := range 300 {
		if _, err := c.Put(ctx, fmt.Sprint("key", i), strings.Repeat("v", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := c.Status(ctx, endpoint); err != nil || st.Leader == 0 || st.Leader != st.Header.MemberId || st.Version == "" || st.DbSizeInUse < 300_000 || st.DbSize < st.DbSizeInUse {
		t.Errorf("%+v, %v", st, err)
	}
	if ms, err := c.MemberList(ctx); err != nil || len(ms.Members) != 1 || ms.Members[0].Name != "one" || ms.Members[0].ClientURLs[0] != "http://example:2379" {
		t.Errorf("%+v, %v", ms, err)
	}
	if al, err := c.AlarmList(ctx); err != nil || len(al.Alarms) != 0 {
		t.Errorf("%+v, %v", al, err)
	}
	snap, err := c.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	b, err := io.ReadAll(snap)
	if err != nil {
		t.Fatal(err)
	}
	file, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if want := sha256.Sum256(file); !bytes.Equal(sum, want[:]) {
		t.Error("the snapshot does not end with its checksum")
	}
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(func(tx *bbolt.Tx) error {
		if n := tx.Bucket([]byte("key")).Stats().KeyN; n != 300 {
			t.Errorf("the snapshot has %d keys", n)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	for what, call := range map[string]func() error{
		"AuthEnable": func() error { _, err := c.AuthEnable(ctx); return err },
		"Defragment": func() error { _, err := c.Defragment(ctx, endpoint); return err },
		"MemberAdd":  func() error { _, err := c.MemberAdd(ctx, []string{"http://other:2380"}); return err },
		"HashKV":     func() error { _, err := c.HashKV(ctx, endpoint, 0); return err },
		"MoveLeader": func() error { _, err := c.MoveLeader(ctx, 1); return err },
		"UserAdd":    func() error { _, err := c.UserAdd(ctx, "u", "p"); return err },
		"Downgrade":  func() error { _, err := c.Downgrade(ctx, clientv3.DowngradeValidate, "3.6.0"); return err },
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "etcdserve: "+what+" is not supported") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestOptions(t *testing.T) {
	s := newMem(t)
	for _, o := range []etcdserve.Options{{MaxRequestBytes: -1}, {MaxTxnOps: -1}, {ProgressInterval: -1}} {
		if _, err := etcdserve.New(s, o); err == nil {
			t.Errorf("%+v gives no error", o)
		}
	}
	if _, err := etcdserve.New(nil, etcdserve.Options{}); err == nil {
		t.Error("no store gives no error")
	}
}
