package etcdserve

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/keelson/keelson/internal/interop/stock"
	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/etcdserve/etcdservetest"
)

// ctl runs etcdctl's commands against a server.
type ctl struct {
	t   *testing.T
	url string
}

func (c ctl) try(stdin string, args ...string) (string, error) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), stock.Binary(c.t, stock.Etcdctl), append([]string{"--endpoints=" + c.url}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// want checks that a command prints something with all of these in it.
func (c ctl) want(args string, contains ...string) {
	c.t.Helper()
	c.wantFed("", args, contains...)
}

func (c ctl) wantFed(stdin, args string, contains ...string) {
	c.t.Helper()
	out, err := c.try(stdin, strings.Fields(args)...)
	if err != nil {
		c.t.Errorf("etcdctl %s: %v: %s", args, err, out)
		return
	}
	for _, s := range contains {
		if !strings.Contains(out, s) {
			c.t.Errorf("etcdctl %s prints %q, want %q in it", args, out, s)
		}
	}
}

func TestEtcdctl(t *testing.T) {
	memory, _ := etcdservetest.Serve(t, newMem(t), etcdserve.Options{})
	for name, url := range map[string]string{"memory": memory, "bolt": serveBolt(t).url} {
		t.Run(name, func(t *testing.T) { testEtcdctl(ctl{t, url}) })
	}
}

func testEtcdctl(c ctl) {
	t := c.t
	for i := range 5 {
		c.want(fmt.Sprintf("put /a/%d v%d", i, i), "OK")
	}
	c.want("put /a/1 again --prev-kv", "OK", "v1")
	c.want("get /a/ --prefix", "/a/0\nv0\n/a/1\nagain\n")
	c.want("get /a/ --prefix --rev=3", "/a/1\nv1\n")
	c.want("get /a/ --prefix --keys-only --limit=2 --order=DESCEND --sort-by=KEY", "/a/4\n\n/a/3\n")
	c.want("get /a/ --prefix --count-only --write-out=fields", `"Count" : 5`)
	c.want("get /a/1 --write-out=json", `"version":2`, `"create_revision":3`, `"mod_revision":7`)
	c.want("get /a/3 --from-key --print-value-only", "v3\nv4\n")
	c.want("del /a/0 --prev-kv", "1\n/a/0\nv0")
	c.want("del /a/3 /a/5", "2")
	c.wantFed("value(\"/a/1\") = \"again\"\nmod(\"/a/9\") = \"0\"\n\nput /a/9 new\nget /a/ --prefix\n\nget /a/1\n\n", "txn", "SUCCESS", "OK", "/a/9\nnew")
	c.wantFed("create(\"/a/9\") = \"0\"\n\nput /a/9 other\n\nget /a/9\n\n", "txn", "FAILURE", "/a/9\nnew")

	c.want("endpoint health", "is healthy")
	c.want("endpoint status --write-out=json", `"leader"`, `"version":"3.7.0"`, `"revision":10`)
	c.want("member list", "started", c.url)
	c.want("alarm list")
	c.want("alarm disarm")

	// A lease that is kept alive, and its keys when it is revoked.
	out, err := c.try("", "lease", "grant", "100")
	if err != nil {
		t.Fatal(out, err)
	}
	lease := strings.Fields(out)[1]
	c.want("put --lease="+lease+" /l/1 x", "OK")
	c.want("lease timetolive --keys "+lease, "granted with TTL(100s)", "attached keys([/l/1])")
	c.want("lease list", lease)
	c.want("lease keep-alive --once "+lease, "keepalived with TTL(100)")
	c.want("lease revoke "+lease, "revoked")
	if out, err := c.try("", "get", "/l/1"); err != nil || out != "" {
		t.Errorf("after its lease a key is %q, %v", out, err)
	}

	c.want("compaction 8", "compacted revision 8")
	if out, err := c.try("", "get", "/a/1", "--rev=7"); err == nil || !strings.Contains(out, "required revision has been compacted") {
		t.Errorf("a compacted revision: %q, %v", out, err)
	}
	if out, err := c.try("", "compaction", "8"); err == nil || !strings.Contains(out, "compacted") {
		t.Errorf("the compaction again: %q, %v", out, err)
	}
	if out, err := c.try("", "watch", "/a/", "--prefix", "--rev=4"); err == nil || !strings.Contains(out, "compacted") {
		t.Errorf("a watch of compacted revisions: %q, %v", out, err)
	}
	c.watch()

	for _, args := range []string{
		"defrag", "move-leader 1", "member add x --peer-urls=http://127.0.0.1:1", "auth enable", "user add u:p", "role list",
		"downgrade validate 3.6", "endpoint hashkv",
	} {
		if out, err := c.try("", strings.Fields(args)...); err == nil || !strings.Contains(out, "is not supported on this store") && args != "move-leader 1" {
			t.Errorf("etcdctl %s: %q, %v; want that it is refused", args, out, err)
		}
	}
}

// watch lets etcdctl watch from a revision that was, until there has been what comes after.
func (c ctl) watch() {
	t := c.t
	t.Helper()
	cmd := exec.CommandContext(t.Context(), stock.Binary(t, stock.Etcdctl), "--endpoints="+c.url, "watch", "/a/", "--prefix", "--rev=9", "--prev-kv")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	c.want("put /a/1 last", "OK")
	_ = r.SetReadDeadline(time.Now().Add(20 * time.Second))
	var got []byte
	buf := make([]byte, 1000)
	for !strings.Contains(string(got), "last\n") {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			t.Fatalf("the watch has printed %q: %v", got, err)
		}
	}
	if want := "DELETE\n/a/3\nv3\n/a/3\n\nDELETE\n/a/4\nv4\n/a/4\n\nPUT\n/a/9\nnew\nPUT\n/a/1\nagain\n/a/1\nlast\n"; string(got) != want {
		t.Errorf("the watch has printed %q, want %q", got, want)
	}
}

