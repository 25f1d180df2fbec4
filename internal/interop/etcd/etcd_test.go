package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keelson/keelson/apiserver/auth/ca"
	"github.com/keelson/keelson/internal/interop/stock"
	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/etcdstore"
	"github.com/keelson/keelson/store/memstore"
	"github.com/keelson/keelson/store/storetest"
)

// freeURL returns a URL on loopback for a server of the test.
func freeURL(t testing.TB) url.URL {
	t.Helper()
	return url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", stock.FreePort(t))}
}

func connect(t testing.TB, endpoint string, opts etcdstore.Options) *etcdstore.Store {
	t.Helper()
	s, err := etcdstore.New(context.Background(), []string{endpoint}, opts)
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

func factory(endpoint string, opts etcdstore.Options) storetest.Factory {
	var n atomic.Int64
	prefixes := map[store.Store]string{}
	openAt := func(ctx context.Context, prefix string) (store.Store, error) {
		o := opts
		o.Prefix = prefix
		s, err := etcdstore.New(ctx, []string{endpoint}, o)
		if err != nil {
			return nil, err
		}
		prefixes[s] = prefix
		return s, nil
	}
	return storetest.Factory{
		New: func(ctx context.Context) (store.Store, error) {
			return openAt(ctx, fmt.Sprintf("/test-%d-%d/", time.Now().UnixNano(), n.Add(1)))
		},
		Reopen: func(ctx context.Context, s store.Store) (store.Store, error) { return openAt(ctx, prefixes[s]) },
		Shared: true, MaxOps: 100, Timeout: time.Minute,
	}
}

func TestStore(t *testing.T) {
	e := startEtcd(t, t.TempDir(), freeURL(t))
	endpoint := e.url.String()
	storetest.Run(t, factory(endpoint, etcdstore.Options{}))
}

// With a log of a few events all watchers have to catch up from etcd all the time.
func TestStoreWithShortLog(t *testing.T) {
	e := startEtcd(t, t.TempDir(), freeURL(t))
	endpoint := e.url.String()
	for name, err := range storetest.Check(t.Context(), factory(endpoint, etcdstore.Options{WatchLog: 4}),
		"Watch/Events", "Watch/AfterRevision", "Watch/Prefix", "Watch/Complete", "Watch/SlowWatcher", "Watch/Progress",
		"Watch/Close", "Life/Close", "Compact/OldRevisions", "Compact/SlowWatcher", "Random/0", "Random/1") {
		t.Error(name, err)
	}
}

// Others write to the same etcd, and the store has neither their keys nor their events.
func TestSharedEtcd(t *testing.T) {
	e := startEtcd(t, t.TempDir(), freeURL(t))
	endpoint := e.url.String()
	other, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s := connect(t, endpoint, etcdstore.Options{Prefix: "/mine/"})
	w, err := s.Watch(t.Context(), store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, k := range []string{"/mine", "/min", "/mine0", "/other/a", "zzz"} {
		if _, err := other.Put(t.Context(), k, "x"); err != nil {
			t.Fatal(err)
		}
	}
	rev, err := s.Commit(t.Context(), store.Put("a", []byte("1"), store.Absent()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Put(t.Context(), "/mine/b", "2"); err != nil {
		t.Fatal(err)
	}
	last, _, err := s.Revision(t.Context())
	if err != nil || last != rev+1 {
		t.Fatalf("revision %d after %d, %v", last, rev, err)
	}
	keys := ""
	for reached := int64(0); reached < last; {
		b, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range b.Events {
			keys += ev.KV.Key
		}
		reached = b.Revision
	}
	if keys != "ab" {
		t.Errorf("the watcher reports keys %q, want a and b", keys)
	}
	res, err := s.List(t.Context(), store.ListOptions{})
	if err != nil || len(res.KVs) != 2 {
		t.Errorf("the store has %+v, %v", res.KVs, err)
	}
}

// etcd is stopped and started again under the store: watches go on, and a commit in between
// fails with an error that says what may have happened.
func TestRestart(t *testing.T) {
	dir, clientURL := t.TempDir(), freeURL(t)
	e := startEtcd(t, dir, clientURL)
	s := connect(t, clientURL.String(), etcdstore.Options{Prefix: "/p/"})
	w, err := s.Watch(t.Context(), store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := s.Commit(t.Context(), store.Put("a", []byte("1"), store.Any())); err != nil {
		t.Fatal(err)
	}
	e.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	_, err = s.Commit(ctx, store.Put("a", []byte("2"), store.Any()))
	cancel()
	if !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("a commit without an etcd: %v, want ErrUnknownOutcome", err)
	}
	startEtcd(t, dir, clientURL)
	var rev int64
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		rev, err = s.Commit(t.Context(), store.Put("a", []byte("3"), store.Any()))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("commits do not work again: %v", err)
		}
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	values := ""
	for reached := int64(0); reached < rev; {
		b, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range b.Events {
			values += string(ev.KV.Value)
		}
		reached = b.Revision
	}
	if values != "13" && values != "123" && values != "133" && values != "1233" {
		t.Errorf("the watcher reports values %s", values)
	}
}

// A watch that was interrupted while what it had not seen was compacted ends with ErrCompacted.
func TestCompactionWhileDown(t *testing.T) {
	dir, clientURL := t.TempDir(), freeURL(t)
	e := startEtcd(t, dir, clientURL)
	s := connect(t, clientURL.String(), etcdstore.Options{Prefix: "/p/"})
	w, err := s.Watch(t.Context(), store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	first, err := s.Commit(t.Context(), store.Put("a", []byte("1"), store.Any()))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := w.Next(t.Context()); err != nil || b.Revision < first {
		t.Fatal(b, err)
	}
	e.kill()
	// Another port, so that the store cannot come back before the compaction.
	elsewhere := freeURL(t)
	e = startEtcd(t, dir, elsewhere)
	other, err := clientv3.New(clientv3.Config{Endpoints: []string{elsewhere.String()}})
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	for i := range 5 {
		res, err := other.Put(t.Context(), "/p/a", fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		last = res.Header.Revision
	}
	if _, err := other.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	other.Close()
	e.kill()
	startEtcd(t, dir, clientURL)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for err == nil {
		_, err = w.Next(ctx)
	}
	if !errors.Is(err, store.ErrCompacted) {
		t.Fatalf("the watcher ends with %v", err)
	}
	w2, err := s.Watch(ctx, store.WatchOptions{After: last})
	if err != nil {
		t.Fatal(err)
	}
	defer w2.Close()
	rev, err := s.Commit(ctx, store.Put("a", []byte("new"), store.Any()))
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, err := w2.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if b.Revision >= rev {
			break
		}
	}
}

func TestAuthentication(t *testing.T) {
	e := startEtcd(t, t.TempDir(), freeURL(t))
	endpoint := e.url.String()
	admin, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	ctx := t.Context()
	stock.SecureEtcd(t, admin)
	if s, err := etcdstore.New(ctx, []string{endpoint}, etcdstore.Options{Username: "app", Password: "wrong", DialTimeout: 3 * time.Second}); err == nil {
		s.Close()
		t.Error("a wrong password is accepted")
	}
	s := connect(t, endpoint, etcdstore.Options{Username: "app", Password: "word", Prefix: "/app/"})
	if _, err := s.Commit(ctx, store.Put("a", nil, store.Absent())); err != nil {
		t.Error(err)
	}
	if s, err := etcdstore.New(ctx, []string{endpoint}, etcdstore.Options{Username: "app", Password: "word", Prefix: "/forbidden/"}); err == nil {
		s.Close()
		t.Error("a prefix without permission is accepted")
	}
}

// A restored etcd goes on above the revisions of the snapshot's store, none of which it can be asked for.
func TestRestore(t *testing.T) {
	from, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	ctx := t.Context()
	for i := range 500 {
		if _, err := from.Commit(ctx, store.Put(fmt.Sprint("k", i%250), []byte(fmt.Sprint(i)), store.Any())); err != nil {
			t.Fatal(err)
		}
	}
	var snapshot bytes.Buffer
	if _, err := store.Snapshot(ctx, from, &snapshot, nil); err != nil {
		t.Fatal(err)
	}
	e := startEtcd(t, t.TempDir(), freeURL(t))
	to := connect(t, e.url.String(), etcdstore.Options{Prefix: "/restored/"})
	if _, err := store.Restore(ctx, to, bytes.NewReader(snapshot.Bytes()), store.RestoreOptions{Skip: 1 << 40}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("to skip more revisions than etcd can in years: %v", err)
	}
	const skip = 30_000
	var progress []store.RestoreProgress
	info, err := store.Restore(ctx, to, bytes.NewReader(snapshot.Bytes()), store.RestoreOptions{
		Skip: skip, Progress: func(p store.RestoreProgress) { progress = append(progress, p) },
	})
	if err != nil {
		t.Fatal(err)
	}
	current, compacted, err := to.Revision(ctx)
	if err != nil || compacted < info.Revision+skip || current < compacted {
		t.Errorf("revision %d, compacted to %d, %v; want both above %d", current, compacted, err, info.Revision+3000)
	}
	if len(progress) != 2 || progress[1].Keys != 250 || progress[1].Target != info.Revision+skip || progress[1].Revision <= progress[0].Revision {
		t.Errorf("the progress is %+v", progress)
	}
	if n, err := store.Compare(ctx, from, to, store.CompareOptions{}); err != nil || n != 250 {
		t.Errorf("%d keys are the same, %v", n, err)
	}
	for _, old := range []int64{2, info.Revision, info.Revision + skip - 1} {
		if _, err := to.Get(ctx, "k1", old); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("a read at %d: %v", old, err)
		}
		w, err := to.Watch(ctx, store.WatchOptions{After: old})
		if err == nil {
			_, err = w.Next(ctx)
			w.Close()
		}
		if !errors.Is(err, store.ErrCompacted) {
			t.Errorf("a watch after %d: %v", old, err)
		}
	}
	// At the compacted revision itself both work.
	if res, err := to.Get(ctx, "k1", compacted); err != nil || res.KV == nil {
		t.Errorf("a read at the compacted revision: %+v, %v", res, err)
	}
	w, err := to.Watch(ctx, store.WatchOptions{After: compacted})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	rev, err := to.Commit(ctx, store.Put("k1", nil, store.Present()))
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Events) > 0 {
			if b.Events[0].KV.ModRevision != rev || b.Events[0].Prev == nil || string(b.Events[0].Prev.Value) != "251" {
				t.Errorf("the first event after the compacted revision is %+v", b.Events[0])
			}
			break
		}
	}
}

// An etcd that wants certificates of its clients.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	authority, err := ca.New(ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(ca.Request{
		Subject: pkix.Name{CommonName: "etcd"}, Hosts: []string{"127.0.0.1"},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, "etcd.crt"), filepath.Join(dir, "etcd.key")
	if err := errors.Join(os.WriteFile(cert, pair.CertificatePEM, 0o600), os.WriteFile(key, pair.KeyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	url := stock.StartEtcd(t, stock.EtcdOptions{NoFsync: true, CA: filepath.Join(dir, ca.CertificateFile), Cert: cert, Key: key}).URL
	own, err := authority.Client("keelson")
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := own.TLS()
	if err != nil {
		t.Fatal(err)
	}
	good := &tls.Config{RootCAs: authority.Pool(), Certificates: []tls.Certificate{certificate}}
	s := connect(t, url, etcdstore.Options{TLS: good, Prefix: "/t/"})
	if _, err := s.Commit(t.Context(), store.Put("a", []byte("1"), store.Absent())); err != nil {
		t.Error(err)
	}
	w, err := s.Watch(t.Context(), store.WatchOptions{After: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if b, err := w.Next(t.Context()); err != nil || len(b.Events) != 1 {
		t.Errorf("%+v, %v", b, err)
	}
	for what, opts := range map[string]etcdstore.Options{
		"no certificate":               {TLS: &tls.Config{RootCAs: authority.Pool()}},
		"an authority that is not its": {TLS: &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{certificate}}},
	} {
		opts.DialTimeout = time.Second
		if s, err := etcdstore.New(t.Context(), []string{url}, opts); err == nil {
			s.Close()
			t.Errorf("with %s the store connects", what)
		}
	}
}

func TestNothingThere(t *testing.T) {
	u := freeURL(t)
	start := time.Now()
	s, err := etcdstore.New(t.Context(), []string{u.String()}, etcdstore.Options{DialTimeout: 500 * time.Millisecond})
	if err == nil {
		s.Close()
		t.Fatal("New finds an etcd where there is none")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("New takes %v", took)
	}
	t.Log(err)
}
