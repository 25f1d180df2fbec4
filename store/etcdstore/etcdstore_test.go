package etcdstore_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/etcdserve/etcdservetest"
	"github.com/keelson/keelson/store/etcdstore"
	"github.com/keelson/keelson/store/memstore"
	"github.com/keelson/keelson/store/storetest"
)

// These tests use what etcdserve makes of a store in memory. internal/interop/etcd has them and others beside a real etcd, and a cluster of three
// whose members fail.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server serves an empty store until the test ends, or stop is called.
func server(t *testing.T) (url string, stop func()) {
	t.Helper()
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	url, stop = etcdservetest.Serve(t, s, etcdserve.Options{})
	// Everything is started when it answers; what it starts is not a check's leak.
	c := connect(t, url, etcdstore.Options{})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return url, stop
}

func connect(t *testing.T, url string, opts etcdstore.Options) *etcdstore.Store {
	t.Helper()
	s, err := etcdstore.New(t.Context(), []string{url}, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// factory makes stores with prefixes of their own in one etcd.
func factory(url string, opts etcdstore.Options) storetest.Factory {
	var n atomic.Int64
	prefixes := map[store.Store]string{}
	openAt := func(ctx context.Context, prefix string) (store.Store, error) {
		opts.Prefix = prefix
		s, err := etcdstore.New(ctx, []string{url}, opts)
		if err == nil {
			prefixes[s] = prefix
		}
		return s, err
	}
	return storetest.Factory{
		New:    func(ctx context.Context) (store.Store, error) { return openAt(ctx, fmt.Sprintf("/t%d/", n.Add(1))) },
		Reopen: func(ctx context.Context, s store.Store) (store.Store, error) { return openAt(ctx, prefixes[s]) },
		Shared: true, MaxOps: 100,
	}
}

func TestStore(t *testing.T) {
	url, _ := server(t)
	storetest.Run(t, factory(url, etcdstore.Options{}))
}

// With a log of a few events all watchers have to catch up all the time.
func TestStoreWithShortLog(t *testing.T) {
	url, _ := server(t)
	for name, err := range storetest.Check(t.Context(), factory(url, etcdstore.Options{WatchLog: 4}),
		"Watch/Events", "Watch/Complete", "Watch/SlowWatcher", "Watch/Progress", "Compact/SlowWatcher", "Random/0") {
		t.Error(name, err)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []etcdstore.Options{{DialTimeout: -1}, {KeepAlive: -1}, {WatchLog: -1}} {
		if s, err := etcdstore.New(t.Context(), []string{"http://127.0.0.1:1"}, o); err == nil || !strings.Contains(err.Error(), "Options.") {
			if err == nil {
				s.Close()
			}
			t.Errorf("%+v: %v, want an error that names the field", o, err)
		}
	}
	if s, err := etcdstore.New(t.Context(), nil, etcdstore.Options{}); err == nil {
		s.Close()
		t.Error("no endpoints give no error")
	}
}

// A commit whose answer is lost is of unknown outcome, and a read is not.
func TestLostConnection(t *testing.T) {
	url, stop := server(t)
	s := connect(t, url, etcdstore.Options{})
	if _, err := s.Commit(t.Context(), store.Put("a", []byte("1"), store.Any())); err != nil {
		t.Fatal(err)
	}
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.Commit(ctx, store.Put("a", []byte("2"), store.Any())); !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("a commit without a server: %v, want ErrUnknownOutcome", err)
	}
	if _, err := s.Get(ctx, "a", 0); err == nil || errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("a read without a server: %v", err)
	}
	_, err := etcdstore.New(t.Context(), []string{url}, etcdstore.Options{DialTimeout: 200 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("New without a server: %v, want that the connection is refused", err)
	}
}

// An error of New says what is wrong with a server's certificate.
func TestUnknownAuthority(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	_, err := etcdstore.New(t.Context(), []string{server.URL}, etcdstore.Options{DialTimeout: 200 * time.Millisecond})
	if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
		t.Errorf("New with a server of unknown authority: %v, want that told", err)
	}
}

// What certainly has not happened is not of unknown outcome.
func TestRefusedCommits(t *testing.T) {
	url, _ := server(t)
	s := connect(t, url, etcdstore.Options{Prefix: "/p/"})
	var many []store.Op
	for i := range 200 {
		many = append(many, store.Put(fmt.Sprint(i), nil, store.Any()))
	}
	for what, ops := range map[string][]store.Op{
		"too many operations": many,
		"too large a value":   {store.Put("a", make([]byte, 4<<20), store.Any())},
	} {
		if _, err := s.Commit(t.Context(), ops...); !errors.Is(err, store.ErrInvalid) || errors.Is(err, store.ErrUnknownOutcome) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
	if res, err := s.List(t.Context(), store.ListOptions{}); err != nil || len(res.KVs) != 0 {
		t.Errorf("the store has %+v, %v", res.KVs, err)
	}
}