// What "etcdctl snapshot save" gets, "etcdutl snapshot restore" makes an etcd of that has the same
// pairs, at the same revision, and nothing before it.
func TestSnapshot(t *testing.T) {
	p := serveBolt(t)
	from := client(t, p.url)
	ctx := t.Context()
	lease, err := from.Grant(ctx, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2500 {
		ops := []clientv3.Op{clientv3.OpPut(fmt.Sprint("/k/", i%2000), fmt.Sprint("v", i)), clientv3.OpPut(fmt.Sprint("/other/", i), "")}
		if i%100 == 0 {
			ops = append(ops, clientv3.OpPut(fmt.Sprint("/leased/", i), "x", clientv3.WithLease(lease.ID)))
		}
		if _, err := from.Txn(ctx).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := from.Delete(ctx, "/other/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, data := filepath.Join(dir, "snapshot.db"), filepath.Join(dir, "data")
	ctl{t, p.url}.want("snapshot save "+file, "Snapshot saved")
	out, err := stock.Run(t, stock.Etcdutl, nil, "snapshot", "status", file, "--write-out=json")
	if err != nil {
		t.Fatal(err)
	}
	var st struct{ TotalKey int }
	if err := json.Unmarshal([]byte(out), &st); err != nil || st.TotalKey != 2025 {
		t.Errorf("the snapshot is %s, %v", out, err)
	}
	if _, err := stock.Run(t, stock.Etcdutl, nil, "snapshot", "restore", file, "--data-dir="+data); err != nil {
		t.Fatal(err)
	}
	to := client(t, stock.StartEtcd(t, stock.EtcdOptions{NoFsync: true, Args: []string{"--data-dir=" + data}}).URL)
	a, err := from.Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	b, err := to.Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if a.Header.Revision != b.Header.Revision || len(a.Kvs) != 2025 || len(b.Kvs) != 2025 {
		t.Fatalf("revision %d with %d keys has become %d with %d", a.Header.Revision, len(a.Kvs), b.Header.Revision, len(b.Kvs))
	}
	for i := range a.Kvs {
		if a.Kvs[i].String() != b.Kvs[i].String() {
			t.Fatalf("%v has become %v", a.Kvs[i], b.Kvs[i])
		}
	}
	if _, err := to.Get(ctx, "/k/1", clientv3.WithRev(a.Header.Revision-1)); err == nil {
		t.Error("in the etcd an older revision can be read")
	}
	if ttl, err := to.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys()); err != nil || ttl.GrantedTTL != 1000 || len(ttl.Keys) != 25 {
		t.Errorf("the lease has become %+v, %v", ttl, err)
	}
	if res, err := to.Put(ctx, "/k/new", ""); err != nil || res.Header.Revision != a.Header.Revision+1 {
		t.Errorf("%+v, %v", res, err)
	}
}

func client(t testing.TB, url string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
